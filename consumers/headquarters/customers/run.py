"""The customers worker: from `async-customers` to account numbers, snapshots and replies.

Input: `async-customers`, as a member of the consumer group `headquarters`; at most as many workers as partitions.
Output: headquarters' database; `customers`, `channel-replies`, `erasures`, `channel-settings`, `async-customers.dlq`.
Guarantee: one account number per customer, whatever crashes. The database commits first, then Kafka with the offsets.

    crash                            effect
    before the SQL commit            nothing is stored; the batch is read again
    between the commits              Kafka aborts; the batch is read again; the log has the same numbers and replies
    after the Kafka commit           nothing is repeated
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.authenticity import Authenticity
from tenten.consumers.headquarters.background_thread import BackgroundThread
from tenten.consumers.headquarters.containment import Containment
from tenten.consumers.headquarters.customers.classify import (
    ClassifiedBatch,
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
from tenten.consumers.headquarters.customers.read_batch import ReadBatch
from tenten.consumers.headquarters.customers.registrar import Registrar
from tenten.consumers.headquarters.customers.scheduled_verification import verify_when_due
from tenten.consumers.headquarters.customers.small_batch import SmallBatches
from tenten.consumers.headquarters.customers.synchronize import Headquarters, synchronize
from tenten.consumers.headquarters.customers.unreadable_replies import unreadable_replies
from tenten.consumers.headquarters.known_channels import ChannelRegistry, KnownChannels, begin_with_settings
from tenten.consumers.headquarters.positions import CheckedWith, StreamPositions
from tenten.consumers.headquarters.stream_guard import StreamGuard
from tenten.consumers.headquarters.traces import BatchTraces
from tenten.consumers.headquarters.unfinished_commands import refuse_half_recovered
from tenten.consumers.headquarters.unreadable import count_dead_letters, send_dead_letters
from tenten.consumers.headquarters.watch import watch_repeatedly
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.kafka.client_config import consumer_configuration, producer_configuration
from tenten.kafka.records import headers_of
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.kafka.transaction_session import Batch, BatchLimits, TransactionSession
from tenten.runtime.counting import count
from tenten.runtime.errors import SettingsChanged
from tenten.runtime.failpoints import failpoint
from tenten.runtime.prefetch import Prefetcher
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS, Outcome
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
                BackgroundThread(
                    "registrar", stop, Registrar(settings, engine, headers["ChannelSettings"], writers).run
                )
            ),
        ]
        work = _Work(
            settings=settings,
            engine=engine,
            writers=writers,
            guard=guard,
            registry=registry,
            check=Authenticity(mode=settings.authentication, topic=ASYNC_CUSTOMERS),
            containment=Containment(settings, engine, "headquarters run"),
            blocks=blocks,
            held=held,
            small_batches=small_batches,
            headers=headers,
        )
        prefetcher = stack.enter_context(Prefetcher[Batch, ReadBatch](work.read))
        for batch in session.batches():
            with session.attempt(batch):
                traces = BatchTraces("judge", batch.topic, batch.messages)
                read, now = prefetcher.get(batch, batch.following), datetime.now(UTC)
                stored = None
                while stored is None:
                    read = work.containment.contain(read, partial(work.read, batch), guard.stream, registry)
                    failpoint("headquarters.while_judging")
                    try:
                        stored = work.store(batch, read, now)
                    except SettingsChanged:
                        registry.refresh()
                        read = work.read(batch)
                unreadable = unreadable_replies(
                    batch.messages,
                    read.unreadable,
                    writers=writers,
                    channels=registry.known,
                    header=headers["Reply"],
                    now=now,
                )
                traces.add_held(engine, stored.answered)
                failpoint("headquarters.after_sql_commit")
                with session.transaction(batch) as out:
                    for snapshot in stored.outputs.snapshots:
                        out.send(
                            settings.topic(CUSTOMERS), snapshot.key, snapshot.value, traces.carried(snapshot.headers)
                        )
                    for reply in (*stored.outputs.replies, *unreadable):
                        out.send(settings.topic(CHANNEL_REPLIES), reply.key, reply.value, traces.carried(reply.headers))
                    for erasure in stored.outputs.erasures:
                        out.send(settings.topic(ERASURES), erasure.key, erasure.value, traces.carried(erasure.headers))
                    send_dead_letters(settings, out, batch, read.unreadable, ASYNC_CUSTOMERS_DLQ)
                traces.end()
                held.delete_answered(engine, stored.answered)
                _count(stored, len(unreadable))
                count_dead_letters(read.unreadable)
                work.containment.stored()
                log.info(
                    "batch_synchronized",
                    records=len(batch.messages),
                    snapshots=len(stored.outputs.snapshots),
                    individual_events=read.individual_events,
                    dead_letters=len(read.unreadable),
                    next_offsets=batch.next_offsets,
                )
        for thread in threads:
            thread.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """The result of storing a batch."""

    outputs: BatchOutputs
    outcomes: Mapping[Outcome, int]
    """How many events have each outcome."""
    answered: Sequence[int]
    """The held events that can be deleted when the outputs are on the topics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The steps of a batch, with what the batches of a worker have in common."""

    settings: Settings
    engine: Engine
    writers: WriterSchemas
    guard: StreamGuard
    registry: ChannelRegistry
    check: Authenticity
    containment: Containment
    blocks: Blocks
    held: HeldCustomers
    small_batches: SmallBatches
    headers: Mapping[str, bytes]

    def read(self, batch: Batch, stored: frozenset[int] = frozenset()) -> ReadBatch:
        """Decode and check a batch, without I/O. `stored` as of `ReadBatch`."""
        known, partitions = self.registry.known, self.guard.partitions
        return ReadBatch(batch, self.writers, known, self.check, partitions=partitions, stored=stored)

    def store(self, batch: Batch, read: ReadBatch, now: datetime) -> _Stored:
        """Write a batch to the database. Raises: `SettingsChanged` if it must be checked again; errors of SQL."""
        reached = StreamPositions(
            stream=self.guard.stream,
            starts=batch.starts,
            next_offsets=batch.next_offsets,
            checked=CheckedWith(version=read.channels.version),
        )
        if read.new_customers is not None and not self.held.among(read.customer_ids):
            outputs = self.small_batches.create(read.new_customers, batch.topic, reached, now, self.headers)
            if outputs is not None:
                return _Stored(outputs=outputs, outcomes={Outcome.SYNCHRONIZED: len(outputs.replies)}, answered=())
        channels = _channels_for(read.classified, self.registry, self.held)
        synchronized = synchronize(
            Headquarters(engine=self.engine, blocks=self.blocks, channels=channels, held=self.held),
            read.classified,
            reached,
            now=now,
            encode=partial(created_outputs, values=read.values, headers=self.headers),
            originals=partial(_original, batch),
        )
        outcomes = Counter(reply.outcome for done in synchronized for reply in done.replies)
        outcomes[Outcome.SYNCHRONIZED] += sum(len(done.created.replies) for done in synchronized)
        return _Stored(
            outcomes=outcomes,
            outputs=BatchOutputs(
                snapshots(synchronized, self.headers),
                replies(synchronized, self.headers),
                erasures(synchronized, self.headers),
            ),
            answered=[held_id for transaction in synchronized for held_id in transaction.answered],
        )


def _count(stored: _Stored, unreadable: int) -> None:
    """Count the events of a batch by outcome."""
    for outcome, events in {**stored.outcomes, Outcome.UNREADABLE: unreadable}.items():
        count("tenten_events_total", events, outcome.lower())


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
    """Check the database and the topics, make headquarters' keys, read the registry, and publish the schemas; return
    the wire header of each contract.

    Raises: `KafkaRefused` for a topic that does not exist: a broker would create it, with properties of its own.
    """
    check_version(engine, "headquarters")
    refuse_half_recovered(engine)
    topic_ids(settings, map(settings.topic, (ERASURES, HEADQUARTERS_STATUS, CHANNEL_SETTINGS)))
    headers = publish_schemas(settings)
    guard.check_connections()
    with engine.begin() as headquarters:
        ensure_headquarters_keys(headquarters)
    begin_with_settings(settings, engine, "headquarters run")
    registry.refresh()
    declare_new_topic_complete(settings, engine)
    return headers
