"""The relay (P-job): publishes a channel's outbox to `async-customers` and `retail-transactions`.

Input: the rows of the outbox that are in the outbox queue. Output: one record per row with the headers `id` and `type`;
customers' events are keyed by customer, orders, sales and ends of day by channel.
A store that has joined signs its records, so that headquarters knows who wrote them.
Promise: every row is sent at least once, the rows of a key in their order; a row leaves the outbox queue only after the
broker has acknowledged it. A crash at any point repeats rows and loses none. A row without a reply after an hour, sent
to a topic that was recreated, or signed with an earlier key, is sent again. Only one relay per channel can run.

A single row is read, sent and acknowledged, and its entry deleted a little later. Of a backlog, the next rows are read
while those before are being sent, and the broker's acknowledgement is waited for now and then.
"""

from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from threading import Event
from time import monotonic
from typing import Final

from confluent_kafka import KafkaException
from sqlalchemy import Connection
from structlog import get_logger

from tenten.kafka.client_errors import refusal_of
from tenten.producers.outbox import customer_events, table, transactions
from tenten.producers.outbox.queue import NOTHING, OutboxQueue, QueuedRow
from tenten.producers.relay.heartbeat import HeartbeatThread
from tenten.producers.relay.maintenance import Maintenance, check_topics
from tenten.producers.relay.producer import DeliveryFailed, RelayProducer
from tenten.producers.relay.queue_feed import QueueFeed
from tenten.producers.relay.signing import Signing
from tenten.producers.till.loyalty import issue_reserved_cards
from tenten.producers.till.open_channel import OpenChannel, open_channel
from tenten.runtime.error_codes import error_code, is_full, is_transient
from tenten.runtime.errors import KafkaRefused, LockHeld, TentenError
from tenten.runtime.retry import FULL_ADVICE, Retry
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Reason
from tenten.sql.channel_events import EventType, NewEvent, Subject, write_events
from tenten.sql.locks import relay_lock
from tenten.sql.notifications import CommitListener

log = get_logger(__name__)

READ_ROWS_MAX: Final = 5_000
"""Rows that are read at a time."""

READ_BYTES_MAX: Final = 8 * 1024 * 1024
"""Payload bytes that are read at a time. Twice as much is in memory, and what is being sent."""

SENT_ROWS_MAX: Final = 30_000
"""Rows that are sent before the broker's acknowledgement is waited for."""

SENT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Payload bytes that are sent before the broker's acknowledgement is waited for."""

DELETED_ROWS_MAX: Final = {"postgresql": 30_000, "sqlite": 2_000}
"""Entries of the queue that are deleted at a time. Few in SQLite, where other writers wait meanwhile."""

CARDS_SECONDS: Final = 0.25
"""How often reserved cards are looked at, at most."""

_POLL_SECONDS: Final = 1.0
"""How long a row waits at most when its notification was lost."""

_STABLE_SECONDS: Final = 5.0
"""A failure after this time of work is a new outage."""

TOO_LARGE: Final = {
    table.CUSTOMER: customer_events.TOO_LARGE,
    table.RETAIL_TRANSACTION: Reason(
        field="lines", code="too_large", text="Too large to be sent: it was recorded by another release."
    ),
}


def run(channel: str, settings: Settings, stop: Event) -> None:
    """Relay the channel's outbox until `stop` is set; then wait a few seconds for the batch being sent.

    Waits without limit for an unavailable database or broker, and logs it once per outage.
    Raises: `LockHeld` when another relay of this channel runs; `KafkaRefused`, `DatabaseRefused`, `SettingsError` for
    permanent errors. Once it has worked, `KafkaRefused` and `LockHeld` are retried, too.
    """
    has_worked = Event()
    retry = Retry(
        "relay",
        channel,
        stop,
        is_retryable=partial(_is_retryable, has_worked),
        log_started=partial(_log_failed, channel),
        log_recovered=partial(_log_recovered, channel),
        stable_seconds=_STABLE_SECONDS,
    )
    while not stop.is_set():
        with (
            retry.retrying(),
            _refused_at_start(has_worked),
            open_channel(settings, channel) as opened,
            relay_lock(opened.engine) as lock,
            _connection(opened) as connection,
            _connection(opened) as queue_connection,
            RelayProducer(settings, channel) as producer,
        ):
            if producer.connect(stop):
                has_worked.set()
                retry.recovered()
                for _ in check_topics(connection, producer):
                    if stop.is_set():
                        return
                maintenance = Maintenance(connection, producer, lock)
                with HeartbeatThread(opened, producer):
                    relay(opened, connection, OutboxQueue(queue_connection), producer, maintenance, stop=stop)


