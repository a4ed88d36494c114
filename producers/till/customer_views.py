"""Customers as a channel shows them: the last snapshot with the channel's own unsettled edits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from sqlalchemy import Connection

from tenten.producers.outbox.customer_events import OutboxSummary, summaries
from tenten.producers.till.caller_fields import customer_reasons
from tenten.producers.till.database_session import reading
from tenten.producers.till.ids import normal_ids
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules.customer import display_name
from tenten.rules.reference import reference
from tenten.runtime.errors import NoSuchCustomer
from tenten.schemas.messages import CustomerState, Reason
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, read_customers

PENDING_SYNC: Final = "Pending sync"
"""Shown in place of the account number until it arrives; a clerk never sees the GUID."""


class CustomerStatus(StrEnum):
    """The synchronization status of a customer in a channel."""

    PENDING = "pending"
    SYNCHRONIZED = "synchronized"
    REJECTED = "rejected"
    HELD = "held"
    """Headquarters has the newest change and waits for its own settings or account numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerView:
    """A customer as the channel shows it: the last snapshot with this channel's own edits."""

    customer_id: str
    account_number: str | None
    status: CustomerStatus
    """Rejected when headquarters rejected the newest change, held while it cannot decide about it yet; else pending
    until the account number arrives.
    """
    reasons: tuple[Reason, ...]
    """Why headquarters rejected the newest change, or holds it; fields are named as in the input."""
    unsettled: int
    """The number of this channel's changes that headquarters has not settled."""
    version: int
    updated_at: datetime
    state: CustomerState

    @property
    def display_number(self) -> str:
        """The account number, or `Pending sync`."""
        return self.account_number or PENDING_SYNC

    @property
    def reference(self) -> str:
        """A short name for people while there is no account number: `K7-3QD`."""
        return reference(self.customer_id)

    @property
    def display_name(self) -> str:
        """The customer's name for display."""
        return display_name(self.state)

    @property
    def content_tag(self) -> str:
        """Equal as long as nobody changes the customer's fields; number, status and version do not count."""
        return tag_of(self.state)


def tag_of(state: CustomerState) -> str:
    """A short text that is equal for equal customers."""
    return blake2b(repr(state).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def show_customer(channel: OpenChannel, customer_id: str) -> CustomerView:
    """The customer as this channel shows it. Raises: `NoSuchCustomer`, `DatabaseRefused`."""
    with reading(channel) as connection:
        return read_view(connection, customer_id)


def read_view(connection: Connection, customer_id: str) -> CustomerView:
    """The view of one customer. Raises: `NoSuchCustomer`."""
    stored = _only(read_customers(connection, CHANNEL_TABLES, normal_ids(customer_id)), customer_id)
    return view_of(stored, summaries(connection, [stored.customer_id]).get(stored.customer_id))


def read_views(connection: Connection, customer_ids: Sequence[str]) -> list[CustomerView]:
    """The views of the customers that exist, in the order of the given ids. Four statements."""
    stored = read_customers(connection, CHANNEL_TABLES, customer_ids)
    unsettled = summaries(connection, stored.keys())
    return [
        view_of(stored[customer_id], unsettled.get(customer_id))
        for customer_id in customer_ids
        if customer_id in stored
    ]


def view_of(stored: StoredCustomer, summary: OutboxSummary | None) -> CustomerView:
    """The view of a stored customer with the summary of its unsettled events, None when everything is settled."""
    return CustomerView(
        customer_id=stored.customer_id,
        account_number=stored.account_number,
        status=status_of(stored.account_number, summary),
        reasons=customer_reasons(summary.reasons, stored.state) if summary is not None else (),
        unsettled=summary.unsettled if summary is not None else 0,
        version=stored.version,
        updated_at=stored.updated_at,
        state=stored.state,
    )


def status_of(account_number: str | None, summary: OutboxSummary | None) -> CustomerStatus:
    """The status of a customer with this account number and these unsettled events."""
    if summary is not None and summary.rejected:
        return CustomerStatus.REJECTED
    if summary is not None and summary.held:
        return CustomerStatus.HELD
    return CustomerStatus.PENDING if account_number is None else CustomerStatus.SYNCHRONIZED


def lock_customer(connection: Connection, customer_id: str) -> StoredCustomer:
    """The customer, locked until the transaction ends. Raises: `NoSuchCustomer`."""
    return _only(read_customers(connection, CHANNEL_TABLES, normal_ids(customer_id), for_update=True), customer_id)


def _only(stored: Mapping[str, StoredCustomer], customer_id: str) -> StoredCustomer:
    for customer in stored.values():
        return customer
    raise NoSuchCustomer(
        f"there is no customer {customer_id} in this channel: it never was in it, was erased, or left its filter"
    )
