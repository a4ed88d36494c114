"""The transactions worker: from `retail-transactions` to sales orders and statements.

Input: `retail-transactions`, as a member of the consumer group `transactions`; at most as many workers as partitions.
Output: headquarters' database; `async-customers` (the customer events inside transactions), `transaction-replies` and
`retail-transactions.dlq`.
Guarantee: each transaction in exactly one sales order or statement, none with a customer that is not synchronized.

The main thread ingests batches: the database commits first, then Kafka with the offsets, the customer events, the dead
letters and the replies to these.

    crash                            effect
    before the SQL commit            nothing is stored; the batch is read again
    between the commits              Kafka aborts; the batch is read again; repeats are only counted
    after the Kafka commit           nothing is repeated

The release thread runs after every commit of either worker and at least once a second; each pass is one SQL transaction
that also enqueues its replies. The reply thread publishes queued replies and then deletes them: delivery is at least
once.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Any, Final

from confluent_kafka import Producer
from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.batches import UnreadableRow
from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.authenticity import Authenticity
from tenten.consumers.headquarters.background_thread import BackgroundThread
from tenten.consumers.headquarters.containment import Containment
from tenten.consumers.headquarters.known_channels import ChannelRegistry, begin_with_settings
from tenten.consumers.headquarters.positions import BATCH_COMMITTED_CHANNEL, CheckedWith, StreamPositions
from tenten.consumers.headquarters.stream_guard import StreamGuard
from tenten.consumers.headquarters.traces import BatchTraces
from tenten.consumers.headquarters.transactions.classify import ClassifiedBatch, ForwardedEvent
from tenten.consumers.headquarters.transactions.ingest import ingest
from tenten.consumers.headquarters.transactions.known_events import without_known
from tenten.consumers.headquarters.transactions.read_batch import ReadBatch, forwarded_signature
from tenten.consumers.headquarters.transactions.release import release
from tenten.consumers.headquarters.transactions.reply_outbox import REPLIES_CHANNEL, publish_replies
from tenten.consumers.headquarters.transactions.transaction_traces import note_traces
from tenten.consumers.headquarters.transactions.unknown_channels import accept_repeatedly
from tenten.consumers.headquarters.transactions.unreadable_replies import unreadable_replies
from tenten.consumers.headquarters.unfinished_commands import refuse_half_recovered
from tenten.consumers.headquarters.unreadable import count_dead_letters, send_dead_letters
from tenten.consumers.headquarters.watch import watch_repeatedly
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.kafka.client_config import REQUEST_SECONDS, consumer_configuration, producer_configuration
from tenten.kafka.records import Headers, headers_of
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.transaction_session import Batch, BatchLimits, TransactionSession
from tenten.kafka.transactional_producer import Outputs
from tenten.runtime.errors import SettingsChanged
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.runtime.tracing import HEADER
from tenten.schemas.messages import HEADQUARTERS
from tenten.schemas.topics import ASYNC_CUSTOMERS, RETAIL_TRANSACTIONS, RETAIL_TRANSACTIONS_DLQ, TRANSACTION_REPLIES
from tenten.sql.headquarters_engine import open_for_worker
from tenten.sql.migrations import check_version
from tenten.sql.notifications import listening
from tenten.sql.slots import Slot

log = get_logger(__name__)

GROUP: Final = "transactions"

LINGER_SECONDS: Final = 0.1
"""A batch waits this long for more sales. Meanwhile most of their new customers get their numbers: an event that
headquarters knows is not forwarded, and a batch without forwarded events needs no Kafka transaction."""

FULL_SCAN_SECONDS: Final = 1.0
"""Interval of full scans: a transaction and its customer, committed at the same time, may both miss the queue."""

FULL_SCAN_SECONDS_MAX: Final = 30.0
"""The longest interval, where a full scan takes long."""


def run(settings: Settings, stop: Event, slot_number: int | None = None) -> None:
    """Ingest and release transactions until `stop` is set.

    Raises: `DatabaseOlderThanStream`, `TopicChanged`, `TooManyDeadLetters`, `KafkaRefused`, `SettingsError`: each
    names its remedy.
    """
    with ExitStack() as stack:
        engine = open_for_worker(settings.headquarters_database())
        stack.callback(engine.dispose)
        writers = writer_schemas(settings)
        guard = StreamGuard(settings, engine, writers, GROUP)
        registry = ChannelRegistry(engine)
        try:
            Retry(GROUP, HEADQUARTERS, stop).run_until_success(partial(_begin, settings, engine, guard, registry))
        except Stopped:
            return
        threads = [
            stack.enter_context(BackgroundThread("settings", stop, partial(accept_repeatedly, registry, engine))),
            stack.enter_context(BackgroundThread("release", stop, partial(release_repeatedly, settings, engine))),
            stack.enter_context(BackgroundThread("replies", stop, partial(publish_repeatedly, settings, engine))),
        ]
        session = TransactionSession(
            name=GROUP,
            topic=settings.topic(RETAIL_TRANSACTIONS),
            consumer=consumer_configuration(settings, **{"group.id": settings.group(GROUP)}),
            producer=producer_configuration(settings),
            transactional_id=stack.enter_context(Slot(engine, settings, GROUP, slot_number)).transactional_id,
            on_assigned=guard.begin_reading,
            limits=BatchLimits(records_max=settings.headquarters.batch_records_max),
            stop=stop,
            linger_seconds=LINGER_SECONDS,
        )
        stack.enter_context(session)
        watch = BackgroundThread("watch", stop, partial(watch_repeatedly, guard, session))
        threads.append(stack.enter_context(watch))
        work = _Work(
            engine=engine,
            writers=writers,
            guard=guard,
            registry=registry,
            check=Authenticity(mode=settings.authentication, topic=RETAIL_TRANSACTIONS),
            containment=Containment(settings, engine, "transactions run"),
        )
        for batch in session.batches():
            with session.attempt(batch):
                traces = BatchTraces("ingest", batch.topic, batch.messages)
                note_traces(engine, traces.by_id(), datetime.now(UTC))
                stored = None
                while stored is None:
                    read = work.containment.contain(work.read(batch), partial(work.read, batch), guard.stream, registry)
                    failpoint("transactions.while_judging")
                    try:
                        stored = work.ingest(batch, read)
                    except SettingsChanged:
                        registry.refresh()
                classified, unreadable = stored
                replies = unreadable_replies(
                    batch.messages,
                    unreadable,
                    writers=writers,
                    channels=registry.known.legal_entity_by_channel,
                    now=datetime.now(UTC),
                )
                failpoint("transactions.after_sql_commit")
                forwarded = without_known(engine, classified.forwarded_events)
                if forwarded or unreadable:
                    with session.transaction(batch) as out:
                        _forward_events(settings, out, batch, forwarded, traces)
                        send_dead_letters(settings, out, batch, unreadable, RETAIL_TRANSACTIONS_DLQ)
                        for reply in replies:
                            out.send(
                                settings.topic(TRANSACTION_REPLIES),
                                reply.key,
                                reply.value,
                                traces.carried(reply.headers),
                            )
                else:
                    session.commit_later(batch)
                traces.end()
                count_dead_letters(unreadable)
                work.containment.stored()
                log.info(
                    "transactions_ingested",
                    sales=classified.sales.height,
                    ends_of_days=len(classified.ends_of_day),
                    forwarded=len(forwarded),
                    dead_letters=len(unreadable),
                    next_offsets=batch.next_offsets,
                )
        for thread in threads:
            thread.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The steps of a batch, with what the batches of a worker have in common."""

    engine: Engine
    writers: WriterSchemas
    guard: StreamGuard
    registry: ChannelRegistry
    check: Authenticity
    containment: Containment

    def read(self, batch: Batch, stored: frozenset[int] = frozenset()) -> ReadBatch:
        """Decode, check and classify a batch; ask the database once for channels that are not known."""
        read = self._read(batch, stored)
        unknown = read.classified.unknown_channels
        known = self.registry.look_up(unknown)
        return read if known.legal_entity_by_channel.keys().isdisjoint(unknown) else self._read(batch, stored)

    def _read(self, batch: Batch, stored: frozenset[int]) -> ReadBatch:
        known, partitions = self.registry.known, self.guard.partitions
        return ReadBatch(batch, self.writers, known, self.check, partitions=partitions, stored=stored)

    def ingest(self, batch: Batch, read: ReadBatch) -> tuple[ClassifiedBatch, tuple[UnreadableRow, ...]]:
        """Write a batch to the database; what it consists of, and all records that become dead letters.

        Raises: `SettingsChanged` if it must be checked again; errors of the database.
        """
        reached = StreamPositions(
            stream=self.guard.stream,
            starts=batch.starts,
            next_offsets=batch.next_offsets,
            checked=CheckedWith(version=read.channels.version),
        )
        classified = read.classified
        return classified, (*classified.unreadable, *ingest(self.engine, classified, reached))


