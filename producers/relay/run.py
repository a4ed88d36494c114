"""The relay (P-job): publishes a channel's outbox to `async-customers` and `retail-transactions`.

Input: the rows of the outbox that are in the outbox queue. Output: one record per row with the headers `id` and `type`;
customers' events are keyed by customer, orders, sales and ends of day by channel.
Promise: every row is sent at least once, the rows of a key in their order; a row leaves the outbox queue only after the
broker has acknowledged it. A crash at any point repeats rows and loses none. A row without a reply after an hour, or
sent to a topic that was recreated, is sent again. Only one relay per channel can run.

While a batch is being sent, the previous one is taken off the queue and the next one is read.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Final

from confluent_kafka import KafkaException
from sqlalchemy import Connection
from structlog import get_logger

from tenten.kafka.client_errors import refusal_of
from tenten.producers.outbox import table, transactions
from tenten.producers.outbox.table import NOTHING, QueuedRows, UnsentRow
from tenten.producers.relay.maintenance import Maintenance, check_topics
from tenten.producers.relay.marking import Marker, autocommit_connection
from tenten.producers.relay.producer import NO_BATCH, DeliveryFailed, RelayProducer
from tenten.producers.till.loyalty import issue_reserved_cards
from tenten.producers.till.open_channel import OpenChannel, open_channel
from tenten.runtime.error_codes import error_code, is_transient
from tenten.runtime.errors import KafkaRefused, LockHeld, TentenError
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Reason
from tenten.sql.locks import relay_lock
from tenten.sql.notifications import SETTLED_CHANNEL, CommitListener

log = get_logger(__name__)

BATCH_ROWS_MAX: Final = {"postgresql": 10_000, "sqlite": 2_000}
"""Rows per batch. Few in SQLite, where deleting a batch of entries blocks other writers."""

BATCH_BYTES_MAX: Final = 32 * 1024 * 1024
"""Payload bytes per batch; two batches are in memory at a time."""

_POLL_SECONDS: Final = 1.0
"""How long a row waits at most when its notification was lost."""

_STABLE_SECONDS: Final = 5.0
"""A failure after this time of work is a new outage."""

TOO_LARGE: Final = {
    table.CUSTOMER: Reason(
        field="customer",
        code="too_large",
        text="This customer is too large to be sent: remove addresses, contacts or attributes.",
    ),
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
            autocommit_connection(opened) as connection,
            Marker(opened) as marker,
            RelayProducer(settings, channel) as producer,
        ):
            if producer.connect(stop):
                has_worked.set()
                retry.recovered()
                for _ in check_topics(connection, producer):
                    if stop.is_set():
                        return
                maintenance = Maintenance(connection, producer, lock)
                relay(opened, connection, producer, marker, maintenance, stop=stop)


def relay(
    opened: OpenChannel,
    connection: Connection,
    producer: RelayProducer,
    marker: Marker,
    maintenance: Maintenance,
    *,
    stop: Event,
) -> None:
    """Relay batch by batch until `stop` is set. Raises: `DeliveryFailed`; errors of the database and of maintenance."""
    # A settled customer can be the one for whom a card is reserved.
    wake = CommitListener(connection, table.WAKE_CHANNEL, SETTLED_CHANNEL)
    in_flight = NO_BATCH
    while not stop.is_set() or in_flight.rows:
        has_steps_left = maintenance.run_when_due()
        if not stop.is_set():
            issue_reserved_cards(opened, connection)
        queued = NOTHING if stop.is_set() else _queued(connection, [*in_flight.sequences, *marker.sequences])
        acknowledged = producer.acknowledged(in_flight, stop)
        if len(acknowledged) < len(in_flight.rows):
            marker.mark(acknowledged)
            marker.finish()
            producer.check()
            return
        sent = producer.send(queued.rows, stop)
        for row in sent.too_large:
            _reject_too_large(connection, row)
        marker.mark([*acknowledged, *queued.obsolete, *(row.sequence for row in sent.too_large)])
        in_flight = sent
        if not queued.rows:
            marker.finish()
            producer.serve()
            if not has_steps_left:
                wake.wait(_POLL_SECONDS, stop)


def _queued(connection: Connection, excluded: Sequence[int]) -> QueuedRows:
    """The next rows to send."""
    queued = table.queued(connection, BATCH_ROWS_MAX[connection.dialect.name], BATCH_BYTES_MAX, excluded)
    if queued.rows:
        failpoint("relay.after_select")
    return queued


def _reject_too_large(connection: Connection, row: UnsentRow) -> None:
    """Reject a row in the channel, since it can never be sent. Idempotent."""
    reason = TOO_LARGE[row.aggregate_type]
    if row.aggregate_type == table.RETAIL_TRANSACTION:
        transactions.show_rejected(connection, row.aggregate_id, reason)
    table.reject(connection, row.sequence, reason)


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
    remedy = (refusal_of(error) if isinstance(error, KafkaException) else None) or error
    return str(remedy) if isinstance(remedy, TentenError) else "retrying automatically"


def _log_recovered(channel: str) -> None:
    log.info("relay_recovered", channel=channel)
