"""The customers worker: from `async-customers` to account numbers, snapshots and replies.

Input: `async-customers`, as a member of the consumer group `headquarters`; at most as many workers as partitions.
Output: headquarters' database; `customers`, `channel-replies`, `erasures`, `channel-settings`, `async-customers.dlq`.
Guarantee: one account number per customer, whatever crashes. The database commits first, then Kafka with the offsets.

    crash                            effect
    before the SQL commit            nothing is stored; the batch is read again
    between the commits              Kafka aborts; the batch is read again; the log has the same numbers and replies
    after the Kafka commit           nothing is repeated
"""

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property, partial
from threading import Event
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.batches import UnreadableRow
from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.background_thread import BackgroundThread
from tenten.consumers.headquarters.customers.classify import (
    ClassifiedBatch,
    decode_and_classify,
    decode_small,
    individually,
)
from tenten.consumers.headquarters.customers.held_events import HeldCustomers, Original
from tenten.consumers.headquarters.customers.held_touches import HeldTouches
from tenten.consumers.headquarters.customers.new_topic import declare_new_topic_complete
from tenten.consumers.headquarters.customers.numbering import Blocks
from tenten.consumers.headquarters.customers.outputs import (
    BatchOutputs,
    created_outputs,
    erasures,
    replies,
    snapshots,
)
from tenten.consumers.headquarters.customers.registrar import Registrar
from tenten.consumers.headquarters.customers.scheduled_verification import verify_when_due
from tenten.consumers.headquarters.customers.small_batch import SmallBatches, new_customers
from tenten.consumers.headquarters.customers.synchronize import Headquarters, synchronize
from tenten.consumers.headquarters.customers.unreadable_replies import unreadable_replies
from tenten.consumers.headquarters.known_channels import ChannelRegistry, KnownChannels, begin_with_settings
from tenten.consumers.headquarters.misplaced import any_misplaced
from tenten.consumers.headquarters.positions import StreamPositions
from tenten.consumers.headquarters.record_positions import record_positions
from tenten.consumers.headquarters.stream_guard import StreamGuard
from tenten.consumers.headquarters.unfinished_commands import refuse_half_recovered
from tenten.consumers.headquarters.unreadable import UnreadableStreak, send_dead_letters, stop_when_too_many
from tenten.consumers.headquarters.watch import watch_repeatedly
from tenten.kafka.client_config import consumer_configuration, producer_configuration
from tenten.kafka.records import headers_of
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.kafka.transaction_session import Batch, BatchLimits, TransactionSession
from tenten.runtime.failpoints import failpoint
from tenten.runtime.prefetch import Prefetcher
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS
from tenten.schemas.topics import (
    ASYNC_CUSTOMERS,
    ASYNC_CUSTOMERS_DLQ,
    CHANNEL_REPLIES,
    CHANNEL_SETTINGS,
    CUSTOMERS,
    ERASURES,
    HEADQUARTERS_STATUS,
)
from tenten.sql.headquarters_engine import open_for_worker
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
        engine = open_for_worker(settings.headquarters_database())
        stack.callback(engine.dispose)
        writers = writer_schemas(settings)
        blocks = Blocks(engine)
        guard = StreamGuard(settings, engine, writers, GROUP, on_other_database=blocks.forget)
        registry = ChannelRegistry(engine)
        begin = partial(_begin, settings, engine, guard, registry)
        try:
            headers = Retry("headquarters", HEADQUARTERS, stop).run_until_success(begin)
        except Stopped:
            return
        held = HeldCustomers(writers)
        small_batches = SmallBatches(engine)
        stack.callback(small_batches.close)
        session = TransactionSession(
            name="headquarters",
            topic=settings.topic(ASYNC_CUSTOMERS),
            consumer=consumer_configuration(settings, **{"group.id": settings.group(GROUP)}),
            producer=producer_configuration(settings),
            transactional_id=stack.enter_context(Slot(engine, settings, GROUP, slot_number)).transactional_id,
            on_assigned=partial(_begin_reading, guard, held, engine),
            limits=BatchLimits(records_max=settings.headquarters.batch_records_max),
            stop=stop,
        )
        stack.enter_context(session)
        touches = HeldTouches(settings=settings, engine=engine, registry=registry, held=held, headers=headers)
        threads = [
            stack.enter_context(BackgroundThread("watch", stop, partial(watch_repeatedly, guard, session))),
            stack.enter_context(BackgroundThread("verification", stop, partial(verify_when_due, settings, engine))),
            stack.enter_context(BackgroundThread("held", stop, touches.run)),
            stack.enter_context(
                BackgroundThread("registrar", stop, Registrar(settings, engine, headers["ChannelSettings"]).run)
            ),
        ]
        prefetcher = stack.enter_context(
            Prefetcher[Batch, _ReadBatch](lambda batch: _ReadBatch(batch, writers, registry.known, guard.partitions))
        )
        streak = UnreadableStreak()
        for batch in session.batches():
            with session.attempt(batch):
                read = prefetcher.get(batch, batch.following)
                new_streak = streak.after([bad.row for bad in read.unreadable], len(batch.messages))
                stop_when_too_many(new_streak, settings)
                failpoint("headquarters.while_judging")
                reached = StreamPositions(stream=guard.stream, starts=batch.starts, next_offsets=batch.next_offsets)
                outputs, now = None, datetime.now(UTC)
                answered: list[int] = []
                if read.new_customers is not None and not held.among(read.customer_ids):
                    outputs = small_batches.create(read.new_customers, batch.topic, reached, now, headers)
                if outputs is None:
                    classified = read.classified
                    channels = _channels_for(classified, registry, held)
                    at = Headquarters(engine=engine, blocks=blocks, channels=channels, held=held)
                    encode = partial(created_outputs, values=read.values, headers=headers)
                    synchronized = synchronize(
                        at, classified, reached, now=now, encode=encode, originals=partial(_original, batch)
                    )
                    answered = [held_id for transaction in synchronized for held_id in transaction.answered]
                    outputs = BatchOutputs(
                        snapshots(synchronized, headers),
                        replies(synchronized, headers),
                        erasures(synchronized, headers),
                    )
                unreadable = unreadable_replies(
                    batch.messages,
                    read.unreadable,
                    writers=writers,
                    channels=registry.known,
                    header=headers["Reply"],
                    now=now,
                )
                failpoint("headquarters.after_sql_commit")
                with session.transaction(batch) as out:
                    for snapshot in outputs.snapshots:
                        out.send(settings.topic(CUSTOMERS), snapshot.key, snapshot.value, snapshot.headers)
                    for reply in (*outputs.replies, *unreadable):
                        out.send(settings.topic(CHANNEL_REPLIES), reply.key, reply.value, reply.headers)
                    for erasure in outputs.erasures:
                        out.send(settings.topic(ERASURES), erasure.key, erasure.value, erasure.headers)
                    send_dead_letters(settings, out, batch, read.unreadable, ASYNC_CUSTOMERS_DLQ)
                held.delete_answered(engine, answered)
                streak = new_streak
                log.info(
                    "batch_synchronized",
                    records=len(batch.messages),
                    snapshots=len(outputs.snapshots),
                    individual_events=read.individual_events,
                    dead_letters=len(read.unreadable),
                    next_offsets=batch.next_offsets,
                )
        for thread in threads:
            thread.check()


