"""Customers' events in the outbox: append them, and read those that headquarters has not settled.

Results are complete only when the customers' rows were locked before reading.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, exists, or_, select, update

from tenten.avro.record_encoder import encode_record
from tenten.avro.wire import WriterSchemas, contract
from tenten.producers.outbox import table
from tenten.producers.outbox.table import CUSTOMER, HELD, REJECTED, NewRow
from tenten.schemas.messages import (
    CustomerEvent,
    Reason,
    event_from_avro,
    reasons_from_json,
)
from tenten.schemas.tables.channel import customers, outbox
from tenten.schemas.topics import EVENT_BYTES_MAX
from tenten.sql.arrays import is_one_of

_DISCARDED: Final = "discarded"

TOO_LARGE: Final = Reason(
    field="customer",
    code="too_large",
    text="This customer is too large to be sent: remove addresses, contacts or attributes.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """An event of the overlay: unsettled, or settled in a version that no snapshot in this channel has reached."""

    event: CustomerEvent
    rejected: bool
    reasons: tuple[Reason, ...]
    settled: bool


def size_violations(payload: bytes) -> list[Reason]:
    """The reason to reject an event that headquarters would not read because of its size."""
    return [TOO_LARGE] if len(payload) > EVENT_BYTES_MAX else []


def append(connection: Connection, events: Sequence[CustomerEvent], created_at: datetime) -> None:
    """Append these events in this order; the relay is notified when the transaction commits."""
    rows = [
        NewRow(event.event_id, CUSTOMER, event.customer_id, event.kind.type_name, encode_record("CustomerEvent", event))
        for event in events
    ]
    table.append(connection, rows, created_at)


def as_appended(event: CustomerEvent) -> OutboxEvent:
    """The `OutboxEvent` for an event that was just appended."""
    return OutboxEvent(event=event, rejected=False, reasons=(), settled=False)


def newest_unsettled(connection: Connection, customer_id: str) -> tuple[str, bytes] | None:
    """Id and payload of the customer's newest event that is unsent, sent without a reply, or rejected."""
    query = (
        select(outbox.c.id, outbox.c.payload)
        .where(outbox.c.aggregateid == customer_id, outbox.c.aggregatetype == CUSTOMER, outbox.c.settled_at.is_(None))
        .order_by(outbox.c.sequence.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else (row.id, bytes(row.payload))


def overlay_events(
    connection: Connection, customer_ids: Iterable[str], writers: WriterSchemas
) -> dict[str, list[OutboxEvent]]:
    """The overlay's events by customer, oldest first; customers without any are left out.

    Raises: `Unreadable` for a payload whose schema is not among `writers`.
    """
    above_snapshot = exists().where(
        customers.c.customer_id == outbox.c.aggregateid, outbox.c.version > customers.c.version
    )
    query = (
        select(
            outbox.c.aggregateid,
            outbox.c.payload,
            outbox.c.outcome,
            outbox.c.reasons,
            outbox.c.settled_at,
        )
        .where(is_one_of(connection, outbox.c.aggregateid, customer_ids), outbox.c.aggregatetype == CUSTOMER)
        .where(or_(outbox.c.settled_at.is_(None), above_snapshot))
        .order_by(outbox.c.sequence)
    )
    events: dict[str, list[OutboxEvent]] = {}
    for row in connection.execute(query):
        record = writers.decode(bytes(row.payload), contract("CustomerEvent"))
        events.setdefault(row.aggregateid, []).append(
            OutboxEvent(
                event=event_from_avro(record),
                rejected=row.outcome == REJECTED,
                reasons=reasons_from_json(row.reasons),
                settled=row.settled_at is not None,
            )
        )
    return events


class OutboxSummary(NamedTuple):
    """The unsettled events of a customer."""

    unsettled: int
    rejected: bool
    """True if the newest unsettled event is rejected."""
    reasons: tuple[Reason, ...]
    """Why headquarters has rejected the newest unsettled event, or holds it."""
    held: bool = False
    """True if headquarters holds the newest unsettled event that it has answered: it waits for its own settings."""


def summaries(connection: Connection, customer_ids: Iterable[str]) -> dict[str, OutboxSummary]:
    """The summary of each customer with unsettled events. Reads no payload."""
    query = (
        select(outbox.c.aggregateid, outbox.c.outcome, outbox.c.reasons)
        .where(is_one_of(connection, outbox.c.aggregateid, customer_ids), outbox.c.aggregatetype == CUSTOMER)
        .where(outbox.c.settled_at.is_(None))
        .order_by(outbox.c.sequence)
    )
    result: dict[str, OutboxSummary] = {}
    for row in connection.execute(query):
        earlier = result.get(row.aggregateid, _NOTHING)
        if row.outcome is None and earlier.held:
            # An event that was not answered yet waits behind the held one.
            result[row.aggregateid] = earlier._replace(unsettled=earlier.unsettled + 1)
        else:
            result[row.aggregateid] = OutboxSummary(
                unsettled=earlier.unsettled + 1,
                rejected=row.outcome == REJECTED,
                reasons=reasons_from_json(row.reasons),
                held=row.outcome == HELD,
            )
    return result


_NOTHING: Final = OutboxSummary(0, rejected=False, reasons=())


def discard_rejected(connection: Connection, customer_id: str, settled_at: datetime) -> None:
    """Settle the customer's rejected events as discarded by the clerk."""
    connection.execute(
        update(outbox)
        .where(outbox.c.aggregateid == customer_id, outbox.c.aggregatetype == CUSTOMER)
        .where(outbox.c.settled_at.is_(None), outbox.c.outcome == REJECTED)
        .values(settled_at=settled_at, outcome=_DISCARDED)
    )
