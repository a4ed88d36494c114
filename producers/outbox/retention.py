"""Outbox rows that must be sent again, and rows that can be deleted.

A row that was sent and is not settled soon is queued again after an hour, then after two, four and so on hours, at most
a day. A row that headquarters holds is queued again once a day: a headquarters that was restored may have lost it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Text,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)

from tenten.producers.outbox.table import CUSTOMER, HELD, is_open, queue_again
from tenten.schemas.messages import TransactionStatus
from tenten.schemas.tables.channel import customers, end_of_days, outbox, outbox_queue, outbox_resends, transactions
from tenten.schemas.tables.types import UtcTime
from tenten.sql.arrays import is_one_of

_UUIDV5: Final = "5"

REPLY_SECONDS_MAX: Final = 3600
"""A row without a reply is sent again after this time, and then with a back-off."""

RESEND_SECONDS_MAX: Final = 86_400
"""The longest pause between two attempts to send a row."""


class Window(NamedTuple):
    """Consecutive rows of the outbox."""

    after: int
    last: int
    """The sequence of the last of them."""


def next_window(connection: Connection, after: int, rows_max: int) -> Window | None:
    """The next rows after this sequence; None after the last row."""
    first = select(outbox.c.sequence).where(outbox.c.sequence > after).order_by(outbox.c.sequence).limit(rows_max)
    last = connection.scalar(select(func.max(first.subquery().c.sequence)))
    return None if last is None else Window(after, last)


def queue_window_again(connection: Connection, window: Window, aggregate_type: str) -> int:
    """Queue the open rows of this type in the window, and return how many were not queued before. Idempotent."""
    return connection.execute(_QUEUE_WINDOW, {**window._asdict(), "aggregate_type": aggregate_type}).rowcount


_QUEUE_WINDOW: Final = text(
    """
    INSERT INTO outbox_queue (sequence)
    SELECT sequence FROM outbox
    WHERE sequence > :after AND sequence <= :last AND aggregatetype = :aggregate_type
          AND settled_at IS NULL AND coalesce(outcome, 'held') = 'held'
    ON CONFLICT DO NOTHING
    """
)


def first_to_schedule(connection: Connection) -> int:
    """The sequence from which rows may still need `schedule_resends` after all rows of now had it."""
    is_queued = select(func.min(outbox_queue.c.sequence)).scalar_subquery()
    after_last = select(func.coalesce(func.max(outbox.c.sequence), 0) + 1).scalar_subquery()
    return int(connection.scalar(select(func.coalesce(is_queued, after_last))) or 0)


def schedule_resends(connection: Connection, window: Window, now: datetime) -> int:
    """Schedule the open rows in the window that have been sent, and return how many are new. Idempotent."""
    in_an_hour = bindparam("in_an_hour", now + timedelta(seconds=REPLY_SECONDS_MAX), UtcTime)
    in_a_day = bindparam("in_a_day", now + timedelta(seconds=RESEND_SECONDS_MAX), UtcTime)
    resend_at = case((outbox.c.outcome == HELD, in_a_day), else_=in_an_hour)
    is_known = or_(*(exists().where(table.c.sequence == outbox.c.sequence) for table in (outbox_queue, outbox_resends)))
    query = (
        select(outbox.c.sequence, resend_at, literal(0))
        .where(outbox.c.sequence > window.after, outbox.c.sequence <= window.last)
        .where(is_open(), ~is_known)
    )
    # SQLite's write lock is needed only if there is a row.
    if connection.execute(query.limit(1)).first() is None:
        return 0
    columns = ["sequence", "resend_at", "attempts"]
    return connection.execute(insert(outbox_resends).from_select(columns, query)).rowcount


def resend_due(connection: Connection, now: datetime, rows_max: int) -> tuple[int, int]:
    """Queue the rows again whose time has come; how many were due, and how many were queued. At most six statements.

    Rows that are settled or rejected meanwhile are no longer resent; rows that are still in the queue wait once more.
    """
    query = (
        select(
            outbox_resends.c.sequence,
            outbox_resends.c.attempts,
            func.coalesce(is_open(), False).label("is_open"),
            func.coalesce(outbox.c.outcome == HELD, False).label("is_held"),
            exists().where(outbox_queue.c.sequence == outbox_resends.c.sequence).label("is_queued"),
        )
        .join(outbox, outbox.c.sequence == outbox_resends.c.sequence, isouter=True)
        .where(outbox_resends.c.resend_at <= now)
        .order_by(outbox_resends.c.resend_at, outbox_resends.c.sequence)
        .limit(rows_max)
    )
    due = connection.execute(query).all()
    finished = [row.sequence for row in due if not row.is_open]
    connection.execute(delete(outbox_resends).where(is_one_of(connection, outbox_resends.c.sequence, finished)))
    unsettled = [row for row in due if row.is_open]
    to_queue = [row.sequence for row in unsettled if not row.is_queued]
    queue_again(connection, to_queue)
    if unsettled:
        connection.execute(_RESEND_LATER, [_later(row, now) for row in unsettled])
    return len(due), len(to_queue)


_RESEND_LATER: Final = (
    update(outbox_resends)
    .where(outbox_resends.c.sequence == bindparam("of_sequence"))
    .values(resend_at=bindparam("later"), attempts=bindparam("so_far"))
)


def _later(row: Row[Any], now: datetime) -> dict[str, object]:
    attempts = row.attempts if row.is_queued else row.attempts + 1
    pause_seconds = RESEND_SECONDS_MAX if row.is_held else min(REPLY_SECONDS_MAX * 2**attempts, RESEND_SECONDS_MAX)
    return {"of_sequence": row.sequence, "later": now + timedelta(seconds=pause_seconds), "so_far": attempts}


def is_younger(connection: Connection, window: Window, than: datetime) -> bool:
    """Whether the last row of the window was created after that time."""
    created_at = connection.scalar(select(outbox.c.created_at).where(outbox.c.sequence == window.last))
    return created_at is None or created_at >= than


def prunable(connection: Connection, window: Window, settled_before: datetime) -> list[int]:
    """The rows in the window that were settled before that time and whose customer's snapshot has arrived.

    Rows of imported events (their id is a UUIDv5) that have lost their payload already are left out, and so are
    transactions that wait or are blocked at headquarters: should the final reply be lost, they are sent again.
    """
    above_snapshot = exists().where(
        customers.c.customer_id == outbox.c.aggregateid, outbox.c.version > customers.c.version
    )
    query = (
        select(outbox.c.sequence)
        .where(outbox.c.sequence > window.after, outbox.c.sequence <= window.last)
        .where(outbox.c.settled_at < settled_before, ~above_snapshot, ~_is_open_transaction())
        .where(or_(~_is_imported(), func.length(outbox.c.payload) > 0))
    )
    return list(connection.scalars(query))


def prune(connection: Connection, sequences: Sequence[int]) -> None:
    """Delete these settled rows. Rows of imported events lose only their payload: the ids identify repeated lines."""
    settled = and_(is_one_of(connection, outbox.c.sequence, sequences), outbox.c.settled_at.is_not(None))
    connection.execute(delete(outbox).where(settled, ~_is_imported()))
    connection.execute(update(outbox).where(settled, _is_imported()).values(payload=b""))


def _is_open_transaction() -> ColumnElement[bool]:
    """True for orders, sales and ends of day that have no final reply."""
    not_final = (TransactionStatus.WAITING, TransactionStatus.BLOCKED)
    return or_(
        exists().where(transactions.c.transaction_id == outbox.c.id, transactions.c.status.in_(not_final)),
        exists().where(end_of_days.c.end_of_day_id == outbox.c.id, end_of_days.c.status.in_(not_final)),
    )


def _is_imported() -> ColumnElement[bool]:
    """True for customers' events with a UUIDv5; the 15th character of a GUID is its version."""
    is_version_5 = func.substr(outbox.c.id.cast(Text), 15, 1) == _UUIDV5
    return and_(outbox.c.aggregatetype == CUSTOMER, is_version_5)
