"""Create customers in the channel's creation mode: async returns a pending customer, sync waits for headquarters.

    with open_channel(load_settings(), "houston") as houston:
        ada = register_customer(houston, first_name="Ada", last_name="Lovelace")
        print(ada.display_number)                                     # C-00000001, or Pending sync

Both modes send the same event over the same path; a sync creation then waits for headquarters' reply, for a limited
time. After a timeout, or while the connection is down, the customer is pending, and the reply arrives later.
"""

import sqlite3
import time
from threading import BoundedSemaphore
from typing import Final, Unpack

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from tenten.producers.outbox.customer_events import summaries
from tenten.producers.till.customer_input import CustomerFields
from tenten.producers.till.customer_views import CustomerStatus, CustomerView, show_customer, status_of
from tenten.producers.till.customers import create_customer
from tenten.producers.till.database_session import reading
from tenten.producers.till.open_channel import OpenChannel
from tenten.runtime.errors import DatabaseRefused, NoSuchCustomer
from tenten.schemas.tables.channel import customers
from tenten.sql.notifications import SETTLED_CHANNEL, CommitListener, listening
from tenten.sql.postgresql_driver import driver_error

_LISTENERS_MAX: Final = 4
"""At most four connections per process listen for notifications; further waiters poll."""

_CHECK_SECONDS_MAX: Final = 0.25
"""Listeners also poll at this interval, because a number that arrives in a snapshot sends no notification."""

_POLL_SECONDS: Final = 0.005
_POLL_SECONDS_MAX: Final = 0.05

_listeners: Final = BoundedSemaphore(_LISTENERS_MAX)


def register_customer(
    channel: OpenChannel,
    *,
    customer_id: str | None = None,
    event_id: str | None = None,
    operator: str | None = None,
    sync_seconds: float | None = None,
    **fields: Unpack[CustomerFields],
) -> CustomerView:
    """Create a customer in the channel's creation mode: async returns at once, sync when headquarters has replied, or
    after the channel's `sync_seconds` with a pending customer.

    `sync_seconds` overrides the settings; 0 is async. The customer exists even if waiting fails, and the call can be
    repeated with the same `customer_id`: that writes nothing, and waits again.

    Raises: as `create_customer`; nothing is written then.
    """
    created = create_customer(channel, customer_id=customer_id, event_id=event_id, operator=operator, **fields)
    seconds = sync_seconds_of(channel) if sync_seconds is None else sync_seconds
    if seconds <= 0:
        return created
    try:
        return _settled(channel, created, seconds)
    except (DatabaseRefused, NoSuchCustomer):
        # The customer is recorded, so a failed later read must not look like a failed creation. A customer is not found
        # when it was erased, or left the channel's filter, within moments.
        return created


def sync_seconds_of(channel: OpenChannel) -> float:
    """How long to wait for a new customer in the channel's creation mode."""
    settings = channel.settings.channel(channel.name)
    return settings.sync_seconds if settings.creation == "sync" else 0


def wait_until_settled(channel: OpenChannel, customer_id: str, timeout_seconds: float) -> CustomerView:
    """Wait until the customer has its account number or a rejection, at most this long, and return its current state.

    Raises: `NoSuchCustomer`, `DatabaseRefused`.
    """
    return _settled(channel, show_customer(channel, customer_id), timeout_seconds)


def _settled(channel: OpenChannel, view: CustomerView, timeout_seconds: float) -> CustomerView:
    """`wait_until_settled` for a view that was just read."""
    deadline = time.monotonic() + timeout_seconds
    if view.status is not CustomerStatus.PENDING or timeout_seconds <= 0:
        return view
    if _listeners.acquire(blocking=False):
        try:
            with listening(channel.engine, SETTLED_CHANNEL) as wake:
                _listen(channel, view.customer_id, deadline, wake)
        except (SQLAlchemyError, sqlite3.Error, driver_error()):
            # The listening connection failed; polling raises if the database is not available at all.
            _poll(channel, view.customer_id, deadline)
        finally:
            _listeners.release()
    else:
        _poll(channel, view.customer_id, deadline)
    return show_customer(channel, view.customer_id)


def _listen(channel: OpenChannel, customer_id: str, deadline: float, wake: CommitListener) -> None:
    """Return when the customer is settled or at the deadline; check after each notification."""
    while (left_seconds := deadline - time.monotonic()) > 0 and _is_pending(channel, customer_id):
        wake.wait(min(left_seconds, _CHECK_SECONDS_MAX))


def _poll(channel: OpenChannel, customer_id: str, deadline: float) -> None:
    """Return when the customer is settled or at the deadline; check every 5 ms at first, later every 50 ms."""
    pause_seconds = _POLL_SECONDS
    while (left_seconds := deadline - time.monotonic()) > 0 and _is_pending(channel, customer_id):
        time.sleep(min(pause_seconds, left_seconds))
        pause_seconds = min(pause_seconds * 1.05, _POLL_SECONDS_MAX)


def _is_pending(channel: OpenChannel, customer_id: str) -> bool:
    """True if the customer exists, without a number or a rejection. Two statements."""
    with reading(channel) as connection:
        row = connection.execute(
            select(customers.c.account_number).where(customers.c.customer_id == customer_id)
        ).first()
        summary = summaries(connection, [customer_id]).get(customer_id)
        return row is not None and status_of(row.account_number, summary) is CustomerStatus.PENDING
