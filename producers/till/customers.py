"""Customers of a channel: create, edit, show, discard what was rejected. For tills, integrators and the command line.

    with open_channel(load_settings(), "houston") as houston:
        ada = create_customer(houston, first_name="Ada", last_name="Lovelace", email="ada@example.com")
        print(ada.display_number)                                     # Pending sync
        edit_customer(houston, ada.customer_id, phone="713 555 0100")

Nothing here needs Kafka or headquarters: customer and event are written in one SQL transaction of the channel's
database, and the relay brings the event on its way. What breaks a rule is refused with every reason before anything
is written. A crash leaves either all of a call or nothing; a call that gave no answer may be repeated with the same
ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import reduce
from typing import Final, Unpack
from uuid import UUID, uuid5

import uuid_utils
from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from tenten.avro.wire import contract
from tenten.producers import outbox
from tenten.producers.outbox import OutboxEvent, OutboxSummary
from tenten.producers.till import customer_change as changes
from tenten.producers.till.customer_input import CustomerFields, Entering, with_fields
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules.customer import apply_paths, display_name
from tenten.rules.customer_rules import reasons
from tenten.runtime.error_codes import is_full
from tenten.runtime.errors import CustomerRejected, DatabaseFull, DatabaseRefused, NoSuchCustomer
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import CustomerState, CustomerType, Reason, TransactionStatus, customer_from_avro
from tenten.schemas.tables.channel import loyalty_cards, snapshots, transactions
from tenten.sql.customer_rows import (
    CHANNEL_TABLES,
    StoredCustomer,
    delete_customers,
    read_customers,
    write_customers,
)

PENDING_SYNC: Final = "Pending sync"
"""What stands in place of the account number until it is there; a clerk never sees the GUID."""


class CustomerStatus(StrEnum):
    """Where a customer stands between this channel and headquarters."""

    PENDING = "pending"
    SYNCHRONIZED = "synchronized"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerView:
    """A customer as the channel shows it: the last snapshot with this channel's own edits on top."""

    customer_id: str
    account_number: str | None
    status: CustomerStatus
    """Rejected when headquarters refused the newest change; else pending until the account number is there."""
    reasons: tuple[Reason, ...]
    """Why headquarters refused the newest change."""
    unsettled: int
    """How many changes of this channel headquarters has not settled."""
    version: int
    updated_at: datetime
    state: CustomerState

    @property
    def display_number(self) -> str:
        """The account number, or `Pending sync`."""
        return self.account_number or PENDING_SYNC

    @property
    def display_name(self) -> str:
        """The name people call the customer by."""
        return display_name(self.state)


def create_customer(
    channel: OpenChannel,
    *,
    customer_id: str | None = None,
    event_id: str | None = None,
    **fields: Unpack[CustomerFields],
) -> CustomerView:
    """Create a customer, pending until headquarters has given it an account number. Needs no line to anywhere.

    What is not said comes from the channel: language, currency, customer group, receipt preference and affiliations
    of its default customer, the legal entity's country, its address books; an address is Home for a person, Business
    for an organization. Who may have to repeat the call gives a `customer_id` (a GUID of his own): where that
    customer, or an event `event_id`, is there already, nothing is written and the customer is returned as it is.

    Raises: `CustomerRejected` with every reason, `DatabaseRefused`; nothing is written then. `TypeError` for an
    unknown field.
    """
    now = datetime.now(UTC)
    repeatable = customer_id is not None or event_id is not None
    if customer_id is None:
        customer_id = new_id() if event_id is None else str(uuid5(_guid(event_id, "event_id"), "customer"))
    owner = _guid(customer_id, "customer_id")
    event = _guid(event_id, "event_id") if event_id is not None else uuid5(owner, "created") if repeatable else None
    state = with_fields(new_state(channel, fields), fields, Entering(country=channel.country, now=now, new_id=new_id))
    refuse(reasons(state))
    change = changes.created(
        channel_id=channel.name,
        customer_id=str(owner),
        event_id=new_id() if event is None else str(event),
        state=state,
        now=now,
    )
    try:
        with writing(channel) as connection:
            if repeatable and _is_there(connection, change):
                return _view(connection, change.after.customer_id)
            changes.write(connection, [change], now)
    except AlreadyThere:
        return show_customer(channel, change.after.customer_id)
    return _as_view(change.after, OutboxSummary(1, rejected=False, reasons=()))


