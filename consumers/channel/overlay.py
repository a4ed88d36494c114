"""Customers with edits that headquarters has not settled: the clerk sees the last snapshot with those edits on top.

An event counts on top of a snapshot while it is unsettled (a rejected one too: the clerk must see what he wrote), or
was settled in a later version than the snapshot's. Of a customer outside the channel's filter no snapshot will come to
show an edit, so there only unsettled events count, and without any the customer leaves the channel.

Whoever calls this has locked the customers' rows and reads the outbox only then.
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
from sqlalchemy.dialects import postgresql, sqlite

from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.consumers.channel.distribution.snapshots import Filter
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
from tenten.schemas.tables.channel import loyalty_cards, outbox, snapshots
from tenten.sql.arrays import is_one_of
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, delete_customers, read_customers, write_customers


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An event of the outbox that is unsettled, or was settled in a version."""

    event: CustomerEvent
    settled: bool
    version: int | None

    def counts(self, snapshot: Customer, within: Filter) -> bool:
        """Whether it is to be seen on top of this snapshot."""
        if not self.settled:
            return True
        return self.version is not None and self.version > snapshot.version and _passes(snapshot, within)


def show(connection: Connection, arrived: Sequence[Customer], within: Filter, writers: WriterSchemas) -> None:
    """Make these snapshots the base of their customers, and show them with the edits that count on top."""
    ids = [one.customer_id for one in arrived]
    before = read_customers(connection, CHANNEL_TABLES, ids, for_update=True)
    edits = read_edits(connection, ids, writers)
    based, plain, gone = [], [], []
    for one in arrived:
        counting = [edit for edit in edits.get(one.customer_id, ()) if edit.counts(one, within)]
        if counting:
            based.append((one, counting))
        elif _passes(one, within):
            plain.append(one)
        else:
            gone.append(one.customer_id)
    visible = [_with_edits(one, counting) for one, counting in based] + [_stored(one) for one in plain]
    write_customers(connection, CHANNEL_TABLES, visible, before)
    remove(connection, gone)
    _keep_snapshots(connection, [one for one, _ in based])
    forget_snapshots(connection, [one.customer_id for one in plain])


def show_again(connection: Connection, ids: Iterable[str], within: Filter, writers: WriterSchemas) -> None:
    """Show customers as their kept snapshots and what counts now have them; without a kept snapshot they stay."""
    query = select(snapshots.c.snapshot).where(is_one_of(connection, snapshots.c.customer_id, ids))
    kept = [
        customer_from_avro(writers.decode(bytes(value), contract("Customer")))
        for value in connection.scalars(query.order_by(snapshots.c.customer_id))
    ]
    if kept:
        show(connection, kept, within, writers)


def read_edits(connection: Connection, ids: Iterable[str], writers: WriterSchemas) -> dict[str, list[Edit]]:
    """The events of these customers that may count, oldest first.

    Raises: `Unreadable` for a payload of a schema that nobody knows.
    """
    query = (
        select(outbox.c.aggregateid, outbox.c.payload, outbox.c.settled_at, outbox.c.version)
        .where(is_one_of(connection, outbox.c.aggregateid, ids), outbox.c.aggregatetype == "customer")
        .where(or_(outbox.c.settled_at.is_(None), outbox.c.version.is_not(None)))
        # What is settled, shown and old loses its payload, or goes altogether.
        .where(func.length(outbox.c.payload) > 0)
        .order_by(outbox.c.sequence)
    )
    edits: dict[str, list[Edit]] = {}
    for row in connection.execute(query):
        event = event_from_avro(writers.decode(bytes(row.payload), contract("CustomerEvent")))
        edit = Edit(event=event, settled=row.settled_at is not None, version=row.version)
        edits.setdefault(row.aggregateid, []).append(edit)
    return edits


def _with_edits(snapshot: Customer, edits: Sequence[Edit]) -> StoredCustomer:
    state = snapshot.customer
    for edit in edits:
        if edit.event.customer is not None:
            state = apply_paths(state, edit.event.customer, edit.event.changed)
    return replace(_stored(snapshot), state=state, updated_at=edits[-1].event.occurred_at)


def _stored(snapshot: Customer) -> StoredCustomer:
    return StoredCustomer(
        customer_id=snapshot.customer_id,
        account_number=snapshot.account_number,
        version=snapshot.version,
        updated_at=snapshot.updated_at,
        state=snapshot.customer,
    )


def _passes(snapshot: Customer, within: Filter) -> bool:
    return within.passes(snapshot.customer.legal_entity, snapshot.customer.address_books)


def _keep_snapshots(connection: Connection, kept: Sequence[Customer]) -> None:
    """Keep what edits are laid on."""
    if not kept:
        return
    schema = contract("Customer")
    rows = [
        {"customer_id": one.customer_id, "version": one.version, "snapshot": encode(schema, to_avro(one))}
        for one in kept
    ]
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(snapshots)
    upsert = insert.on_conflict_do_update(
        index_elements=[snapshots.c.customer_id],
        set_={"version": insert.excluded.version, "snapshot": insert.excluded.snapshot},
    )
    connection.execute(upsert, rows)


def forget_snapshots(connection: Connection, ids: Collection[str]) -> None:
    """Drop the kept snapshots of customers without edits. One statement."""
    if ids:
        connection.execute(delete(snapshots).where(is_one_of(connection, snapshots.c.customer_id, ids)))


def remove(connection: Connection, ids: Collection[str]) -> None:
    """Delete customers from the channel, without their outbox. Four statements."""
    if ids:
        delete_customers(connection, CHANNEL_TABLES, ids)
        forget_snapshots(connection, ids)


def erase(connection: Connection, ids: Collection[str], channel_id: str, at: datetime) -> None:
    """Delete customers, settle all that is open about them, and take everything personal out of their outbox rows.

    Called twice it changes nothing more. A fixed number of statements, and one row of the outbox at a time.
    """
    if not ids:
        return
    remove(connection, ids)
    connection.execute(delete(loyalty_cards).where(is_one_of(connection, loyalty_cards.c.customer_id, ids)))
    theirs = and_(is_one_of(connection, outbox.c.aggregateid, ids), outbox.c.aggregatetype == "customer")
    still_open = or_(outbox.c.settled_at.is_(None), outbox.c.outcome.is_distinct_from(_ERASED))
    settled = {"settled_at": at, "outcome": _ERASED, "reasons": null()}
    connection.execute(update(outbox).where(theirs, still_open).values(**settled))
    personal = select(outbox.c.id, outbox.c.aggregateid, outbox.c.created_at)
    shells = [
        {"event": row.id, "shell": _shell(row.id, row.aggregateid, channel_id, row.created_at)}
        for row in connection.execute(personal.where(theirs, outbox.c.type != _ERASED_TYPE))
    ]
    if shells:
        emptied = update(outbox).where(outbox.c.id == bindparam("event"))
        connection.execute(emptied.values(type=_ERASED_TYPE, payload=bindparam("shell")), shells)


_ERASED: Final = Outcome.ERASED.lower()
_ERASED_TYPE: Final = "CustomerErased"


def _shell(event_id: str, customer_id: str, channel_id: str, occurred_at: datetime) -> bytes:
    """The payload of an event that says nothing but that its customer is erased."""
    event = CustomerEvent(
        customer_id=customer_id,
        event_id=event_id,
        channel_id=channel_id,
        kind=EventKind.ERASED,
        occurred_at=occurred_at,
    )
    return encode(contract("CustomerEvent"), to_avro(event))
