"""How orders, sales and ends of days stand at headquarters: what waits, what somebody has to mend, and for how long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import Connection, Select, func, select

from tenten.rules.customer import plain_decimal
from tenten.rules.limits import GUID
from tenten.runtime.errors import NoSuchTransaction
from tenten.schemas.messages import TransactionStatus
from tenten.schemas.tables.headquarters import retail_transactions, sales_orders, statement_lines, statements

STATUSES: Final = (
    TransactionStatus.WAITING,
    TransactionStatus.BLOCKED,
    TransactionStatus.REJECTED,
    TransactionStatus.SYNCHRONIZED,
)
"""What a transaction at headquarters may be."""

OPEN: Final = (TransactionStatus.WAITING, TransactionStatus.BLOCKED)
"""What has not come to an end yet, a transaction as well as a statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionsStatus:
    """How many transactions are no sales order and in no statement yet, and why."""

    waiting: int
    """For their customers."""
    blocked: int
    """By what somebody has to mend."""
    rejected: int
    oldest_waiting_seconds: int | None
    """How long the oldest waiting one has been here; None when none waits."""
    open_statements: int
    """Ends of days that are not posted: waiting or blocked."""
    lag: int | None = None
    """Records of retail-transactions that headquarters has not taken in; None where Kafka was not asked."""
    problem: str | None = None
    """Set when one waits for longer than `waiting_seconds_max`."""


def transactions_status(headquarters: Connection, waiting_seconds_max: int) -> TransactionsStatus:
    """Count what is not done. Reads headquarters' database only."""
    status = retail_transactions.c.status
    counted = (*OPEN, TransactionStatus.REJECTED)
    of_each = select(status, func.count().label("how_many")).where(status.in_(counted)).group_by(status)
    counts = {row.status: row.how_many for row in headquarters.execute(of_each)}
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
            f"waiting_seconds_max allows ({waiting_seconds_max:,} s): see with `tenten lag` whether headquarters keeps "
            f"up, and with `tenten channel status {oldest.channel_id}` whether that channel's customers are sent"
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
class TransactionAtHeadquarters:
    """An order or a cash-and-carry transaction, as headquarters has it."""

    transaction_id: str
    channel_id: str
    kind: str
    business_date: date
    status: str
    reasons: Sequence[Mapping[str, str]]
    """Why it is blocked or rejected: field, code and text of each."""
    customer_id: str | None
    account_number: str | None
    sales_order: str | None
    statement_id: str | None
    """In which it is posted."""
    currency: str
    total: str
    repeats: int
    """How often it came again."""
    received_at: datetime
    changed_at: datetime
    """Since when it has this status."""


def list_transactions(
    headquarters: Connection, *, channel: str | None, status: str | None, transactions_max: int
) -> list[TransactionAtHeadquarters]:
    """The newest transactions first, of one channel or one status where such is named."""
    query = _transactions().order_by(retail_transactions.c.received_at.desc(), retail_transactions.c.transaction_id)
    if channel is not None:
        query = query.where(retail_transactions.c.channel_id == channel)
    if status is not None:
        query = query.where(retail_transactions.c.status == status)
    return _found(headquarters, query.limit(transactions_max))


def find_transaction(headquarters: Connection, transaction_id: str) -> TransactionAtHeadquarters:
    """One transaction. Raises: `NoSuchTransaction`."""
    if GUID.fullmatch(transaction_id):
        wanted = _transactions().where(retail_transactions.c.transaction_id == transaction_id)
        for one in _found(headquarters, wanted):
            return one
    raise NoSuchTransaction(
        f"headquarters has no transaction {transaction_id}: it has not come, or could not be read "
        "(`tenten dead-letters list --topic retail-transactions`)"
    )


def _transactions() -> Select[tuple[object, ...]]:
    table, order, line = retail_transactions, sales_orders, statement_lines
    return (
        select(table, order.c.sales_order, line.c.statement_id)
        .outerjoin_from(table, order, order.c.transaction_id == table.c.transaction_id)
        .outerjoin(line, line.c.transaction_id == table.c.transaction_id)
    )


def _found(headquarters: Connection, query: Select[tuple[object, ...]]) -> list[TransactionAtHeadquarters]:
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
            currency=row.currency,
            total=plain_decimal(row.total),
            repeats=row.repeats,
            received_at=row.received_at,
            changed_at=row.changed_at,
        )
        for row in headquarters.execute(query)
    ]
