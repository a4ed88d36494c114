"""The overlay of a customer: edits that headquarters has not settled, shown over the customer's last snapshot.

An event is part of the overlay while it is unsettled (a rejected one too: the clerk must see their own input), or while
it was settled in a later version than the snapshot's. For a customer outside the channel's filter only unsettled events
count, as no snapshot will come that shows a settled one; without any the customer leaves the channel.

The caller has locked the customers' rows; the outbox is read only after that.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    delete,
    func,
    null,
    or_,
    select,
    update,
)

from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.consumers.channel.filter import ChannelFilter
from tenten.rules.customer import apply_paths
from tenten.schemas.messages import (
    Customer,
    CustomerEvent,
    EventKind,
    Outcome,
    customer_from_avro,
    event_from_avro,
    to_avro,
)
from tenten.schemas.tables.channel import loyalty_cards, outbox, request_keys, snapshots
from tenten.sql.arrays import is_one_of
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, delete_customers, read_customers, write_customers
from tenten.sql.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An event of the outbox that is unsettled, or was settled in a version."""

    event: CustomerEvent
    settled: bool
    version: int | None

    def overlays(self, snapshot: Customer, channel_filter: ChannelFilter) -> bool:
        """Whether it is shown over this snapshot."""
        if not self.settled:
            return True
        if self.version is None or self.version <= snapshot.version:
            return False
        return _is_accepted(snapshot, channel_filter)


def show_snapshots(
    connection: Connection, arrived: Sequence[Customer], channel_filter: ChannelFilter, writers: WriterSchemas
) -> None:
    """Make these the base snapshots of their customers, and write the customers with their overlays.

    A customer without an overlay gets the snapshot's rows, or is removed where the filter does not accept it.
    Raises: as `read_edits`.
    """
    ids = [snapshot.customer_id for snapshot in arrived]
    before = read_customers(connection, CHANNEL_TABLES, ids, for_update=True)
    edits = read_edits(connection, ids, writers)
    overlaid: list[tuple[Customer, list[Edit]]] = []
    plain: list[Customer] = []
    removed: list[str] = []
    for snapshot in arrived:
        overlay = [edit for edit in edits.get(snapshot.customer_id, ()) if edit.overlays(snapshot, channel_filter)]
        if overlay:
            overlaid.append((snapshot, overlay))
        elif _is_accepted(snapshot, channel_filter):
            plain.append(snapshot)
        else:
            removed.append(snapshot.customer_id)
    visible = [_overlaid(snapshot, overlay) for snapshot, overlay in overlaid] + [
        _stored(snapshot) for snapshot in plain
    ]
    write_customers(connection, CHANNEL_TABLES, visible, before)
    remove_customers(connection, removed)
    _store_base_snapshots(connection, [snapshot for snapshot, _ in overlaid])
    delete_base_snapshots(connection, [snapshot.customer_id for snapshot in plain])


def different_customers(connection: Connection, expected: Sequence[Customer]) -> set[str]:
    """The customers that are missing or differ from these snapshots, by an overlay too. Locks nothing."""
    stored = read_customers(connection, CHANNEL_TABLES, [snapshot.customer_id for snapshot in expected])
    return {snapshot.customer_id for snapshot in expected if stored.get(snapshot.customer_id) != _stored(snapshot)}


def refresh_overlays(
    connection: Connection, ids: Iterable[str], channel_filter: ChannelFilter, writers: WriterSchemas
) -> None:
    """Rewrite customers from their base snapshots and current overlays; without a base they stay unchanged."""
    query = select(snapshots.c.snapshot).where(is_one_of(connection, snapshots.c.customer_id, ids))
    bases = [
        customer_from_avro(writers.decode(bytes(value), contract("Customer")))
        for value in connection.scalars(query.order_by(snapshots.c.customer_id))
    ]
    if bases:
        show_snapshots(connection, bases, channel_filter, writers)


def read_edits(connection: Connection, ids: Iterable[str], writers: WriterSchemas) -> dict[str, list[Edit]]:
    """The events of these customers that may be part of an overlay, by customer, oldest first.

    Raises: `Unreadable` for a payload with an unknown schema.
    """
    query = (
        select(outbox.c.aggregateid, outbox.c.payload, outbox.c.settled_at, outbox.c.version)
        .where(is_one_of(connection, outbox.c.aggregateid, ids), outbox.c.aggregatetype == "customer")
        .where(or_(outbox.c.settled_at.is_(None), outbox.c.version.is_not(None)))
        # Old rows whose outcome has been shown lose their payload, or are deleted.
        .where(func.length(outbox.c.payload) > 0)
        .order_by(outbox.c.sequence)
    )
    edits: dict[str, list[Edit]] = {}
    for row in connection.execute(query):
        event = event_from_avro(writers.decode(bytes(row.payload), contract("CustomerEvent")))
        edit = Edit(event=event, settled=row.settled_at is not None, version=row.version)
        edits.setdefault(row.aggregateid, []).append(edit)
    return edits


