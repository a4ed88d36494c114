"""The headquarters consumer: from `async-customers` to account numbers, snapshots and replies.

Input: `async-customers`, as a member of the consumer group `headquarters`; start as many as there are partitions,
anywhere. Output: headquarters' database; `customers`, `channel-replies` and `async-customers.dlq`.
Promise: one account number per customer, whatever dies. The database commits first, then Kafka with the offsets.

    it dies                          then
    before the SQL commit            nothing happened; the batch is read again
    between the commits              Kafka aborts; the batch is read again; the log gives the same numbers and answers
    after the Kafka commit           nothing repeats
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from threading import Event
from typing import Final, NamedTuple, Self

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert
from structlog import get_logger

from commerce.database import check_version, open_database
from commerce.failpoints import failpoint
from commerce.failures import DatabaseOlderThanStream, TooManyDeadLetters
from commerce.kafka import check_partitions, consumer_configuration, producer_configuration, topic_ids
from commerce.schema_exchange import publish_schemas, writer_schemas
from commerce.settings import Settings
from commerce.transaction_session import Batch, BatchLimits, Outputs, TransactionSession
from consumers.dead_letters import dead_letter_headers
from consumers.headquarters.allocation import Blocks
from consumers.headquarters.judge import Judged, Known, known, places_of, take_in
from consumers.headquarters.newest import check_newest
from consumers.headquarters.outputs import created_outputs, replies, snapshots
from consumers.headquarters.slots import Slot
from consumers.headquarters.synchronize import Reached, Stream, read_positions, synchronize
from consumers.patience import Patience, Stopped
from schemas.batches import UnreadableRow
from schemas.headquarters import topics
from schemas.records import HEADQUARTERS
from schemas.topics import ASYNC_CUSTOMERS, ASYNC_CUSTOMERS_DLQ, CHANNEL_REPLIES, CUSTOMERS
from schemas.wire import WriterSchemas

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
        channels = known(settings)
        blocks = Blocks(engine)
        streams = _Streams(settings, engine, source)
        session = TransactionSession(
            name="headquarters",
            topic=source,
            consumer=consumer_configuration(settings, **{"group.id": settings.group(GROUP)}),
            producer=producer_configuration(settings),
            transactional_id=ends.enter_context(Slot(engine, settings, GROUP, slot_number)).transactional_id,
            on_assigned=streams.check,
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
                _stop_when_too_many(going_on, settings)
                failpoint("headquarters.while_judging")
                reached = Reached(stream=streams.stream, next_offsets=batch.next_offsets)
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
                    _send_dead_letters(settings, out, batch, judged.unreadable)
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


def _read(batch: Batch, writers: WriterSchemas, channels: Known) -> _Read:
    """Decode and judge a batch. Raises: what `writers` raises when a schema cannot be looked up for now."""
    values = [message.value() for message in batch.messages]
    keys = [message.key() for message in batch.messages]
    return _Read(values, take_in(keys, values, writers, channels, places_of(batch.topic, batch.messages)))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableInARow:
    """How many records came without a readable one between them: the most within a batch, and those at its end."""

    longest: int = 0
    at_end: int = 0

    def after(self, unreadable: Collection[int], records: int) -> "UnreadableInARow":
        """The same after one more batch of so many records, of which these rows cannot be read."""
        if not unreadable:
            return UnreadableInARow()
        readable = [-1 - self.at_end, *sorted(set(range(records)).difference(unreadable)), records]
        runs = [later - earlier - 1 for earlier, later in pairwise(readable)]
        at_end = records - 1 - readable[-2]
        return UnreadableInARow(longest=max(runs), at_end=at_end)


def _stop_when_too_many(unreadable: UnreadableInARow, settings: Settings) -> None:
    """A flood of unreadable records is a bad release, not bad luck: stop before they all are dead letters."""
    if unreadable.longest > settings.headquarters.dead_letters_in_a_row_max:
        raise TooManyDeadLetters(
            f"{unreadable.longest} records in a row cannot be read, more than dead_letters_in_a_row_max allows: "
            "probably a writer's release is newer than this one, or broken. Nothing of this batch is consumed. Upgrade "
            "headquarters or stop that writer; to go on all the same, raise dead_letters_in_a_row_max of "
            "[headquarters] in tenten.toml"
        )


def _send_dead_letters(settings: Settings, out: Outputs, batch: Batch, unreadable: tuple[UnreadableRow, ...]) -> None:
    """Each unreadable record as it came, with the reason, in the same transaction as its offset."""
    now = datetime.now(UTC)
    for bad in unreadable:
        message = batch.messages[bad.row]
        headers = dead_letter_headers(message, bad, now)
        _, timestamp_ms = message.timestamp()
        out.send(settings.topic(ASYNC_CUSTOMERS_DLQ), message.key(), message.value(), headers, timestamp_ms)


class _Streams:
    """The guard at each assignment: the database and the stream must belong together."""

    def __init__(self, settings: Settings, engine: Engine, source: str) -> None:
        self._settings = settings
        self._engine = engine
        self._source = source
        self.stream = Stream(consumer_group=settings.group(GROUP), topic_id="")

    def check(self, committed: Mapping[int, int | None]) -> None:
        """Compare what the group has committed for these partitions with what the database has taken in.

        Behind is a crash between the commits, and repeats. Raises: `DatabaseOlderThanStream` when the group is ahead,
        or the newest snapshots are; `TopicChanged` when partitions were added.
        """
        now = topic_ids(self._settings, [self._source])[self._source]
        self.stream = Stream(consumer_group=self._settings.group(GROUP), topic_id=now.topic_id)
        with self._engine.begin() as headquarters:
            headquarters.execute(
                insert(topics)
                .values(topic=self._source, topic_id=now.topic_id, partitions=now.partitions)
                .on_conflict_do_nothing()
            )
            noted = select(topics.c.partitions).where(topics.c.topic == self._source, topics.c.topic_id == now.topic_id)
            check_partitions(self._source, headquarters.execute(noted).scalar_one(), now.partitions)
            taken_in = read_positions(headquarters, self.stream)
        for partition, offset in committed.items():
            if offset is not None and offset > taken_in.get(partition, 0):
                raise DatabaseOlderThanStream(
                    f"the group has read {self._source}/{partition} up to {offset}, headquarters' database only up to "
                    f"{taken_in.get(partition, 0)}: the database is older than the stream, perhaps restored from a "
                    "backup, and would give numbers out again. Restore one that is as new as the stream"
                )
        check_newest(self._settings, self._engine, committed.keys())