def _begin_reading(
    guard: StreamGuard, held: HeldCustomers, engine: Engine, committed: Mapping[int, int | None]
) -> dict[int, int]:
    """Where reading of the partitions of a new assignment begins; learn which of their customers have held events."""
    begins = guard.begin_reading(committed)
    held.load(engine)
    return begins


def _channels_for(classified: ClassifiedBatch, registry: ChannelRegistry, held: HeldCustomers) -> KnownChannels:
    """The known channels for this batch: asks the database if an event is of an unknown one, or if events of its
    customers are held, perhaps for a channel that is known since.
    """
    events = [individual.event for individual in classified.individual_events]
    is_held = bool(held.among(event.customer_id for event in events))
    return registry.look_up((event.channel_id for event in events), now=is_held)


def _original(batch: Batch, row: int) -> Original:
    """A record of the batch as it was received."""
    message = batch.messages[row]
    return Original(message.value() or b"", headers_of(message))


def _begin(settings: Settings, engine: Engine, guard: StreamGuard, registry: ChannelRegistry) -> Mapping[str, bytes]:
    """Check the database and the topics, read the registry, and publish the schemas; return the wire header of each
    contract.

    Raises: `KafkaRefused` for a topic that does not exist: a broker would create it, with properties of its own.
    """
    check_version(engine, "headquarters")
    refuse_half_recovered(engine)
    topic_ids(settings, map(settings.topic, (ERASURES, HEADQUARTERS_STATUS, CHANNEL_SETTINGS)))
    headers = publish_schemas(settings)
    guard.check_connections()
    begin_with_settings(settings, engine, "headquarters run")
    registry.refresh()
    declare_new_topic_complete(settings, engine)
    return headers


class _ReadBatch:
    """A batch that has been decoded: as new customers, if it is small and has nothing else, otherwise classified."""

    def __init__(self, batch: Batch, writers: WriterSchemas, channels: KnownChannels, partitions: int) -> None:
        """`partitions`: of the topic. Raises: what `writers` raises when a schema cannot be looked up at the moment."""
        self.values = [message.value() for message in batch.messages]
        self._keys = [message.key() for message in batch.messages]
        self._positions = record_positions(batch.topic, batch.messages)
        self._writers = writers
        self._channels = channels
        self._partitions = partitions
        self._events = decode_small(self._keys, self.values, writers)
        if self._events is not None and any_misplaced(self._keys, self._positions, partitions):
            self._events = None
        self.new_customers = (
            None
            if self._events is None
            else new_customers(self._events, self.values, self._positions, writers, channels)
        )
        if self.new_customers is None:
            _ = self.classified  # here, since this may be the prefetching thread

    @property
    def customer_ids(self) -> list[str]:
        """The customers of a small batch."""
        return [event["customer_id"] for event in self._events or ()]

    @cached_property
    def classified(self) -> ClassifiedBatch:
        """The batch for the general path: new customers, too, where the database did not accept them together."""
        if self._events is not None:
            return individually(self._events, self.values, self._positions)
        return decode_and_classify(
            self._keys, self.values, self._writers, self._channels, self._positions, partitions=self._partitions
        )

    @property
    def unreadable(self) -> tuple[UnreadableRow, ...]:
        """The records that cannot be read."""
        return () if self.new_customers is not None else self.classified.unreadable

    @property
    def individual_events(self) -> int:
        """The number of events that need individual handling."""
        return 0 if self.new_customers is not None else len(self.classified.individual_events)
