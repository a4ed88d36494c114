"""Sync creation: wait for headquarters' answer to what is already on its way.

There is no second path to headquarters. When the time is up or the line is down, the customer simply is what it was
before: pending, and the answer comes later.
"""

import time
from typing import Final

from sqlalchemy import select

from producers import outbox
from producers.channel import OpenChannel
from producers.customers import CustomerStatus, CustomerView, reading, show_customer, status_of
from schemas.channel import customers

_POLL_SECONDS: Final = 0.005
_POLL_SECONDS_MAX: Final = 0.05


def wait_until_settled(channel: OpenChannel, customer_id: str, timeout_seconds: float) -> CustomerView:
    """The customer as soon as it has its account number or a rejection, at the latest after this time, as it is then.

    Asks the channel's database, at first every 5 ms, later every 50. Raises: `NoSuchCustomer`, `DatabaseRefused`.
    """
    deadline = time.monotonic() + timeout_seconds
    view = show_customer(channel, customer_id)
    pause_seconds = _POLL_SECONDS
    while _is_pending(channel, view.customer_id) and (left_seconds := deadline - time.monotonic()) > 0:
        time.sleep(min(pause_seconds, left_seconds))
        pause_seconds = min(pause_seconds * 1.05, _POLL_SECONDS_MAX)
    return show_customer(channel, customer_id)


def _is_pending(channel: OpenChannel, customer_id: str) -> bool:
    """Whether there is neither number nor rejection, in two statements; False as well for a customer who is gone."""
    with reading(channel) as connection:
        found = connection.execute(
            select(customers.c.account_number).where(customers.c.customer_id == customer_id)
        ).first()
        summary = outbox.summaries(connection, [customer_id]).get(customer_id)
        return found is not None and status_of(found.account_number, summary) is CustomerStatus.PENDING
