"""The rows of the outbox, whatever they carry: append, queue again, reject.

A row is unsent, sent, held (until headquarters can judge it), rejected (until a later event supersedes it or the clerk
discards it) or settled. A row is
written in the SQL transaction that changes the customer, whose row is locked first: so the rows of one customer are
numbered in the order in which they took effect.

The rows that are still to be sent are in the outbox queue: appended with the row, in the same transaction, and deleted
when the broker has acknowledged it (`queue.py`).

Customers' events and retail transactions share the outbox and go to their own topics, by `aggregatetype`.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, or_, select, text, update

from tenten.runtime.tracing import current_traceparent
from tenten.schemas.messages import Reason, reasons_as_json
from tenten.schemas.tables.channel import outbox, outbox_queue
from tenten.schemas.tables.types import as_sqlite_time
from tenten.schemas.topics import RECORD_BYTES_MAX
from tenten.sql.arrays import is_one_of, pg_array_literal
from tenten.sql.upsert import insert_into

WAKE_CHANNEL: Final = "tenten_outbox"
"""PostgreSQL: the notification channel of the outbox; each transaction that appends rows notifies it at its commit."""

CUSTOMER: Final = "customer"
RETAIL_TRANSACTION: Final = "retail_transaction"
"""The aggregate types: the subject of a row, which decides its topic."""

SENT_BYTES_MAX: Final = RECORD_BYTES_MAX - 64 * 1024
"""The largest record that the relay sends."""

PAYLOAD_BYTES_MAX: Final = SENT_BYTES_MAX - 1024
"""The largest payload that always fits into a record together with key and headers."""

REJECTED: Final = "rejected"
HELD: Final = "held"
"""Outcomes of rows that are not settled."""


def is_open() -> ColumnElement[bool]:
    """True for a row that may have to be sent again: headquarters has not replied, or holds it."""
    return and_(outbox.c.settled_at.is_(None), or_(outbox.c.outcome.is_(None), outbox.c.outcome == HELD))


class NewRow(NamedTuple):
    """An outbox row to append."""

    event_id: str
    aggregate_type: str
    aggregate_id: str
    """The customer's id, or the transaction's."""
    type: str
    payload: bytes


# Append rows in this order, queue them, and notify the relay at the commit. One statement on PostgreSQL; on SQLite,
# where the transaction is the only writer, the rows after the last one are the new ones.
_APPEND_POSTGRESQL: Final = """
    WITH appended AS (
        INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at, traceparent)
        SELECT given.*, %s, %s FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::text[], %b::bytea[]) AS given
        RETURNING sequence
    ), queued AS (
        INSERT INTO outbox_queue (sequence) SELECT sequence FROM appended
    )
    SELECT pg_notify('tenten_outbox', '')
    """
_LAST_SQLITE: Final = "SELECT coalesce(max(sequence), 0) FROM outbox"
_APPEND_SQLITE: Final = (
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at, traceparent) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_QUEUE_SQLITE: Final = "INSERT INTO outbox_queue (sequence) SELECT sequence FROM outbox WHERE sequence > ?"


def append(connection: Connection, rows: Sequence[NewRow], created_at: datetime) -> None:
    """Append these rows in this order, and queue them; the relay is notified when the transaction commits."""
    if not rows:
        return
    traceparent = current_traceparent()
    if connection.dialect.name == "postgresql":
        ids, aggregate_types, aggregate_ids, types, payloads = map(list, zip(*rows, strict=True))
        keys = (pg_array_literal(ids), aggregate_types, pg_array_literal(aggregate_ids))
        connection.exec_driver_sql(_APPEND_POSTGRESQL, (created_at, traceparent, *keys, types, payloads))
        return
    at = as_sqlite_time(created_at)
    last = connection.exec_driver_sql(_LAST_SQLITE).scalar_one()
    connection.exec_driver_sql(_APPEND_SQLITE, [(*row, at, traceparent) for row in rows])
    connection.exec_driver_sql(_QUEUE_SQLITE, (last,))


def delete_row(connection: Connection, event_id: str) -> None:
    """Delete the row with this id, so that it can be appended again. Idempotent."""
    for statement in _DELETE_ROW:
        connection.execute(statement, {"id": event_id})


_DELETE_ROW: Final = (
    text("DELETE FROM outbox_queue WHERE sequence = (SELECT sequence FROM outbox WHERE id = :id)"),
    text("DELETE FROM outbox WHERE id = :id"),
)


def recorded_ids(connection: Connection, event_ids: Iterable[str]) -> set[str]:
    """The subset of `event_ids` already recorded."""
    query = select(outbox.c.id).where(is_one_of(connection, outbox.c.id, event_ids))
    return set(connection.scalars(query))


def queue_again(connection: Connection, sequences: Iterable[int]) -> None:
    """Queue these rows to be sent again, except those that have a final reply by now. Idempotent. One statement."""
    is_given = is_one_of(connection, outbox.c.sequence, sequences)
    again = insert_into(connection, outbox_queue).from_select(
        ["sequence"], select(outbox.c.sequence).where(is_given, is_open())
    )
    connection.execute(again.on_conflict_do_nothing())


def reject(connection: Connection, sequence: int, reason: Reason) -> None:
    """Reject a row that cannot be sent. Idempotent."""
    rejected = {"outcome": REJECTED, "reasons": reasons_as_json([reason])}
    connection.execute(update(outbox).where(outbox.c.sequence == sequence).values(rejected))
