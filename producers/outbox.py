"""The outbox of a channel: every statement on it that producers make.

A row is unsent, sent, rejected (until a later event supersedes it or the clerk discards it) or settled. It is written
in the SQL transaction that changes the customer, whose row is locked before: so the rows of one customer are numbered
in the order in which they took effect. Rows of different customers may become visible out of order, hence unsent rows
are found by their flag, never by "greater than the last one".

Customers' events and retail transactions lie in the same outbox and go to topics of their own, by `aggregatetype`.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, cast

from psycopg import Connection as PostgresConnection
from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.schemas.messages import (
    CustomerEvent,
    EventKind,
    Reason,
    RetailTransaction,
    TransactionKind,
    event_from_avro,
    reasons_as_json,
    reasons_from_json,
    to_avro,
)
from tenten.schemas.tables.channel import customers, end_of_days, outbox, transactions
from tenten.schemas.topics import RECORD_BYTES_MAX
from tenten.sql.arrays import is_one_of

WAKE_CHANNEL: Final = "tenten_outbox"
"""PostgreSQL: notified in every transaction that appends, and heard when it has committed."""

CUSTOMER: Final = "customer"
RETAIL_TRANSACTION: Final = "retail_transaction"
"""The aggregate types: what a row is about, and so which topic it goes to."""

SENT_BYTES_MAX: Final = RECORD_BYTES_MAX - 64 * 1024
"""The largest record that the relay sends."""

PAYLOAD_BYTES_MAX: Final = SENT_BYTES_MAX - 1024
"""The largest payload that surely fits: a record has its key and its headers, too."""

REJECTED: Final = "rejected"
DISCARDED: Final = "discarded"

_TYPES: Final = {
    EventKind.CREATED: "CustomerCreated",
    EventKind.EDITED: "CustomerEdited",
    EventKind.ERASED: "CustomerErased",
    EventKind.TOUCHED: "CustomerTouched",
}
_TRANSACTION_TYPES: Final = {
    TransactionKind.ORDER: "OrderPlaced",
    TransactionKind.CASH_AND_CARRY: "CashAndCarrySold",
    TransactionKind.END_OF_DAY: "DayClosed",
}
_UUIDV5: Final = "5"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """An event of the outbox that still counts: unsettled, or settled in a version that no snapshot has brought yet."""

    event: CustomerEvent
    rejected: bool
    reasons: tuple[Reason, ...]
    settled: bool


class UnsentRow(NamedTuple):
    """An outbox row as the relay needs it."""

    sequence: int
    event_id: str
    aggregate_type: str
    aggregate_id: str
    """The customer's id, or the transaction's."""
    type: str
    payload: bytes


def append(connection: Connection, events: Sequence[CustomerEvent], created_at: datetime) -> None:
    """Put these events into the outbox in this order, and wake the relay once this transaction has committed."""
    if not events:
        return
    schema = contract("CustomerEvent")
    rows = [
        {
            "id": event.event_id,
            "aggregatetype": CUSTOMER,
            "aggregateid": event.customer_id,
            "type": _TYPES[event.kind],
            "payload": encode(schema, to_avro(event)),
            "created_at": created_at,
        }
        for event in events
    ]
    connection.execute(insert(outbox), rows)
    _wake(connection)


def append_transaction(
    connection: Connection, transaction: RetailTransaction, payload: bytes, created_at: datetime
) -> None:
    """Put an order, a cash-and-carry or an end of day into the outbox, and wake the relay once this transaction has
    committed.
    """
    row = {
        "id": transaction.transaction_id,
        "aggregatetype": RETAIL_TRANSACTION,
        "aggregateid": transaction.transaction_id,
        "type": _TRANSACTION_TYPES[transaction.kind],
        "payload": payload,
        "created_at": created_at,
    }
    connection.execute(insert(outbox), row)
    _wake(connection)


def _wake(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": WAKE_CHANNEL})


def take_out(connection: Connection, row_id: str) -> None:
    """Delete a row by its id, so that it can be appended anew; without one nothing happens."""
    connection.execute(delete(outbox).where(outbox.c.id == row_id))


def newest_unsettled(connection: Connection, customer_id: str) -> tuple[str, bytes] | None:
    """Id and payload of the customer's newest event that is unsent, sent without an answer, or rejected.

    Read after the customer's row is locked, there is no newer one.
    """
    query = (
        select(outbox.c.id, outbox.c.payload)
        .where(outbox.c.aggregateid == customer_id, outbox.c.aggregatetype == CUSTOMER, outbox.c.settled_at.is_(None))
        .order_by(outbox.c.sequence.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else (row.id, bytes(row.payload))


def known_events(connection: Connection, event_ids: Iterable[str]) -> set[str]:
    """Those of the events that the outbox has or had: they are never written twice."""
    query = select(outbox.c.id).where(is_one_of(connection, outbox.c.id, event_ids))
    return set(connection.scalars(query))


def events_of(
    connection: Connection, customer_ids: Iterable[str], writers: WriterSchemas
) -> dict[str, list[OutboxEvent]]:
    """The events of each customer that still count, oldest first; customers without any are left out.

    Read after the customers' rows are locked, they are all there are. Raises: `Unreadable` for a payload that none of
    `writers` has written.
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
    found: dict[str, list[OutboxEvent]] = {}
    for row in connection.execute(query):
        record = writers.decode(bytes(row.payload), contract("CustomerEvent"))
        found.setdefault(row.aggregateid, []).append(
            OutboxEvent(
                event=event_from_avro(record),
                rejected=row.outcome == REJECTED,
                reasons=reasons_from_json(row.reasons),
                settled=row.settled_at is not None,
            )
        )
    return found


