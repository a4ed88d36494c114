"""What needs a person in a store: what headquarters has rejected, holds, or cannot finish."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from tenten.producers.outbox.table import CUSTOMER, HELD, REJECTED
from tenten.producers.till import customer_views, transaction_views
from tenten.producers.till.customer_views import CustomerStatus, CustomerView
from tenten.producers.till.database_session import reading
from tenten.producers.till.end_of_day import EndOfDayView, list_days
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.transaction_views import TransactionView
from tenten.schemas.messages import TransactionStatus
from tenten.schemas.tables.channel import outbox, transactions

_LISTED_MAX: Final = 200
_STUCK: Final = (TransactionStatus.REJECTED, TransactionStatus.BLOCKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What needs a person, the oldest first; at most two hundred of each."""

    rejected: tuple[CustomerView, ...]
    """Customers whose newest change is rejected: to be corrected or discarded."""
    held: tuple[CustomerView, ...]
    """Customers whose newest change headquarters holds: it decides when its settings are complete."""
    transactions: tuple[TransactionView, ...]
    """Orders and sales that are rejected, or blocked by their customer."""
    days: tuple[EndOfDayView, ...]
    """Rejected ends of day, and those whose statement is blocked."""

    def __len__(self) -> int:
        return len(self.rejected) + len(self.held) + len(self.transactions) + len(self.days)


def needing_attention(channel: OpenChannel) -> Attention:
    """What needs a person now. Reads the unsettled rows of the outbox. Raises: `DatabaseRefused`."""
    unsettled = (
        select(outbox.c.aggregateid)
        .where(outbox.c.aggregatetype == CUSTOMER, outbox.c.settled_at.is_(None))
        .where(outbox.c.outcome.in_((REJECTED, HELD)))
        .group_by(outbox.c.aggregateid)
        .order_by(func.min(outbox.c.sequence))
        .limit(_LISTED_MAX)
    )
    stuck = (
        select(transactions.c.transaction_id)
        .where(transactions.c.status.in_(_STUCK))
        .order_by(transactions.c.occurred_at)
        .limit(_LISTED_MAX)
    )
    with reading(channel) as connection:
        customers = customer_views.read_views(connection, connection.scalars(unsettled).all())
        ids = connection.scalars(stuck).all()
        views = {view.transaction_id: view for view in transaction_views.read_views(connection, channel, ids)}
    days = [day for day in list_days(channel, _LISTED_MAX) if day.status in _STUCK]
    return Attention(
        rejected=tuple(view for view in customers if view.status is CustomerStatus.REJECTED),
        held=tuple(view for view in customers if view.status is CustomerStatus.HELD),
        transactions=tuple(views[transaction_id] for transaction_id in ids),
        days=tuple(reversed(days)),
    )
