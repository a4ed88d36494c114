"""A change of a customer in a channel: its rows, its event, and the snapshot it is laid on, made as values and
written as one.

Who makes a change has locked the customer's row and then read which of its events still count. `write` belongs to the
same SQL transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from tenten.avro.wire import contract, encode
from tenten.producers import outbox
from tenten.producers.outbox import OutboxEvent
from tenten.rules.customer import changed_paths
from tenten.schemas.messages import Customer, CustomerEvent, CustomerState, EventKind, SupersededEvent, to_avro
from tenten.schemas.tables.channel import customers, snapshots
from tenten.sql.arrays import is_one_of
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, write_customers


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One event of one customer, with the row before (None: created) and after it."""

    before: StoredCustomer | None
    after: StoredCustomer
    event: CustomerEvent
    snapshot: Customer | None
    """What the edit is laid on, where the row still was the last snapshot."""


def created(*, channel_id: str, customer_id: str, event_id: str, state: CustomerState, now: datetime) -> Change:
    """A new customer, pending."""
    return Change(
        before=None,
        after=StoredCustomer(customer_id=customer_id, account_number=None, version=0, updated_at=now, state=state),
        event=CustomerEvent(
            customer_id=customer_id,
            event_id=event_id,
            channel_id=channel_id,
            kind=EventKind.CREATED,
            occurred_at=now,
            changed=changed_paths(None, state),
            customer=state,
        ),
        snapshot=None,
    )


def edited(
    *,
    channel_id: str,
    event_id: str,
    before: StoredCustomer,
    events: Sequence[OutboxEvent],
    state: CustomerState,
    now: datetime,
) -> Change:
    """The edit that makes the customer this state; `events` are all of his that still count, oldest first."""
    supersedes = [
        SupersededEvent(event_id=one.event.event_id, changed=one.event.changed) for one in events if not one.settled
    ]
    return Change(
        before=before,
        after=replace(before, state=state, updated_at=now),
        event=CustomerEvent(
            customer_id=before.customer_id,
            event_id=event_id,
            channel_id=channel_id,
            kind=EventKind.EDITED,
            occurred_at=now,
            based_on_version=before.version,
            changed=changed_paths(before.state, state),
            supersedes=tuple(supersedes),
            customer=state,
        ),
        snapshot=None if events else snapshot_of(before),
    )


def says_something(change: Change, events: Sequence[OutboxEvent]) -> bool:
    """Whether an edit is worth sending: it changes something, or comes after a rejection and sends once more what was
    refused.
    """
    unsettled = [one for one in events if not one.settled]
    return bool(change.event.changed) or (bool(unsettled) and unsettled[-1].rejected)


def existing(connection: Connection, customer_ids: Iterable[str]) -> set[str]:
    """Those of the customers that the channel has."""
    return set(
        connection.scalars(
            select(customers.c.customer_id).where(is_one_of(connection, customers.c.customer_id, customer_ids))
        )
    )


def snapshot_of(stored: StoredCustomer) -> Customer | None:
    """The snapshot that a row without edits on it is; None before the first one."""
    if stored.version == 0 or stored.account_number is None:
        return None
    return Customer(
        customer_id=stored.customer_id,
        account_number=stored.account_number,
        version=stored.version,
        updated_at=stored.updated_at,
        customer=stored.state,
    )


def write(connection: Connection, changes: Sequence[Change], now: datetime) -> None:
    """Write these changes, in this order where they are of one customer. A fixed number of statements."""
    before: dict[str, StoredCustomer] = {}
    after: dict[str, StoredCustomer] = {}
    for change in changes:
        customer_id = change.after.customer_id
        if change.before is not None and customer_id not in after:
            before[customer_id] = change.before
        after[customer_id] = change.after
    _keep_snapshots(connection, [change.snapshot for change in changes if change.snapshot is not None])
    write_customers(connection, CHANNEL_TABLES, list(after.values()), before)
    outbox.append(connection, [change.event for change in changes], now)


def _keep_snapshots(connection: Connection, kept: Sequence[Customer]) -> None:
    """Keep what the first edit on a snapshot is laid on, unless the same or a newer one is kept already."""
    if not kept:
        return
    schema = contract("Customer")
    rows = [
        {"customer_id": one.customer_id, "version": one.version, "snapshot": encode(schema, to_avro(one))}
        for one in kept
    ]
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(snapshots)
    newer = insert.on_conflict_do_update(
        index_elements=[snapshots.c.customer_id],
        set_={"version": insert.excluded.version, "snapshot": insert.excluded.snapshot},
        where=insert.excluded.version > snapshots.c.version,
    )
    connection.execute(newer, rows)
