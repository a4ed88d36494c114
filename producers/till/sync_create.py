"""Creating customers as the channel's settings have it: async, pending at once, or sync, waited for.

    with open_channel(load_settings(), "houston") as houston:
        ada = register_customer(houston, first_name="Ada", last_name="Lovelace")
        print(ada.display_number)                                     # C-00000001, or Pending sync

There is no second path to headquarters: a sync creation is the same event, sent the same way, and then a wait with a
limit for headquarters' answer. When the time is up or the line is down, the customer simply is what it was before:
pending, and the answer comes later.
"""

import sqlite3
import time
from threading import BoundedSemaphore
from typing import Final, Unpack

import psycopg
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from tenten.producers import outbox
from tenten.producers.till.customer_input import CustomerFields
from tenten.producers.till.customers import (
    CustomerStatus,
    CustomerView,
    create_customer,
    reading,
    show_customer,
    status_of,
)
from tenten.producers.till.open_channel import OpenChannel
from tenten.runtime.errors import DatabaseRefused, NoSuchCustomer
from tenten.schemas.tables.channel import customers
from tenten.sql.notifications import SETTLED_CHANNEL, CommitListener, listening

_LISTENERS_MAX: Final = 4
"""So many connections of a process wait to be told; the pool keeps the others for work, and who comes then polls."""

_LOOK_SECONDS_MAX: Final = 0.25
"""Who waits to be told looks this often all the same: a snapshot brings the number, too, and nobody tells of it."""

_POLL_SECONDS: Final = 0.005
_POLL_SECONDS_MAX: Final = 0.05

_listeners: Final = BoundedSemaphore(_LISTENERS_MAX)


def register_customer(
    channel: OpenChannel,
    *,
    customer_id: str | None = None,
    event_id: str | None = None,
    sync_seconds: float | None = None,
    **fields: Unpack[CustomerFields],
) -> CustomerView:
    """Create a customer by the channel's mode of creation: async returns at once, sync as soon as headquarters has
    answered, at the latest after the channel's `sync_seconds`, with the customer pending then.

    `sync_seconds` wins over the settings; 0 is async. Whatever happens while it waits, the customer is there, and the
    call can be repeated with the same `customer_id`: that writes nothing, and waits anew.

    Raises: as `create_customer`; nothing is written then.
    """
    created = create_customer(channel, customer_id=customer_id, event_id=event_id, **fields)
    seconds = _seconds_of(channel) if sync_seconds is None else sync_seconds
    if seconds <= 0:
        return created
    try:
        return _settled(channel, created, seconds)
    except (DatabaseRefused, NoSuchCustomer):
        # It is written, whatever a later look says: it cannot be refused any more. Gone is who left the channel's
        # filter, or was erased, within moments.
        return created


def _seconds_of(channel: OpenChannel) -> float:
    """How long the channel's mode has a new customer waited for."""
    settings = channel.settings.channel(channel.name)
    return settings.sync_seconds if settings.creation == "sync" else 0


def wait_until_settled(channel: OpenChannel, customer_id: str, timeout_seconds: float) -> CustomerView:
    """The customer as soon as it has its account number or a rejection, at the latest after this time, as it is then.

    Raises: `NoSuchCustomer`, `DatabaseRefused`.
    """
    return _settled(channel, show_customer(channel, customer_id), timeout_seconds)


def _settled(channel: OpenChannel, view: CustomerView, timeout_seconds: float) -> CustomerView:
    """The same, of a customer as it was a moment ago."""
    deadline = time.monotonic() + timeout_seconds
    if view.status is not CustomerStatus.PENDING or timeout_seconds <= 0:
        return view
    if _listeners.acquire(blocking=False):
        try:
            with listening(channel.engine, SETTLED_CHANNEL) as wake:
                _be_told(channel, view.customer_id, deadline, wake)
        except (SQLAlchemyError, psycopg.Error, sqlite3.Error):
            # No connection to listen on, or no longer. Whether the database is there at all, polling says.
            _poll(channel, view.customer_id, deadline)
        finally:
            _listeners.release()
    else:
        _poll(channel, view.customer_id, deadline)
    return show_customer(channel, view.customer_id)


def _be_told(channel: OpenChannel, customer_id: str, deadline: float, wake: CommitListener) -> None:
    """Return when there is an answer or the time is up; look whenever something was settled."""
    while (left_seconds := deadline - time.monotonic()) > 0 and _is_pending(channel, customer_id):
        wake.wait(min(left_seconds, _LOOK_SECONDS_MAX))


def _poll(channel: OpenChannel, customer_id: str, deadline: float) -> None:
    """The same, looking every 5 ms at first, later every 50."""
    pause_seconds = _POLL_SECONDS
    while (left_seconds := deadline - time.monotonic()) > 0 and _is_pending(channel, customer_id):
        time.sleep(min(pause_seconds, left_seconds))
        pause_seconds = min(pause_seconds * 1.05, _POLL_SECONDS_MAX)


def _is_pending(channel: OpenChannel, customer_id: str) -> bool:
    """Whether there is neither number nor rejection, in two statements; False as well for a customer who is gone."""
    with reading(channel) as connection:
        found = connection.execute(
            select(customers.c.account_number).where(customers.c.customer_id == customer_id)
        ).first()
        summary = outbox.summaries(connection, [customer_id]).get(customer_id)
        return found is not None and status_of(found.account_number, summary) is CustomerStatus.PENDING