def _overlaid(snapshot: Customer, overlay: Sequence[Edit]) -> StoredCustomer:
    state = snapshot.customer
    for edit in overlay:
        if edit.event.customer is not None:
            state = apply_paths(state, edit.event.customer, edit.event.changed)
    return replace(_stored(snapshot), state=state, updated_at=overlay[-1].event.occurred_at)


def _stored(snapshot: Customer) -> StoredCustomer:
    return StoredCustomer(
        customer_id=snapshot.customer_id,
        account_number=snapshot.account_number,
        version=snapshot.version,
        updated_at=snapshot.updated_at,
        state=snapshot.customer,
    )


def _is_accepted(snapshot: Customer, channel_filter: ChannelFilter) -> bool:
    return channel_filter.accepts(snapshot.customer.legal_entity, snapshot.customer.address_books)


def _store_base_snapshots(connection: Connection, bases: Sequence[Customer]) -> None:
    if not bases:
        return
    schema = contract("Customer")
    rows = [
        {"customer_id": base.customer_id, "version": base.version, "snapshot": encode(schema, to_avro(base))}
        for base in bases
    ]
    insert = insert_into(connection, snapshots)
    upsert = insert.on_conflict_do_update(
        index_elements=[snapshots.c.customer_id],
        set_={"version": insert.excluded.version, "snapshot": insert.excluded.snapshot},
    )
    connection.execute(upsert, rows)


def delete_base_snapshots(connection: Connection, ids: Collection[str]) -> None:
    """Delete the base snapshots of customers without an overlay. One statement."""
    if ids:
        connection.execute(delete(snapshots).where(is_one_of(connection, snapshots.c.customer_id, ids)))


def remove_customers(connection: Connection, ids: Collection[str]) -> None:
    """Delete customers from the channel, without their outbox rows. Four statements."""
    if ids:
        delete_customers(connection, CHANNEL_TABLES, ids)
        delete_base_snapshots(connection, ids)


def erase_customers(connection: Connection, ids: Collection[str], channel_id: str, at: datetime) -> None:
    """Delete customers, settle all their events as erased, and remove personal data from their outbox rows.

    Idempotent. A fixed number of statements, one of them once per outbox row.
    """
    if not ids:
        return
    remove_customers(connection, ids)
    connection.execute(delete(loyalty_cards).where(is_one_of(connection, loyalty_cards.c.customer_id, ids)))
    their_events = and_(is_one_of(connection, outbox.c.aggregateid, ids), outbox.c.aggregatetype == "customer")
    not_erased = or_(outbox.c.settled_at.is_(None), outbox.c.outcome.is_distinct_from(_ERASED))
    keys = request_keys.c.request_key
    their_keys = or_(is_one_of(connection, keys, ids), keys.in_(select(outbox.c.id).where(their_events)))
    # The keys stay used; a digest of a few fields can be guessed.
    connection.execute(update(request_keys).where(their_keys).values(digest=""))
    settled = {"settled_at": at, "outcome": _ERASED, "reasons": null()}
    connection.execute(update(outbox).where(their_events, not_erased).values(**settled))
    personal = select(outbox.c.id, outbox.c.aggregateid, outbox.c.created_at)
    erased_type = EventKind.ERASED.type_name
    emptied_events = [
        {"event": row.id, "emptied": _emptied_event(row.id, row.aggregateid, channel_id, row.created_at)}
        for row in connection.execute(personal.where(their_events, outbox.c.type != erased_type))
    ]
    if emptied_events:
        with_id = update(outbox).where(outbox.c.id == bindparam("event"))
        connection.execute(with_id.values(type=erased_type, payload=bindparam("emptied")), emptied_events)


_ERASED: Final = Outcome.ERASED.lower()


def _emptied_event(event_id: str, customer_id: str, channel_id: str, occurred_at: datetime) -> bytes:
    """The payload of an event that holds nothing but that its customer was erased."""
    event = CustomerEvent(
        customer_id=customer_id,
        event_id=event_id,
        channel_id=channel_id,
        kind=EventKind.ERASED,
        occurred_at=occurred_at,
    )
    return encode(contract("CustomerEvent"), to_avro(event))
