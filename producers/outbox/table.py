"""The rows of the outbox, whatever they carry: append, read those to send, mark them as sent.

A row is unsent, sent, rejected (until a later event supersedes it or the clerk discards it) or settled. A row is
written in the SQL transaction that changes the customer, whose row is locked first: so the rows of one customer are
numbered in the order in which they took effect. Rows of different customers may become visible out of order, hence
unsent rows are found by their flag, never by "greater than the last one".

Customers' events and retail transactions share the outbox and go to their own topics, by `aggregatetype`.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Final, NamedTuple, cast

from sqlalchemy import Connection, case, delete, insert, select, text, update

from tenten.schemas.messages import Reason, reasons_as_json
from tenten.schemas.tables.channel import outbox
from tenten.schemas.topics import RECORD_BYTES_MAX
from tenten.sql.arrays import is_one_of
from tenten.sql.postgresql_driver import driver_cursor

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


def append(connection: Connection, rows: Sequence[NewRow], created_at: datetime) -> None:
    """Append these rows in this order; the relay is notified when the transaction commits."""
    if not rows:
        return
    values = [
        {
            "id": row.event_id,
            "aggregatetype": row.aggregate_type,
            "aggregateid": row.aggregate_id,
            "type": row.type,
            "payload": row.payload,
            "created_at": created_at,
        }
        for row in rows
    ]
    connection.execute(insert(outbox), values)
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": WAKE_CHANNEL})


def delete_row(connection: Connection, event_id: str) -> None:
    """Delete the row with this id, so that it can be appended again. Idempotent."""
    connection.execute(delete(outbox).where(outbox.c.id == event_id))


def recorded_ids(connection: Connection, event_ids: Iterable[str]) -> set[str]:
    """The subset of `event_ids` already recorded."""
    query = select(outbox.c.id).where(is_one_of(connection, outbox.c.id, event_ids))
    return set(connection.scalars(query))


# The next rows to send, thousands at a time. Rows that are on their way to the broker and not marked yet are excluded
# one by one: a row between them may have been committed only now. Rows rejected in the channel or settled in another
# way (by an erasure) are not sent. PostgreSQL sums up the payloads and stops at the limit; SQLite returns row by row.
_UNSENT: Final = {
    "postgresql": """
        SELECT sequence, id::text, aggregatetype, aggregateid::text, type, payload
        FROM (
            SELECT *, sum(length(payload)) OVER (ORDER BY sequence ROWS UNBOUNDED PRECEDING) - length(payload) AS bytes
            FROM outbox
            WHERE sent_at IS NULL AND settled_at IS NULL AND outcome IS NULL AND NOT sequence <@ %s::int8multirange
            ORDER BY sequence LIMIT %s
        ) AS first
        WHERE bytes < %s
        """,
    "sqlite": """
        SELECT sequence, id, aggregatetype, aggregateid, type, payload FROM outbox
        WHERE sent_at IS NULL AND settled_at IS NULL AND outcome IS NULL
              AND sequence NOT IN (SELECT value FROM json_each(?))
        ORDER BY sequence LIMIT ?
        """,
}


def unsent(connection: Connection, rows_max: int, bytes_max: int, excluded: Sequence[int] = ()) -> list[UnsentRow]:
    """The first unsent rows in the order of their sequence, without the excluded sequences.

    At most `rows_max` rows; rows after the one whose payload reaches `bytes_max` in total are left for the next call.
    """
    driver = connection.connection.driver_connection
    statement = _UNSENT[connection.dialect.name]
    if connection.dialect.name == "postgresql":
        # A binary cursor transfers payloads as bytes instead of in hexadecimal.
        with driver_cursor(connection, binary=True) as cursor:
            result = cursor.execute(statement, (multirange(excluded), rows_max, bytes_max))
            return list(map(UnsentRow._make, result.fetchall()))
    rows: list[UnsentRow] = []
    size = 0
    with closing(
        cast("sqlite3.Connection", driver).execute(statement, (json.dumps(excluded), rows_max))
    ) as sqlite_rows:
        for row in map(UnsentRow._make, sqlite_rows):
            rows.append(row)
            size += len(row.payload)
            if size >= bytes_max:
                break
    return rows


def multirange(numbers: Sequence[int]) -> str:
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


def mark_sent(
    connection: Connection, sequences: Iterable[int], sent_at: datetime, topic_ids: Mapping[str, str]
) -> None:
    """Record that the broker has acknowledged these rows, with the ids of their topics. One statement.

    `topic_ids` has exactly the aggregate types of the rows.
    """
    ids = list(topic_ids.values())
    topic_id = case(topic_ids, value=outbox.c.aggregatetype) if len(ids) > 1 else ids[0]
    connection.execute(
        update(outbox)
        .where(is_one_of(connection, outbox.c.sequence, sequences))
        .values(sent_at=sent_at, sent_topic_id=topic_id)
    )


def reject(connection: Connection, sequence: int, reason: Reason) -> None:
    """Reject a row that cannot be sent. Idempotent."""
    rejected = {"outcome": REJECTED, "reasons": reasons_as_json([reason])}
    connection.execute(update(outbox).where(outbox.c.sequence == sequence).values(rejected))
