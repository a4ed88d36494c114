"""Orders, sales and end-of-day events at headquarters: waiting, blocked and rejected ones, and since when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select

from tenten.headquarters_views.list_positions import ListPosition
from tenten.rules.customer import attribute_value, plain_decimal
from tenten.rules.limits import is_guid
from tenten.rules.transaction_content import attributes_of
from tenten.runtime.errors import NoSuchTransaction
from tenten.schemas.messages import TransactionStatus
from tenten.schemas.tables.headquarters import retail_transactions, sales_orders, statement_lines, statements

STATUSES: Final = (
    TransactionStatus.WAITING,
    TransactionStatus.BLOCKED,
    TransactionStatus.REJECTED,
    TransactionStatus.SYNCHRONIZED,
)
"""Statuses of a transaction at headquarters."""

OPEN: Final = (TransactionStatus.WAITING, TransactionStatus.BLOCKED)
"""Statuses that are not final, of transactions and statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionsStatus:
    """Counts of transactions that are not completed."""

    waiting: int
    """For their customers."""
    blocked: int
    """They need manual correction; see `reasons`."""
    rejected: int
    oldest_waiting_seconds: int | None
    """Since when the oldest waiting transaction waits; None if none waits."""
    open_statements: int
    """Statements that are not posted: waiting or blocked."""
    lag: int | None = None
    """Records of retail-transactions that headquarters has not ingested; None if Kafka was not asked."""
    problem: str | None = None
    """Set if a transaction waits for longer than `waiting_seconds_max`."""


def transactions_status(headquarters: Connection, waiting_seconds_max: int) -> TransactionsStatus:
    """Count transactions that are not completed. Reads headquarters' database only."""
    status = retail_transactions.c.status
    # Two questions, because each has an index of its own.
    counts = {
        row.status: row.transactions
        for counted in (status.in_(OPEN), status == TransactionStatus.REJECTED)
        for row in headquarters.execute(
            select(status, func.count().label("transactions")).where(counted).group_by(status)
        )
    }
    oldest = headquarters.execute(
        select(retail_transactions.c.channel_id, retail_transactions.c.received_at)
        .where(status == TransactionStatus.WAITING)
        .order_by(retail_transactions.c.received_at)
        .limit(1)
    ).first()
    seconds = None if oldest is None else (datetime.now(UTC) - oldest.received_at).total_seconds()
    problem = None
    if oldest is not None and seconds is not None and seconds > waiting_seconds_max:
        problem = (
            f"a transaction of {oldest.channel_id} has waited for its customer for {seconds:,.0f} s, longer than "
            f"waiting_seconds_max allows ({waiting_seconds_max:,} s): check with `tenten lag` whether headquarters "
            f"keeps up, and with `tenten channel status {oldest.channel_id}` whether that channel's customers are sent"
        )
    return TransactionsStatus(
        waiting=counts.get(TransactionStatus.WAITING, 0),
        blocked=counts.get(TransactionStatus.BLOCKED, 0),
        rejected=counts.get(TransactionStatus.REJECTED, 0),
        oldest_waiting_seconds=None if seconds is None else max(0, round(seconds)),
        open_statements=headquarters.scalars(select(func.count()).where(statements.c.status.in_(OPEN))).one(),
        problem=problem,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OldestBlocked:
    """The statement that has been blocked for longest."""

    channel_id: str
    business_date: date
    seconds: float
    """Since headquarters received its end of day."""


def oldest_blocked(headquarters: Connection) -> OldestBlocked | None:
    """The statement that has been blocked for longest; None without any. Reads headquarters' database only."""
    query = (
        select(statements.c.channel_id, statements.c.business_date, statements.c.received_at)
        .where(statements.c.status == TransactionStatus.BLOCKED)
        .order_by(statements.c.received_at)
        .limit(1)
    )
    row = headquarters.execute(query).first()
    if row is None:
        return None
    seconds = (datetime.now(UTC) - row.received_at).total_seconds()
    return OldestBlocked(channel_id=row.channel_id, business_date=row.business_date, seconds=max(0.0, seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionAtHeadquarters:
    """An order or a cash-and-carry sale at headquarters."""

    transaction_id: str
    channel_id: str
    kind: str
    business_date: date
    status: str
    reasons: Sequence[Mapping[str, str]]
    """Why it is blocked or rejected; each with field, code and text."""
    customer_id: str | None
    account_number: str | None
    sales_order: str | None
    statement_id: str | None
    """The statement that posts it."""
    operator: str | None
    """The person who recorded it."""
    currency: str
    total: str
    attributes: Sequence[Mapping[str, Any]]
    """Each with its name and its value under the name of its kind."""
    repeats: int
    """How often it was received again."""
    received_at: datetime
    changed_at: datetime
    """When it got this status."""


def list_transactions(
    headquarters: Connection,
    *,
    channel: str | None,
    status: str | None,
    transactions_max: int,
    behind: ListPosition | None = None,
) -> list[TransactionAtHeadquarters]:
    """Transactions, newest first, of this channel and status if given; those behind a position, if it is given."""
    columns = retail_transactions.c
    query = _transactions().order_by(columns.received_at.desc(), columns.transaction_id.desc())
    if behind is not None:
        query = query.where(behind.is_after(columns.received_at, columns.transaction_id))
    if channel is not None:
        query = query.where(retail_transactions.c.channel_id == channel)
    if status is not None:
        query = query.where(retail_transactions.c.status == status)
    return _read(headquarters, query.limit(transactions_max))


def find_transaction(headquarters: Connection, transaction_id: str) -> TransactionAtHeadquarters:
    """The transaction with this id. Raises: `NoSuchTransaction`."""
    if is_guid(transaction_id):
        query = _transactions().where(retail_transactions.c.transaction_id == transaction_id)
        for transaction in _read(headquarters, query):
            return transaction
    raise NoSuchTransaction(
        f"headquarters has no transaction {transaction_id}: it was not received, or could not be read "
        "(`tenten dead-letters list --topic retail-transactions`)"
    )


def _transactions() -> Select[tuple[object, ...]]:
    table, order, line = retail_transactions, sales_orders, statement_lines
    return (
        select(table, order.c.sales_order, line.c.statement_id)
        .outerjoin_from(table, order, order.c.transaction_id == table.c.transaction_id)
        .outerjoin(line, line.c.transaction_id == table.c.transaction_id)
    )


def _read(headquarters: Connection, query: Select[tuple[object, ...]]) -> list[TransactionAtHeadquarters]:
    return [
        TransactionAtHeadquarters(
            transaction_id=row.transaction_id,
            channel_id=row.channel_id,
            kind=row.kind,
            business_date=row.business_date,
            status=row.status,
            reasons=row.reasons,
            customer_id=row.customer_id,
            account_number=row.account_number,
            sales_order=row.sales_order,
            statement_id=row.statement_id,
            operator=row.operator,
            currency=row.currency,
            total=plain_decimal(row.total),
            attributes=[
                {"name": attribute.name, **attribute_value(attribute)} for attribute in attributes_of(row.content)
            ],
            repeats=row.repeats,
            received_at=row.received_at,
            changed_at=row.changed_at,
        )
        for row in headquarters.execute(query)
    ]
