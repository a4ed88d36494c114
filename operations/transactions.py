"""How orders, sales and ends of days stand at headquarters: what waits, what somebody has to mend, and for how long."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, func, select

from schemas.headquarters import retail_transactions, statements
from schemas.records import TransactionStatus

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
