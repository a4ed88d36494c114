"""Orders, cash-and-carry sales and end-of-day events in the outbox."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select, update

from tenten.producers.outbox import table
from tenten.producers.outbox.table import REJECTED, RETAIL_TRANSACTION, NewRow
from tenten.schemas.messages import Reason, RetailTransaction, TransactionKind, reasons_as_json
from tenten.schemas.tables.channel import end_of_days, transactions
from tenten.sql.channel_events import Subject

_TYPES: Final = {
    TransactionKind.ORDER: "OrderPlaced",
    TransactionKind.CASH_AND_CARRY: "CashAndCarrySold",
    TransactionKind.END_OF_DAY: "DayClosed",
}


def append(connection: Connection, transaction: RetailTransaction, payload: bytes, created_at: datetime) -> None:
    """Append a transaction, encoded as `payload`; the relay is notified when the transaction commits."""
    row = NewRow(
        transaction.transaction_id,
        RETAIL_TRANSACTION,
        transaction.transaction_id,
        _TYPES[transaction.kind],
        payload,
    )
    table.append(connection, [row], created_at)


def show_rejected(connection: Connection, transaction_id: str, reason: Reason) -> Subject | None:
    """Show the order, sale or end of day of this id as rejected in the channel; return what it is. Idempotent."""
    rejected = {"status": REJECTED, "reasons": reasons_as_json([reason])}
    key = end_of_days.c.end_of_day_id
    if connection.execute(update(end_of_days).where(key == transaction_id).values(rejected)).rowcount:
        return Subject.END_OF_DAY
    key = transactions.c.transaction_id
    connection.execute(update(transactions).where(key == transaction_id).values(rejected))
    kind = connection.scalar(select(transactions.c.kind).where(key == transaction_id))
    return None if kind is None else Subject.of_kind(kind)
