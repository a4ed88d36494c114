"""The headquarters consumer: from `async-customers` to account numbers, snapshots and replies.

Input: `async-customers`, as a member of the consumer group `headquarters`; start as many as there are partitions,
anywhere. Output: headquarters' database; `customers`, `channel-replies` and `async-customers.dlq`.
Promise: one account number per customer, whatever dies. The database commits first, then Kafka with the offsets.

    it dies                          then
    before the SQL commit            nothing happened; the batch is read again
    between the commits              Kafka aborts; the batch is read again; the log gives the same numbers and answers
    after the Kafka commit           nothing repeats
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Event
from typing import Final, NamedTuple, Self

from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.customers.classify import Judged, take_in
from tenten.consumers.headquarters.customers.newest_snapshots import check_newest
from tenten.consumers.headquarters.customers.numbering import Blocks
from tenten.consumers.headquarters.customers.outputs import created_outputs, replies, snapshots
from tenten.consumers.headquarters.customers.transaction import synchronize
from tenten.consumers.headquarters.known_channels import KnownChannels, known_channels
from tenten.consumers.headquarters.positions import Reached
from tenten.consumers.headquarters.record_positions import record_positions
from tenten.consumers.headquarters.stream_guard import StreamGuard
from tenten.consumers.headquarters.unreadable import UnreadableInARow, send_dead_letters, stop_when_too_many
from tenten.kafka.client import consumer_configuration, producer_configuration
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.slots import Slot
from tenten.kafka.transaction_session import Batch, BatchLimits, TransactionSession
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Patience, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS
from tenten.schemas.topics import ASYNC_CUSTOMERS, ASYNC_CUSTOMERS_DLQ, CHANNEL_REPLIES, CUSTOMERS
from tenten.sql.database import check_version, open_database

log = get_logger(__name__)

GROUP: Final = "headquarters"


def run(settings: Settings, stop: Event, slot_number: int | None = None) -> None:
    """Synchronize batches until `stop` is set.

    Raises: `DatabaseOlderThanStream`, `TopicChanged`, `TooManyDeadLetters`, `KafkaRefused`, `SettingsError`: what
    waiting cannot mend, each with what to do.
    """
    with ExitStack() as ends:
        engine = open_database(settings.headquarters_database())
        ends.callback(engine.dispose)
        try:
            headers = Patience("headquarters", HEADQUARTERS, stop).persist(partial(_begin, settings, engine))
        except Stopped:
            return
        source = settings.topic(ASYNC_CUSTOMERS)
        writers = writer_schemas(settings)
        channels = known_channels(settings)
        blocks = Blocks(engine)
        guard = StreamGuard(settings, engine, GROUP, ASYNC_CUSTOMERS, also=partial(check_newest, settings, engine))
        session = TransactionSession(
            name="headquarters",
            topic=source,
            consumer=consumer_configuration(settings, **{"group.id": settings.group(GROUP)}),
            producer=producer_configuration(settings),
            transactional_id=ends.enter_context(Slot(engine, settings, GROUP, slot_number)).transactional_id,
            on_assigned=guard.check,
            limits=BatchLimits(records_max=settings.headquarters.batch_records_max),
            stop=stop,
        )
        ends.enter_context(session)
        ahead = ends.enter_context(_Ahead(lambda batch: _read(batch, writers, channels)))
        unreadable = UnreadableInARow()
        for batch in session.batches():
            with session.attempt(batch):
                values, judged = ahead.read(batch)
                going_on = unreadable.after([bad.row for bad in judged.unreadable], len(values))
                stop_when_too_many(going_on, settings)
                failpoint("headquarters.while_judging")
                reached = Reached(stream=guard.stream, next_offsets=batch.next_offsets)
                encode = partial(created_outputs, values=values, headers=headers)
                synchronized = synchronize(engine, blocks, channels, judged, reached, use=encode)
                failpoint("headquarters.after_sql_commit")
                current = snapshots(synchronized, headers)
                answers = replies(synchronized, headers)
                with session.transaction(batch) as out:
                    for one in current:
                        out.send(settings.topic(CUSTOMERS), one.key, one.value, one.headers)
                    for one in answers:
                        out.send(settings.topic(CHANNEL_REPLIES), one.key, one.value, one.headers)
                    send_dead_letters(settings, out, batch, judged.unreadable, ASYNC_CUSTOMERS_DLQ)
                unreadable = going_on
                log.info(
                    "batch_synchronized",
                    records=len(values),
                    snapshots=len(current),
                    loose=len(judged.loose),
                    dead_letters=len(judged.unreadable),
                    next_offsets=batch.next_offsets,
                )


def _begin(settings: Settings, engine: Engine) -> Mapping[str, bytes]:
    """Ask those without whom nothing goes: the database, and whoever is told our schemas. Gives the headers."""
    check_version(engine, "headquarters")
    return publish_schemas(settings)


class _Read(NamedTuple):
    """A batch as it was read."""

    values: Sequence[bytes | None]
    judged: Judged


def _read(batch: Batch, writers: WriterSchemas, channels: KnownChannels) -> _Read:
    """Decode and judge a batch. Raises: what `writers` raises when a schema cannot be looked up for now."""
    values = [message.value() for message in batch.messages]
    keys = [message.key() for message in batch.messages]
    return _Read(values, take_in(keys, values, writers, channels, record_positions(batch.topic, batch.messages)))


class _Ahead:
    """Reads the batch that follows while the database is busy with the one before. Use it as a context manager."""

    def __init__(self, read: Callable[[Batch], _Read]) -> None:
        self._read = read
        self._begun: tuple[Batch, Future[_Read]] | None = None

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, "ahead")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def read(self, batch: Batch) -> _Read:
        """This batch; the next one is begun."""
        begun, self._begun = self._begun, None
        done = begun[1].result() if begun is not None and begun[0] is batch else self._read(batch)
        if batch.following is not None:
            self._begun = (batch.following, self._thread.submit(self._read, batch.following))
        return done
