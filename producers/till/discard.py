"""Discard changes of a customer that headquarters has rejected."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce
from typing import Final

from sqlalchemy import Connection, delete, select

from tenten.avro.wire import contract
from tenten.producers.outbox import customer_events
from tenten.producers.outbox.customer_events import OutboxEvent
from tenten.producers.till.customer_views import CustomerView, lock_customer, read_view
from tenten.producers.till.customers import overlay_events_of, reject
from tenten.producers.till.database_session import writing
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules.customer import apply_paths
from tenten.schemas.messages import CustomerState, Reason, TransactionStatus, customer_from_avro
from tenten.schemas.tables.channel import loyalty_cards, snapshots, transactions
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, delete_customers, write_customers

_AWAITED: Final = Reason(
    field="customer_id",
    code="awaited",
    text="An order or a sale of this customer is on its way and may need this change: correct the change instead.",
)


def discard_rejected(channel: OpenChannel, customer_id: str) -> CustomerView | None:
    """Discard the rejected changes and return the remaining customer; None if headquarters never accepted it.

    Writes nothing unless the customer's newest change is rejected: a later change already carries the rejected ones.
    Rejected while an order or a sale of the customer is on its way, because it may need the change.
    Raises: `NoSuchCustomer`, `CustomerRejected`, `DatabaseRefused`; nothing is written then.
    """
    now = datetime.now(UTC)
    with writing(channel) as connection:
        before = lock_customer(connection, customer_id)
        events = overlay_events_of(connection, channel, before)
        unsettled = [event for event in events if not event.settled]
        if not unsettled or not unsettled[-1].rejected:
            return read_view(connection, before.customer_id)
        remaining = [event for event in events if not event.rejected]
        state = _with_overlay(_base_state(connection, channel, before.customer_id), remaining)
        never_accepted = state is None and before.account_number is None
        reject([_AWAITED] if _is_awaited(connection, before.customer_id, also_rejected=never_accepted) else [])
        customer_events.discard_rejected(connection, before.customer_id, now)
        if not remaining:
            connection.execute(delete(snapshots).where(snapshots.c.customer_id == before.customer_id))
        if never_accepted:
            delete_customers(connection, CHANNEL_TABLES, [before.customer_id])
            connection.execute(delete(loyalty_cards).where(loyalty_cards.c.customer_id == before.customer_id))
            return None
        after = StoredCustomer(
            customer_id=before.customer_id,
            account_number=before.account_number,
            version=before.version,
            updated_at=now,
            state=before.state if state is None else state,
        )
        write_customers(connection, CHANNEL_TABLES, [after], {before.customer_id: before})
        return read_view(connection, before.customer_id)


def _is_awaited(connection: Connection, customer_id: str, *, also_rejected: bool) -> bool:
    """True if an order or sale of the customer is unfinished; with `also_rejected`, rejected ones count, too, because
    they may be sent again.
    """
    finished = [TransactionStatus.SYNCHRONIZED, *([] if also_rejected else [TransactionStatus.REJECTED])]
    query = (
        select(transactions.c.transaction_id)
        .where(transactions.c.customer_id == customer_id)
        .where(transactions.c.status.not_in(finished))
        .limit(1)
    )
    return connection.execute(query).first() is not None


def _base_state(connection: Connection, channel: OpenChannel, customer_id: str) -> CustomerState | None:
    """The customer in its base snapshot; None without one."""
    stored = connection.scalar(select(snapshots.c.snapshot).where(snapshots.c.customer_id == customer_id))
    if stored is None:
        return None
    return customer_from_avro(channel.writers.decode(bytes(stored), contract("Customer"))).customer


def _with_overlay(base: CustomerState | None, events: Sequence[OutboxEvent]) -> CustomerState | None:
    """The base with these events applied, oldest first; without a base, the customer of the newest event."""
    edits = [(event.event.customer, event.event.changed) for event in events if event.event.customer is not None]
    if base is None:
        return edits[-1][0] if edits else None
    return reduce(lambda state, edit: apply_paths(state, *edit), edits, base)
