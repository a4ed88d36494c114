"""One change of a customer as a value: the row before and after, its event, and the base snapshot.

Lock the customer's row and read its overlay events before making a change; call `write` in the same SQL transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, select

from tenten.avro.wire import contract, encode
from tenten.producers.outbox import customer_events
from tenten.producers.outbox.customer_events import OutboxEvent
from tenten.producers.outbox.folding import settle_folded
from tenten.rules.customer import changed_paths
from tenten.schemas.messages import Customer, CustomerEvent, CustomerState, EventKind, SupersededEvent, to_avro
from tenten.schemas.tables.channel import customers, snapshots
from tenten.sql.arrays import is_one_of
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, write_customers
from tenten.sql.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One event of one customer, with the customer's row before (None: created) and after it."""

    before: StoredCustomer | None
    after: StoredCustomer
    event: CustomerEvent
    snapshot: Customer | None
    """The base snapshot to store, where the row had no edits before."""
    folded: tuple[str, ...] = ()
    """The ids of unsent events that this one replaces."""


def created(
    *, channel_id: str, customer_id: str, event_id: str, operator: str | None, state: CustomerState, now: datetime
) -> Change:
    """A new, pending customer."""
    return Change(
        before=None,
        after=StoredCustomer(customer_id=customer_id, account_number=None, version=0, updated_at=now, state=state),
        event=CustomerEvent(
            customer_id=customer_id,
            event_id=event_id,
            channel_id=channel_id,
            kind=EventKind.CREATED,
            occurred_at=now,
            operator=operator,
            changed=changed_paths(None, state),
            customer=state,
        ),
        snapshot=None,
    )


def edited(
    *,
    channel_id: str,
    event_id: str,
    operator: str | None,
    before: StoredCustomer,
    events: Sequence[OutboxEvent],
    state: CustomerState,
    now: datetime,
    folded: Sequence[OutboxEvent] = (),
) -> Change:
    """The edit that changes the customer to this state. `events` are all overlay events, oldest first.

    The event takes in the changes of the `folded` ones, which are the last of them, and supersedes the others.
    """
    supersedes = [
        SupersededEvent(event_id=event.event.event_id, changed=event.event.changed)
        for event in events[: len(events) - len(folded)]
        if not event.settled
    ]
    changed = changed_paths(before.state, state)
    if changed:
        changed = tuple(dict.fromkeys((*(path for event in folded for path in event.event.changed), *changed)))
    is_new = any(event.event.kind is EventKind.CREATED for event in folded)
    return Change(
        before=before,
        after=replace(before, state=state, updated_at=now),
        event=CustomerEvent(
            customer_id=before.customer_id,
            event_id=event_id,
            channel_id=channel_id,
            kind=EventKind.CREATED if is_new else EventKind.EDITED,
            occurred_at=now,
            operator=operator,
            based_on_version=before.version,
            changed=changed,
            supersedes=tuple(supersedes),
            customer=state,
        ),
        snapshot=None if events else snapshot_of(before),
        folded=tuple(event.event.event_id for event in folded),
    )


def must_be_sent(change: Change, events: Sequence[OutboxEvent]) -> bool:
    """True if an edit changes something, or follows a rejection and so sends the rejected changes again."""
    unsettled = [event for event in events if not event.settled]
    return bool(change.event.changed) or (bool(unsettled) and unsettled[-1].rejected)


def existing_ids(connection: Connection, customer_ids: Iterable[str]) -> set[str]:
    """The subset of `customer_ids` that exist in the channel."""
    return set(
        connection.scalars(
            select(customers.c.customer_id).where(is_one_of(connection, customers.c.customer_id, customer_ids))
        )
    )


def snapshot_of(stored: StoredCustomer) -> Customer | None:
    """The snapshot that equals a row without edits; None before the first snapshot."""
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
    """Write these changes; changes of one customer take effect in this order. A fixed number of statements."""
    before: dict[str, StoredCustomer] = {}
    after: dict[str, StoredCustomer] = {}
    for change in changes:
        customer_id = change.after.customer_id
        if change.before is not None and customer_id not in after:
            before[customer_id] = change.before
        after[customer_id] = change.after
    _store_snapshots(connection, [change.snapshot for change in changes if change.snapshot is not None])
    write_customers(connection, CHANNEL_TABLES, list(after.values()), before)
    settle_folded(connection, [event_id for change in changes for event_id in change.folded], now)
    customer_events.append(connection, [change.event for change in changes], now)


def _store_snapshots(connection: Connection, base_snapshots: Sequence[Customer]) -> None:
    """Store the base snapshots of first edits, unless the same or a newer version is stored already."""
    if not base_snapshots:
        return
    schema = contract("Customer")
    rows = [
        {
            "customer_id": snapshot.customer_id,
            "version": snapshot.version,
            "snapshot": encode(schema, to_avro(snapshot)),
        }
        for snapshot in base_snapshots
    ]
    insert = insert_into(connection, snapshots)
    newer = insert.on_conflict_do_update(
        index_elements=[snapshots.c.customer_id],
        set_={"version": insert.excluded.version, "snapshot": insert.excluded.snapshot},
        where=insert.excluded.version > snapshots.c.version,
    )
    connection.execute(newer, rows)
