"""The customers worker: from `async-customers` to account numbers, snapshots and replies.

Input: `async-customers`, as a member of the consumer group `headquarters`; at most as many workers as partitions.
Output: headquarters' database; `customers`, `channel-replies` and `async-customers.dlq`.
Guarantee: one account number per customer, whatever crashes. The database commits first, then Kafka with the offsets.

    crash                            effect
    before the SQL commit            nothing is stored; the batch is read again
    between the commits              Kafka aborts; the batch is read again; the log has the same numbers and replies
    after the Kafka commit           nothing is repeated
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from threading import Event
from typing import Final, NamedTuple

from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.customers.classify import ClassifiedBatch, decode_and_classify
from tenten.consumers.headquarters.customers.newest_snapshots import check_newest_snapshots
from tenten.consumers.headquarters.customers.numbering import Blocks
from tenten.consumers.headquarters.customers.outputs import created_outputs, replies, snapshots
from tenten.consumers.headquarters.customers.synchronize import synchronize
from tenten.consumers.headquarters.known_channels import KnownChannels, known_channels
from tenten.consumers.headquarters.positions import StreamPositions
from tenten.consumers.headquarters.record_positions import record_positions
from tenten.consumers.headquarters.stream_guard import StreamGuard
from tenten.consumers.headquarters.unreadable import UnreadableStreak, send_dead_letters, stop_when_too_many
from tenten.kafka.client_config import consumer_configuration, producer_configuration
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.transaction_session import Batch, BatchLimits, TransactionSession
from tenten.runtime.failpoints import failpoint
from tenten.runtime.prefetch import Prefetcher
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS
from tenten.schemas.topics import ASYNC_CUSTOMERS, ASYNC_CUSTOMERS_DLQ, CHANNEL_REPLIES, CUSTOMERS
from tenten.sql.engine import open_database
from tenten.sql.migrations import check_version
from tenten.sql.slots import Slot

log = get_logger(__name__)

GROUP: Final = "headquarters"


def run(settings: Settings, stop: Event, slot_number: int | None = None) -> None:
    """Synchronize batches until `stop` is set.

    Raises: `DatabaseOlderThanStream`, `TopicChanged`, `TooManyDeadLetters`, `KafkaRefused`, `SettingsError`: each
    names its remedy.
    """
    with ExitStack() as stack:
        engine = open_database(settings.headquarters_database())
        stack.callback(engine.dispose)
        try:
            headers = Retry("headquarters", HEADQUARTERS, stop).run_until_success(partial(_begin, settings, engine))
        except Stopped:
            return
        source = settings.topic(ASYNC_CUSTOMERS)
        writers = writer_schemas(settings)
        channels = known_channels(settings)
        blocks = Blocks(engine)
        guard = StreamGuard(settings, engine, GROUP, ASYNC_CUSTOMERS, partial(check_newest_snapshots, settings, engine))
        session = TransactionSession(
            name="headquarters",
            topic=source,
            consumer=consumer_configuration(settings, **{"group.id": settings.group(GROUP)}),
            producer=producer_configuration(settings),
            transactional_id=stack.enter_context(Slot(engine, settings, GROUP, slot_number)).transactional_id,
            on_assigned=guard.check,
            limits=BatchLimits(records_max=settings.headquarters.batch_records_max),
            stop=stop,
        )
        stack.enter_context(session)
        prefetcher = stack.enter_context(Prefetcher[Batch, _Read](lambda batch: _read(batch, writers, channels)))
        streak = UnreadableStreak()
        for batch in session.batches():
            with session.attempt(batch):
                values, classified = prefetcher.get(batch, batch.following)
                new_streak = streak.after([bad.row for bad in classified.unreadable], len(values))
                stop_when_too_many(new_streak, settings)
                failpoint("headquarters.while_judging")
                reached = StreamPositions(stream=guard.stream, next_offsets=batch.next_offsets)
                encode = partial(created_outputs, values=values, headers=headers)
                synchronized = synchronize(engine, blocks, channels, classified, reached, encode=encode)
                failpoint("headquarters.after_sql_commit")
                snapshot_outputs = snapshots(synchronized, headers)
                reply_outputs = replies(synchronized, headers)
                with session.transaction(batch) as out:
                    for snapshot in snapshot_outputs:
                        out.send(settings.topic(CUSTOMERS), snapshot.key, snapshot.value, snapshot.headers)
                    for reply in reply_outputs:
                        out.send(settings.topic(CHANNEL_REPLIES), reply.key, reply.value, reply.headers)
                    send_dead_letters(settings, out, batch, classified.unreadable, ASYNC_CUSTOMERS_DLQ)
                streak = new_streak
                log.info(
                    "batch_synchronized",
                    records=len(values),
                    snapshots=len(snapshot_outputs),
                    individual_events=len(classified.individual_events),
                    dead_letters=len(classified.unreadable),
                    next_offsets=batch.next_offsets,
                )


def _begin(settings: Settings, engine: Engine) -> Mapping[str, bytes]:
    """Check the database version and publish the schemas; return the wire header of each contract."""
    check_version(engine, "headquarters")
    return publish_schemas(settings)


class _Read(NamedTuple):
    """A batch after decoding and classification."""

    values: Sequence[bytes | None]
    batch: ClassifiedBatch


def _read(batch: Batch, writers: WriterSchemas, channels: KnownChannels) -> _Read:
    """Decode and classify a batch. Raises: what `writers` raises when a schema cannot be looked up at the moment."""
    values = [message.value() for message in batch.messages]
    keys = [message.key() for message in batch.messages]
    positions = record_positions(batch.topic, batch.messages)
    return _Read(values, decode_and_classify(keys, values, writers, channels, positions))
