"""Statements at headquarters: the totals of each end of day, and the reasons why it is not posted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from tenten.headquarters_views.list_positions import ListPosition
from tenten.rules.customer import plain_decimal
from tenten.runtime.errors import TentenError
from tenten.schemas.messages import TransactionStatus
from tenten.schemas.tables.headquarters import retail_transactions, statement_lines, statement_listed, statements
from tenten.sql.arrays import is_one_of

STATUSES: Final = (
    TransactionStatus.WAITING,
    TransactionStatus.BLOCKED,
    TransactionStatus.REJECTED,
    TransactionStatus.POSTED,
)
"""Statuses of a statement."""


class NoSuchStatement(TentenError):
    """No statement has this channel, date and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTransaction:
    """A transaction that a statement lists."""

    transaction_id: str
    owned: bool
    """False: an earlier statement lists and posts it."""
    status: str | None
    """None: headquarters has not received it."""
    account_number: str | None
    currency: str | None
    total: str | None
    posted: bool
    """Whether it is posted in this statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The statement of an end of day, or an adjustment: transactions that the channel did not list."""

    statement_id: str
    channel_id: str
    business_date: date
    number: int
    """Of that channel and date, from 1."""
    kind: str
    status: str
    reasons: Sequence[Mapping[str, str]]
    """Why it is not posted; each with field, code and text."""
    control_totals: Sequence[Mapping[str, str]] | None
    """The channel's totals by currency and payment method; None for an adjustment."""
    totals: Mapping[str, Any]
    """Once posted: the number of its transactions, and amounts as above."""
    operator: str | None
    """The person who closed the date."""
    closed_at: datetime
    """By the channel's clock."""
    received_at: datetime
    posted_at: datetime | None
    listed_count: int
    listed: tuple[ListedTransaction, ...] | None = None
    """None in lists."""


def list_statements(
    headquarters: Connection,
    *,
    channel: str | None,
    status: str | None,
    statements_max: int,
    behind: ListPosition | None = None,
) -> list[Statement]:
    """Statements, newest first, of this channel and status if given; those behind a position, if it is given."""
    query = select(statements).order_by(statements.c.received_at.desc(), statements.c.statement_id.desc())
    if behind is not None:
        query = query.where(behind.is_after(statements.c.received_at, statements.c.statement_id))
    if channel is not None:
        query = query.where(statements.c.channel_id == channel)
    if status is not None:
        query = query.where(statements.c.status == status)
    rows = headquarters.execute(query.limit(statements_max)).all()
    counts = _counts(headquarters, [row.statement_id for row in rows])
    return [_statement(row, counts.get(row.statement_id, 0)) for row in rows]


def find_statement(headquarters: Connection, channel: str, day: date, number: int | None) -> Statement:
    """The statement of this number, default the newest of the date, with its list. Raises: `NoSuchStatement`."""
    query = select(statements).where(statements.c.channel_id == channel, statements.c.business_date == day)
    if number is not None:
        query = query.where(statements.c.number == number)
    row = headquarters.execute(query.order_by(statements.c.number.desc()).limit(1)).first()
    if row is None:
        which = "statement" if number is None else f"statement {number}"
        raise NoSuchStatement(f"{channel} has no {which} of {day.isoformat()}: see `tenten statement list`")
    listed = _listed(headquarters, row.statement_id)
    return replace(_statement(row, len(listed)), listed=listed)


def _statement(row: Row[Any], listed_count: int) -> Statement:
    return Statement(
        statement_id=row.statement_id,
        channel_id=row.channel_id,
        business_date=row.business_date,
        number=row.number,
        kind=row.kind,
        status=row.status,
        reasons=row.reasons,
        control_totals=row.control_totals,
        totals=row.totals,
        operator=row.operator,
        closed_at=row.closed_at,
        received_at=row.received_at,
        posted_at=row.posted_at,
        listed_count=listed_count,
    )


def _counts(headquarters: Connection, ids: Sequence[str]) -> dict[str, int]:
    """The number of listed transactions by statement; statements without any are missing."""
    by_statement = (
        select(statement_listed.c.statement_id, func.count().label("transactions"))
        .where(is_one_of(headquarters, statement_listed.c.statement_id, ids))
        .group_by(statement_listed.c.statement_id)
    )
    return {row.statement_id: row.transactions for row in headquarters.execute(by_statement)}


def _listed(headquarters: Connection, statement_id: str) -> tuple[ListedTransaction, ...]:
    """The transactions that a statement lists, by id, which is about the order of their recording."""
    sold, lines = retail_transactions, statement_lines
    query = (
        select(
            statement_listed.c.transaction_id,
            statement_listed.c.owned,
            sold.c.status,
            sold.c.account_number,
            sold.c.currency,
            sold.c.total,
            lines.c.transaction_id.is_not(None).label("posted"),
        )
        .outerjoin_from(statement_listed, sold, sold.c.transaction_id == statement_listed.c.transaction_id)
        .outerjoin(
            lines,
            (lines.c.transaction_id == statement_listed.c.transaction_id)
            & (lines.c.statement_id == statement_listed.c.statement_id),
        )
        .where(statement_listed.c.statement_id == statement_id)
        .order_by(statement_listed.c.transaction_id)
    )
    return tuple(
        ListedTransaction(
            transaction_id=row.transaction_id,
            owned=row.owned,
            status=row.status,
            account_number=row.account_number,
            currency=row.currency,
            total=None if row.total is None else plain_decimal(row.total),
            posted=row.posted,
        )
        for row in headquarters.execute(query)
    )