def as_appended(event: CustomerEvent) -> OutboxEvent:
    """An event as it counts right after `append`."""
    return OutboxEvent(event=event, rejected=False, reasons=(), settled=False)


class OutboxSummary(NamedTuple):
    """How a customer stands in the outbox."""

    unsettled: int
    rejected: bool
    """Whether the newest unsettled event is a rejected one."""
    reasons: tuple[Reason, ...]
    """Why, then."""


def summaries(connection: Connection, customer_ids: Iterable[str]) -> dict[str, OutboxSummary]:
    """How each of these customers stands; those with nothing unsettled are left out. Reads no payload."""
    query = (
        select(outbox.c.aggregateid, outbox.c.outcome, outbox.c.reasons)
        .where(is_one_of(connection, outbox.c.aggregateid, customer_ids), outbox.c.aggregatetype == CUSTOMER)
        .where(outbox.c.settled_at.is_(None))
        .order_by(outbox.c.sequence)
    )
    found: dict[str, OutboxSummary] = {}
    for row in connection.execute(query):
        rejected = row.outcome == REJECTED
        before = found[row.aggregateid].unsettled if row.aggregateid in found else 0
        found[row.aggregateid] = OutboxSummary(before + 1, rejected, reasons_from_json(row.reasons) if rejected else ())
    return found


def discard_rejected(connection: Connection, customer_id: str, settled_at: datetime) -> None:
    """Settle the customer's rejected rows as discarded by the clerk."""
    connection.execute(
        update(outbox)
        .where(outbox.c.aggregateid == customer_id, outbox.c.aggregatetype == CUSTOMER)
        .where(outbox.c.settled_at.is_(None), outbox.c.outcome == REJECTED)
        .values(settled_at=settled_at, outcome=DISCARDED)
    )


# What the relay asks, in rows of thousands. Left out is what is on its way to the broker and not marked yet, number
# by number: a row between them may have been committed only now. Rows that were rejected here or settled otherwise
# (by an erasure) are not sent any more. PostgreSQL sums the payloads up as it goes and stops at the limit; SQLite
# hands out row by row.
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


def unsent(connection: Connection, rows_max: int, bytes_max: int, without: Sequence[int] = ()) -> list[UnsentRow]:
    """The first unsent rows in the order of their sequence, without those whose sequence is given.

    At most so many rows, and only as many as stay below so many bytes of payload, but one at least.
    """
    driver = connection.connection.driver_connection
    statement = _UNSENT[connection.dialect.name]
    if isinstance(driver, PostgresConnection):
        # Binary: payloads come as they are instead of in hexadecimal.
        with driver.cursor(binary=True) as cursor:
            found = cursor.execute(statement, (multirange(without), rows_max, bytes_max))
            return list(map(UnsentRow._make, found.fetchall()))
    rows: list[UnsentRow] = []
    size = 0
    with closing(cast("sqlite3.Connection", driver).execute(statement, (json.dumps(without), rows_max))) as given:
        for row in map(UnsentRow._make, given):
            rows.append(row)
            size += len(row.payload)
            if size >= bytes_max:
                break
    return rows


