"""Sync creation: waiting for headquarters' answer, on PostgreSQL and SQLite."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from commerce.failures import NoSuchCustomer
from producers import CustomerStatus, create_customer, wait_until_settled
from tests.producer_scene import REASON, Store, set_store

GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"


@pytest.fixture(params=["postgresql", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A channel on each of the two databases."""
    url = request.getfixturevalue("new_database")() if request.param == "postgresql" else "sqlite:///houston.db"
    with set_store(tmp_path, url) as made:
        yield made


def test_waiting_ends_as_soon_as_the_account_number_is_there(store: Store) -> None:
    """The answer is not waited for a moment longer than it takes."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    # when
    with ThreadPoolExecutor(1) as clerk:
        waiting = clerk.submit(wait_until_settled, store.channel, ada.customer_id, 60)
        store.synchronize(ada.customer_id, "C-00000001")
        seen = waiting.result(timeout=30)
    # then
    assert (seen.status, seen.account_number) == (CustomerStatus.SYNCHRONIZED, "C-00000001")


def test_waiting_ends_with_a_rejection(store: Store) -> None:
    """The clerk learns at once that headquarters has said no, and why."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    store.reject(store.events()[0].event_id)
    # when
    seen = wait_until_settled(store.channel, ada.customer_id, 60)
    # then
    assert (seen.status, seen.reasons) == (CustomerStatus.REJECTED, (REASON,))


def test_when_the_time_is_up_the_customer_is_simply_pending(store: Store) -> None:
    """There is no second path to headquarters, and so no second customer."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    started = time.monotonic()
    # when
    seen = wait_until_settled(store.channel, ada.customer_id, 0.3)
    # then
    assert seen == ada
    assert 0.3 <= time.monotonic() - started < 20


def test_waiting_for_a_customer_that_is_not_there_is_refused(store: Store) -> None:
    """Nothing would ever come."""
    with pytest.raises(NoSuchCustomer):
        wait_until_settled(store.channel, GUID, 60)