def _begin(settings: Settings, engine: Engine, guard: StreamGuard, registry: ChannelRegistry) -> None:
    """Check the database and the topics, make headquarters' keys, read the registry, and publish the schemas.

    Raises: `KafkaRefused` when a topic does not exist: a broker would create it, with partitions of its own.
    """
    check_version(engine, "headquarters")
    refuse_half_recovered(engine)
    publish_schemas(settings)
    guard.check_connections()
    with engine.begin() as headquarters:
        ensure_headquarters_keys(headquarters)
    begin_with_settings(settings, engine, "transactions run")
    registry.refresh()


def _forward_events(
    settings: Settings, out: Outputs, batch: Batch, events: Sequence[ForwardedEvent], traces: BatchTraces
) -> None:
    """Send customer events that were inside transactions; headquarters knows a repeat by its id.

    Each has the signature of its store, so the customers worker need not believe this one.
    """
    topic = settings.topic(ASYNC_CUSTOMERS)
    for event in events:
        headers: Headers = [("id", event.event_id), ("type", "CustomerForwarded")]
        headers += forwarded_signature(batch.messages[event.row])
        if traces:
            transaction_id = dict(headers_of(batch.messages[event.row])).get("id")
            if (traceparent := traces.traceparent(transaction_id)) is not None:
                headers.append((HEADER, traceparent))
        out.send(topic, event.customer_id.encode(), event.value, headers)