def multirange(numbers: Sequence[int]) -> str:
    """Exactly these numbers as a PostgreSQL multirange: neighbours become one range, and there are few."""
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
    """Note that the broker has acknowledged these rows, under which topic id. One statement.

    `topic_ids` has those of the rows' aggregate types, and of no others.
    """
    ids = list(topic_ids.values())
    topic_id = case(topic_ids, value=outbox.c.aggregatetype) if len(ids) > 1 else ids[0]
    connection.execute(
        update(outbox)
        .where(is_one_of(connection, outbox.c.sequence, sequences))
        .values(sent_at=sent_at, sent_topic_id=topic_id)
    )


def reject(connection: Connection, row: UnsentRow, reason: Reason) -> None:
    """Refuse a row in the channel itself: it cannot be sent, now or later. Twice changes nothing more."""
    stored = reasons_as_json([reason])
    if row.aggregate_type == RETAIL_TRANSACTION:
        for key in (transactions.c.transaction_id, end_of_days.c.end_of_day_id):
            mine = update(key.table).where(key == row.aggregate_id)
            connection.execute(mine.values(status=REJECTED, reasons=stored))
    mine = update(outbox).where(outbox.c.sequence == row.sequence)
    connection.execute(mine.values(outcome=REJECTED, reasons=stored))


def overdue(connection: Connection, sent_before: datetime, topic_ids: Mapping[str, str], rows_max: int) -> list[int]:
    """The sequences of rows without an answer that were sent before that time, or to a topic that is gone: another
    than its aggregate type has now. Writes nothing.
    """
    is_now = case(topic_ids, value=outbox.c.aggregatetype)
    query = (
        select(outbox.c.sequence)
        .where(outbox.c.settled_at.is_(None), outbox.c.outcome.is_(None), outbox.c.sent_at.is_not(None))
        .where(or_(outbox.c.sent_at < sent_before, outbox.c.sent_topic_id.is_distinct_from(is_now)))
        .order_by(outbox.c.sequence)
        .limit(rows_max)
    )
    return list(connection.scalars(query))


def mark_unsent(connection: Connection, sequences: Iterable[int]) -> None:
    """Have these rows sent again, unless they have been answered meanwhile."""
    connection.execute(
        update(outbox)
        .where(
            is_one_of(connection, outbox.c.sequence, sequences),
            outbox.c.settled_at.is_(None),
            outbox.c.outcome.is_(None),
        )
        .values(sent_at=None, sent_topic_id=None)
    )


def settled_before(connection: Connection, settled_before: datetime, rows_max: int) -> list[int]:
    """The sequences of rows that nobody needs any more: settled before that time, and their customer's snapshot has
    come.

    Of an imported event (its id is a UUIDv5) the row stays without its payload: the same file is still a repeat after
    a year.
    """
    above_snapshot = exists().where(
        customers.c.customer_id == outbox.c.aggregateid, outbox.c.version > customers.c.version
    )
    query = (
        select(outbox.c.sequence)
        .where(outbox.c.settled_at < settled_before, ~above_snapshot)
        .where(or_(~_is_imported(), func.length(outbox.c.payload) > 0))
        .order_by(outbox.c.sequence)
        .limit(rows_max)
    )
    return list(connection.scalars(query))


def prune(connection: Connection, sequences: Sequence[int]) -> None:
    """Delete these settled rows; those of imported events only lose their payload."""
    chosen = and_(is_one_of(connection, outbox.c.sequence, sequences), outbox.c.settled_at.is_not(None))
    connection.execute(delete(outbox).where(chosen, ~_is_imported()))
    connection.execute(update(outbox).where(chosen, _is_imported()).values(payload=b""))


def _is_imported() -> ColumnElement[bool]:
    """Whether the event id says so: the 15th character of a GUID is its version."""
    is_version_5 = func.substr(outbox.c.id.cast(Text), 15, 1) == _UUIDV5
    return and_(outbox.c.aggregatetype == CUSTOMER, is_version_5)
