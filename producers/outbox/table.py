"""The rows of the outbox, whatever they carry: append, read those to send, take them off the queue.

A row is unsent, sent, rejected (until a later event supersedes it or the clerk discards it) or settled. A row is
written in the SQL transaction that changes the customer, whose row is locked first: so the rows of one customer are
numbered in the order in which they took effect.

The rows that are still to be sent are in the outbox queue: appended with the row, in the same transaction, and deleted
when the broker has acknowledged it. Rows of different customers may become visible out of order, hence the relay asks
which rows are in the queue, never which are "greater than the last one".

Customers' events and retail transactions share the outbox and go to their own topics, by `aggregatetype`.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, select, text, update

from tenten.schemas.messages import Reason, reasons_as_json
from tenten.schemas.tables.channel import outbox
from tenten.schemas.tables.types import as_sqlite_time
from tenten.schemas.topics import RECORD_BYTES_MAX
from tenten.sql.arrays import is_one_of, pg_array_literal
from tenten.sql.postgresql_driver import driver_cursor, driver_of

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


class NewRow(NamedTuple):
    """An outbox row to append."""

    event_id: str
    aggregate_type: str
    aggregate_id: str
    """The customer's id, or the transaction's."""
    type: str
    payload: bytes


class UnsentRow(NamedTuple):
    """An outbox row as the relay needs it."""

    sequence: int
    event_id: str
    aggregate_type: str
    aggregate_id: str
    """The customer's id, or the transaction's."""
    type: str
    payload: bytes


class QueuedRows(NamedTuple):
    """The first rows of the queue."""

    rows: list[UnsentRow]
    obsolete: list[int]
    """Entries without a row to send: it was rejected in the channel, settled in another way, or deleted."""


NOTHING: Final = QueuedRows([], [])


# Append rows in this order, queue them, and notify the relay at the commit. One statement on PostgreSQL; on SQLite,
# where the transaction is the only writer, the rows after the last one are the new ones.
_APPEND_POSTGRESQL: Final = """
    WITH appended AS (
        INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at)
        SELECT given.*, %s FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::text[], %b::bytea[]) AS given
        RETURNING sequence
    ), queued AS (
        INSERT INTO outbox_queue (sequence) SELECT sequence FROM appended
    )
    SELECT pg_notify('tenten_outbox', '')
    """
_LAST_SQLITE: Final = "SELECT coalesce(max(sequence), 0) FROM outbox"
_APPEND_SQLITE: Final = (
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at) VALUES (?, ?, ?, ?, ?, ?)"
)
_QUEUE_SQLITE: Final = "INSERT INTO outbox_queue (sequence) SELECT sequence FROM outbox WHERE sequence > ?"


def append(connection: Connection, rows: Sequence[NewRow], created_at: datetime) -> None:
    """Append these rows in this order, and queue them; the relay is notified when the transaction commits."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        ids, aggregate_types, aggregate_ids, types, payloads = map(list, zip(*rows, strict=True))
        keys = (pg_array_literal(ids), aggregate_types, pg_array_literal(aggregate_ids))
        connection.exec_driver_sql(_APPEND_POSTGRESQL, (created_at, *keys, types, payloads))
        return
    at = as_sqlite_time(created_at)
    last = connection.exec_driver_sql(_LAST_SQLITE).scalar_one()
    connection.exec_driver_sql(_APPEND_SQLITE, [(*row, at) for row in rows])
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


# The first rows of the queue, thousands at a time. Rows that are on their way to the broker, or whose entries are being
# deleted, are excluded one by one: a row between them may have been committed only now. PostgreSQL sums up the payloads
# and stops at the limit.
_QUEUED_POSTGRESQL: Final = """
    SELECT sequence, id, aggregatetype, aggregateid, type, payload
    FROM (
        SELECT queued.sequence, id::text, aggregatetype, aggregateid::text, type, payload,
               sum(length(payload)) OVER (ORDER BY queued.sequence ROWS UNBOUNDED PRECEDING) - length(payload) AS bytes
        FROM (
            SELECT sequence FROM outbox_queue WHERE NOT sequence <@ %s::int8multirange ORDER BY sequence LIMIT %s
        ) AS queued LEFT JOIN LATERAL (
            SELECT * FROM outbox
            WHERE outbox.sequence = queued.sequence AND settled_at IS NULL AND outcome IS NULL LIMIT 1
        ) AS unsettled ON true
        ORDER BY queued.sequence
    ) AS first
    WHERE bytes IS NULL OR bytes < %s
    """