def new_state(channel: OpenChannel, fields: CustomerFields) -> CustomerState:
    """The customer before anything is said of it: the channel's default customer."""
    person = bool(fields.get("first_name") or fields.get("last_name"))
    organization = bool(fields.get("organization_name"))
    plain = CustomerType.PERSON if person else CustomerType.ORGANIZATION
    return channel.default_customer(
        fields.get("customer_type", channel.default_type if person == organization else plain)
    )


def _is_there(connection: Connection, change: changes.Change) -> bool:
    """Whether the customer or the event was written before."""
    customer_id = change.after.customer_id
    return bool(
        read_customers(connection, CHANNEL_TABLES, [customer_id])
        or outbox.known_events(connection, [change.event.event_id])
    )


def edit_customer(
    channel: OpenChannel, customer_id: str, *, event_id: str | None = None, **fields: Unpack[CustomerFields]
) -> CustomerView:
    """Change what is said of a customer, pending or not; the rest stays. Blocks while another process changes the
    same customer.

    An edit that changes nothing writes nothing, unless headquarters has rejected the newest change: then everything
    unsettled is sent once more. The same `event_id` again writes nothing.

    Raises: `NoSuchCustomer`, `CustomerRejected` with every reason, `DatabaseRefused`; nothing is written then.
    """
    now = datetime.now(UTC)
    event = new_id() if event_id is None else str(_guid(event_id, "event_id"))
    try:
        with writing(channel) as connection:
            before = locked_customer(connection, customer_id)
            if event_id is not None and outbox.known_events(connection, [event]):
                return _view(connection, before.customer_id)
            events = outbox.events_of(connection, [before.customer_id], channel.writers).get(before.customer_id, [])
            state = with_fields(before.state, fields, Entering(country=channel.country, now=now, new_id=new_id))
            change = changes.edited(
                channel_id=channel.name, event_id=event, before=before, events=events, state=state, now=now
            )
            if changes.says_something(change, events):
                refuse(reasons(state))
                changes.write(connection, [change], now)
            return _view(connection, before.customer_id)
    except AlreadyThere:
        return show_customer(channel, customer_id)


def show_customer(channel: OpenChannel, customer_id: str) -> CustomerView:
    """The customer as this channel has it. Raises: `NoSuchCustomer`, `DatabaseRefused`."""
    with reading(channel) as connection:
        return _view(connection, customer_id)


def discard_rejected(channel: OpenChannel, customer_id: str) -> CustomerView | None:
    """Give up what headquarters has rejected, and show what remains: None when that is nothing, a customer never
    accepted.

    Writes nothing unless the customer's newest change is a rejected one: a later change has taken the rejected ones
    along. Refused while an order or a sale of his is on its way: it may be waiting for just this change.
    Raises: `NoSuchCustomer`, `CustomerRejected`, `DatabaseRefused`; nothing is written then.
    """
    now = datetime.now(UTC)
    with writing(channel) as connection:
        before = locked_customer(connection, customer_id)
        events = outbox.events_of(connection, [before.customer_id], channel.writers).get(before.customer_id, [])
        unsettled = [one for one in events if not one.settled]
        if not unsettled or not unsettled[-1].rejected:
            return _view(connection, before.customer_id)
        kept = [one for one in events if not one.rejected]
        state = _laid_on(_snapshot_state(connection, channel, before.customer_id), kept)
        goes = state is None and before.account_number is None
        refuse([_AWAITED] if _is_awaited(connection, before.customer_id, also_rejected=goes) else [])
        outbox.discard_rejected(connection, before.customer_id, now)
        if not kept:
            connection.execute(delete(snapshots).where(snapshots.c.customer_id == before.customer_id))
        if goes:
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
        return _view(connection, before.customer_id)


_AWAITED: Final = Reason(
    field="customer_id",
    code="awaited",
    text="An order or a sale of this customer is on its way and may wait for this change: correct it instead.",
)


def _is_awaited(connection: Connection, customer_id: str, *, also_rejected: bool) -> bool:
    """Whether one of the customer's orders and sales is on its way; a rejected one may be sent again, and then needs
    the customer.
    """
    done = [TransactionStatus.SYNCHRONIZED, *([] if also_rejected else [TransactionStatus.REJECTED])]
    query = (
        select(transactions.c.transaction_id)
        .where(transactions.c.customer_id == customer_id)
        .where(transactions.c.status.not_in(done))
        .limit(1)
    )
    return connection.execute(query).first() is not None