def release_repeatedly(settings: Settings, engine: Engine, retry: Retry, stop: Event) -> None:
    """Make release passes until `stop` is set: after each commit of either worker, and at least once a second.

    Raises: the errors of the database.
    """
    with listening(engine, BATCH_COMMITTED_CHANNEL) as notification:
        scan_at, scanned_at, queue_is_full = 0.0, 0.0, False
        while not stop.is_set():
            began = time.monotonic()
            # While the queue is full, a full scan would read a lot and find the same transactions.
            full_scan = began >= (scanned_at + FULL_SCAN_SECONDS_MAX if queue_is_full else scan_at)
            result = release(engine, settings.headquarters.waiting_seconds_max, full_scan=full_scan)
            if full_scan:
                # A slow scan runs for a tenth of the time.
                pause = min(max(FULL_SCAN_SECONDS, 10 * (time.monotonic() - began)), FULL_SCAN_SECONDS_MAX)
                scanned_at, scan_at = began, began if result.more else began + pause
            queue_is_full = result.queue_is_full
            retry.recovered()
            if result.released or result.statements:
                log.info("transactions_released", transactions=result.released, statements=result.statements)
            if not result.more:
                notification.wait(FULL_SCAN_SECONDS, stop)


def publish_repeatedly(settings: Settings, engine: Engine, retry: Retry, stop: Event) -> None:
    """Publish queued replies until `stop` is set: after each commit that enqueues some, and at least once a second.

    Raises: the errors of the database and the broker.
    """
    producer = Producer(producer_configuration(settings, **_PRODUCER))
    try:
        with listening(engine, REPLIES_CHANNEL) as notification:
            while not stop.is_set():
                published = publish_replies(engine, producer, settings.topic(TRANSACTION_REPLIES))
                retry.recovered()
                if published:
                    log.info("transaction_replies_sent", replies=published)
                notification.wait(FULL_SCAN_SECONDS, stop)
    finally:
        producer.purge()


_PRODUCER: Final[dict[str, Any]] = {
    # Whatever is not acknowledged within the time of a flush is sent again from the database.
    "delivery.timeout.ms": int(REQUEST_SECONDS * 1000),
    # No callback for each record that was delivered.
    "delivery.report.only.error": True,
}