_QUEUED_SQLITE: Final = "SELECT sequence FROM outbox_queue ORDER BY sequence LIMIT ?"
_UNSETTLED_SQLITE: Final = """
    SELECT sequence, id, aggregatetype, aggregateid, type, payload FROM outbox
    WHERE sequence = ? AND settled_at IS NULL AND outcome IS NULL
    """


def queued(connection: Connection, rows_max: int, bytes_max: int, excluded: Sequence[int] = ()) -> QueuedRows:
    """The first rows of the queue in the order of their sequence, without the excluded sequences.

    At most `rows_max` entries; rows after the one whose payload reaches `bytes_max` in total are left for the next
    call.
    """
    if connection.dialect.name == "postgresql":
        # A binary cursor transfers payloads as bytes instead of in hexadecimal.
        with driver_cursor(connection, binary=True) as cursor:
            found = cursor.execute(_QUEUED_POSTGRESQL, (multirange(excluded), rows_max, bytes_max)).fetchall()
        rows = [UnsentRow._make(row) for row in found if row[1] is not None]
        return QueuedRows(rows, [row[0] for row in found if row[1] is None])
    return _queued_in_sqlite(driver_of(connection), rows_max, bytes_max, set(excluded))


def _queued_in_sqlite(driver: sqlite3.Connection, rows_max: int, bytes_max: int, excluded: set[int]) -> QueuedRows:
    rows: list[UnsentRow] = []
    obsolete: list[int] = []
    size = 0
    entries = driver.execute(_QUEUED_SQLITE, (rows_max + len(excluded),)).fetchall()
    for sequence in [entry[0] for entry in entries if entry[0] not in excluded][:rows_max]:
        row = driver.execute(_UNSETTLED_SQLITE, (sequence,)).fetchone()
        if row is None:
            obsolete.append(sequence)
            continue
        rows.append(UnsentRow._make(row))
        size += len(rows[-1].payload)
        if size >= bytes_max:
            break
    return QueuedRows(rows, obsolete)


def multirange(numbers: Iterable[int]) -> str:
    """Exactly these numbers as a PostgreSQL multirange, adjacent numbers joined into one range.

    >>> multirange([5, 3, 4, 9])
    '{[3,6),[9,10)}'
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    return "{" + ",".join(f"[{first},{end})" for first, end in ranges) + "}"


# Queue rows again, except those that have a reply by now.
_QUEUE_AGAIN: Final = """
    INSERT INTO outbox_queue (sequence)
    SELECT sequence FROM outbox WHERE sequence {} AND settled_at IS NULL AND outcome IS NULL
    ON CONFLICT DO NOTHING
    """
# Take rows off the queue: they are acknowledged by the broker, or are not to be sent.
_DEQUEUE: Final = "DELETE FROM outbox_queue WHERE sequence {}"

_IS_GIVEN: Final = {"postgresql": "= ANY (%s::int8[])", "sqlite": "IN (SELECT value FROM json_each(?))"}


def queue_again(connection: Connection, sequences: Iterable[int]) -> None:
    """Queue these rows to be sent again, except those that have a reply by now. Idempotent. One statement."""
    _execute(connection, _QUEUE_AGAIN, sequences)


def dequeue(connection: Connection, sequences: Iterable[int]) -> None:
    """Take these rows off the queue. Idempotent. One statement."""
    _execute(connection, _DEQUEUE, sequences)


def _execute(connection: Connection, statement: str, sequences: Iterable[int]) -> None:
    """Execute a statement with these sequences as its only parameter."""
    text_ = statement.format(_IS_GIVEN[connection.dialect.name])
    listed = list(sequences)
    if connection.dialect.name == "postgresql":
        with driver_cursor(connection) as cursor:
            cursor.execute(text_, (pg_array_literal(listed),))
    else:
        driver_of(connection).execute(text_, (json.dumps(listed),))


def reject(connection: Connection, sequence: int, reason: Reason) -> None:
    """Reject a row that cannot be sent. Idempotent."""
    rejected = {"outcome": REJECTED, "reasons": reasons_as_json([reason])}
    connection.execute(update(outbox).where(outbox.c.sequence == sequence).values(rejected))