@contextmanager
def _connection(opened: OpenChannel) -> Generator[Connection]:
    """A connection on which each statement is a transaction; not reused, because the relay changes its settings."""
    with opened.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            yield connection
        finally:
            connection.invalidate()


def relay(
    opened: OpenChannel,
    connection: Connection,
    queue: OutboxQueue,
    producer: RelayProducer,
    maintenance: Maintenance,
    *,
    stop: Event,
) -> None:
    """Relay until `stop` is set. Raises: `DeliveryFailed`; errors of the database and of maintenance."""
    dialect = connection.dialect.name
    signing = Signing(connection, producer)
    cards_at = read_at = 0.0
    with (
        closing(CommitListener(connection, table.WAKE_CHANNEL)) as wake,
        QueueFeed(
            queue,
            rows_max=READ_ROWS_MAX,
            bytes_max=READ_BYTES_MAX,
            deleted_max=DELETED_ROWS_MAX[dialect],
            reads_ahead=dialect == "postgresql",
        ) as feed,
    ):
        while not stop.is_set() or producer.sent_rows:
            has_steps_left = maintenance.run_when_due()
            if monotonic() >= cards_at and not stop.is_set():
                cards_at = monotonic() + CARDS_SECONDS
                issue_reserved_cards(opened, connection)
            queued, pauses = NOTHING, signing.pauses()
            if monotonic() >= read_at and not stop.is_set():
                queued = NOTHING if pauses else feed.read()
                read_at = 0.0 if queued.has_more else monotonic() + _POLL_SECONDS
            if producer.sent_rows and (not queued.rows or _is_full(producer)):
                sent_rows = producer.sent_rows
                acknowledged = producer.acknowledged(stop)
                feed.finish(acknowledged)
                if len(acknowledged) < sent_rows:
                    break
            for row in producer.send(queued.rows, stop):
                _reject_too_large(opened, row)
                feed.finish([row.sequence])
            if pauses and not producer.sent_rows:
                feed.delete_finished()
                has_steps_left |= signing.next_step()
                read_at = 0.0 if not signing.pauses() else read_at
            if not producer.sent_rows and not queued.has_more:
                producer.serve()
                seconds_max = min(feed.delete_when_due(), read_at - monotonic())
                if not has_steps_left and wake.wait(seconds_max, stop):
                    read_at = 0.0
    producer.check()


def _is_full(producer: RelayProducer) -> bool:
    """Whether so much is on its way that the broker's acknowledgement is waited for, whatever is left to send."""
    return producer.sent_rows >= SENT_ROWS_MAX or producer.sent_bytes >= SENT_BYTES_MAX


def _reject_too_large(opened: OpenChannel, row: QueuedRow) -> None:
    """Reject a row in the channel, since it can never be sent. Idempotent, but for a second event."""
    reason = TOO_LARGE[row.aggregate_type]
    with opened.engine.begin() as connection:
        subject: Subject | None = Subject.CUSTOMER
        if row.aggregate_type == table.RETAIL_TRANSACTION:
            subject = transactions.show_rejected(connection, row.aggregate_id, reason)
        table.reject(connection, row.sequence, reason)
        if subject is not None:
            event = NewEvent(EventType.REJECTED, subject, row.aggregate_id, codes=(reason.code,))
            write_events(connection, [event], datetime.now(UTC))


@contextmanager
def _refused_at_start(has_worked: Event) -> Generator[None]:
    """Raises: `KafkaRefused` in place of a Kafka error that waiting cannot fix, until the relay has worked."""
    try:
        yield
    except KafkaException as error:
        refusal = refusal_of(error)
        if refusal is not None and not has_worked.is_set():
            raise refusal from error
        raise


def _is_retryable(has_worked: Event, error: Exception) -> bool:
    if isinstance(error, KafkaRefused | LockHeld):
        return has_worked.is_set()
    return isinstance(error, DeliveryFailed) or is_transient(error)


def _log_failed(channel: str, error: Exception) -> None:
    log.warning(
        "relay_failed", channel=channel, error=type(error).__name__, code=error_code(error), advice=_advice(error)
    )


def _advice(error: Exception) -> str:
    """The remedy, if there is one; never a database's own text, which may contain personal data."""
    if is_full(error):
        return FULL_ADVICE
    remedy = (refusal_of(error) if isinstance(error, KafkaException) else None) or error
    return str(remedy) if isinstance(remedy, TentenError) else "retrying automatically"


def _log_recovered(channel: str) -> None:
    log.info("relay_recovered", channel=channel)
