"""Outbox rows that must be sent again, and rows that can be deleted."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, Text, and_, case, delete, exists, func, or_, select, update

from tenten.producers.outbox.table import CUSTOMER
from tenten.schemas.messages import TransactionStatus
from tenten.schemas.tables.channel import customers, end_of_days, outbox, transactions
from tenten.sql.arrays import is_one_of

_UUIDV5: Final = "5"


def overdue(connection: Connection, sent_before: datetime, topic_ids: Mapping[str, str], rows_max: int) -> list[int]:
    """The sequences of unanswered rows that were sent before that time, or to another topic than their current one.

    `topic_ids` has the current topic id of each aggregate type.
    """
    current_topic_id = case(topic_ids, value=outbox.c.aggregatetype)
    query = (
        select(outbox.c.sequence)
        .where(outbox.c.settled_at.is_(None), outbox.c.outcome.is_(None), outbox.c.sent_at.is_not(None))
        .where(or_(outbox.c.sent_at < sent_before, outbox.c.sent_topic_id.is_distinct_from(current_topic_id)))
        .order_by(outbox.c.sequence)
        .limit(rows_max)
    )
    return list(connection.scalars(query))


def mark_unsent(connection: Connection, sequences: Iterable[int]) -> None:
    """Queue these rows to be sent again, except those that have a reply by now."""
    connection.execute(
        update(outbox)
        .where(
            is_one_of(connection, outbox.c.sequence, sequences),
            outbox.c.settled_at.is_(None),
            outbox.c.outcome.is_(None),
        )
        .values(sent_at=None, sent_topic_id=None)
    )


def prunable(connection: Connection, settled_before: datetime, rows_max: int) -> list[int]:
    """The sequences of rows that were settled before that time and whose customer's snapshot has arrived.

    Rows of imported events (their id is a UUIDv5) that have lost their payload already are left out, and so are
    transactions that wait or are blocked at headquarters: should the final reply be lost, they are sent again.
    """
    above_snapshot = exists().where(
        customers.c.customer_id == outbox.c.aggregateid, outbox.c.version > customers.c.version
    )
    query = (
        select(outbox.c.sequence)
        .where(outbox.c.settled_at < settled_before, ~above_snapshot, ~_is_open_transaction())
        .where(or_(~_is_imported(), func.length(outbox.c.payload) > 0))
        .order_by(outbox.c.sequence)
        .limit(rows_max)
    )
    return list(connection.scalars(query))


def prune(connection: Connection, sequences: Sequence[int]) -> None:
    """Delete these settled rows. Rows of imported events lose only their payload: the ids identify repeated lines."""
    settled = and_(is_one_of(connection, outbox.c.sequence, sequences), outbox.c.settled_at.is_not(None))
    connection.execute(delete(outbox).where(settled, ~_is_imported()))
    connection.execute(update(outbox).where(settled, _is_imported()).values(payload=b""))


def _is_open_transaction() -> ColumnElement[bool]:
    """True for orders, sales and ends of day that have no final reply."""
    is_open = (TransactionStatus.WAITING, TransactionStatus.BLOCKED)
    return or_(
        exists().where(transactions.c.transaction_id == outbox.c.id, transactions.c.status.in_(is_open)),
        exists().where(end_of_days.c.end_of_day_id == outbox.c.id, end_of_days.c.status.in_(is_open)),
    )


def _is_imported() -> ColumnElement[bool]:
    """True for customers' events with a UUIDv5; the 15th character of a GUID is its version."""
    is_version_5 = func.substr(outbox.c.id.cast(Text), 15, 1) == _UUIDV5
    return and_(outbox.c.aggregatetype == CUSTOMER, is_version_5)