def _snapshot_state(connection: Connection, channel: OpenChannel, customer_id: str) -> CustomerState | None:
    stored = connection.scalar(select(snapshots.c.snapshot).where(snapshots.c.customer_id == customer_id))
    if stored is None:
        return None
    return customer_from_avro(channel.writers.decode(bytes(stored), contract("Customer"))).customer


def _laid_on(base: CustomerState | None, events: Sequence[OutboxEvent]) -> CustomerState | None:
    """The base with these events on it, oldest first; without a base the newest event has it all."""
    carried = [(one.event.customer, one.event.changed) for one in events if one.event.customer is not None]
    if base is None:
        return carried[-1][0] if carried else None
    return reduce(lambda state, one: apply_paths(state, *one), carried, base)


def new_id() -> str:
    """A new GUID (UUIDv7): ids made one after the other lie side by side in an index."""
    return str(uuid_utils.uuid7())


def _guid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        refuse([Reason(field=field, code="invalid_id", text="is no GUID such as 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f")])
        raise


def refuse(broken: Sequence[Reason]) -> None:
    """Do nothing without reasons. Raises: `CustomerRejected` with all of them."""
    if broken:
        raise CustomerRejected(broken)


def locked_customer(connection: Connection, customer_id: str) -> StoredCustomer:
    """The customer, locked until the transaction ends. Raises: `NoSuchCustomer`."""
    return _only(read_customers(connection, CHANNEL_TABLES, _ids(customer_id), for_update=True), customer_id)


def _only(found: Mapping[str, StoredCustomer], customer_id: str) -> StoredCustomer:
    for stored in found.values():
        return stored
    raise NoSuchCustomer(
        f"there is no customer {customer_id} in this channel: it was never here, was erased, or left its filter"
    )


def _ids(customer_id: str) -> list[str]:
    """The id in its normal form; nothing when it is none."""
    try:
        return [str(UUID(customer_id))]
    except ValueError:
        return []


def _view(connection: Connection, customer_id: str) -> CustomerView:
    stored = _only(read_customers(connection, CHANNEL_TABLES, _ids(customer_id)), customer_id)
    return _as_view(stored, outbox.summaries(connection, [stored.customer_id]).get(stored.customer_id))


def views(connection: Connection, customer_ids: Sequence[str]) -> list[CustomerView]:
    """These customers, those that exist, in the order of the ids given. Four statements."""
    found = read_customers(connection, CHANNEL_TABLES, customer_ids)
    standing = outbox.summaries(connection, found.keys())
    return [_as_view(found[one], standing.get(one)) for one in customer_ids if one in found]


def _as_view(stored: StoredCustomer, summary: OutboxSummary | None) -> CustomerView:
    return CustomerView(
        customer_id=stored.customer_id,
        account_number=stored.account_number,
        status=status_of(stored.account_number, summary),
        reasons=summary.reasons if summary is not None else (),
        unsettled=summary.unsettled if summary is not None else 0,
        version=stored.version,
        updated_at=stored.updated_at,
        state=stored.state,
    )


def status_of(account_number: str | None, summary: OutboxSummary | None) -> CustomerStatus:
    """Where a customer with this account number and this standing in the outbox is."""
    if summary is not None and summary.rejected:
        return CustomerStatus.REJECTED
    return CustomerStatus.PENDING if account_number is None else CustomerStatus.SYNCHRONIZED


class AlreadyThere(Exception):
    """Another process has written the same event at the same moment."""


@contextmanager
def writing(channel: OpenChannel) -> Iterator[Connection]:
    """One transaction of a clerk's own change: all of it or nothing, and loudly so.

    Raises: `DatabaseRefused`, and `DatabaseFull` of it, when the database does not take it.
    """
    try:
        with _refused_loudly(channel), channel.engine.begin() as connection:
            yield connection
            failpoint("customers.before_commit")
    except IntegrityError as error:
        raise AlreadyThere from error
    failpoint("customers.after_commit")


@contextmanager
def reading(channel: OpenChannel) -> Iterator[Connection]:
    """A connection for questions. Raises: `DatabaseRefused` when the database does not answer."""
    with _refused_loudly(channel), channel.reading() as connection:
        yield connection


@contextmanager
def _refused_loudly(channel: OpenChannel) -> Iterator[None]:
    """Turn what the database says into a sentence without the statement's parameters, which are personal data."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        if is_full(error):
            raise DatabaseFull(
                f"no space is left for the database of channel {channel.name}: nothing was written; make room"
            ) from error
        code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or "no connection"
        raise DatabaseRefused(
            f"the database of channel {channel.name} does not answer or refuses ({code}): nothing was written"
        ) from error
