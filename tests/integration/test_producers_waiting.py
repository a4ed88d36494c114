"""Sync creation: waiting for headquarters' answer, on PostgreSQL and SQLite."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from tenten.producers import CustomerStatus, create_customer, wait_until_settled
from tenten.producers.till.sync_create import register_customer
from tenten.runtime.errors import NoSuchCustomer
from tests.conftest import NewDatabase
from tests.producer_scene import REASON, Store, set_store, wait_until

GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"


@pytest.fixture(params=["postgresql", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A channel on each of the two databases."""
    url = (
        request.getfixturevalue("new_database")("channel") if request.param == "postgresql" else "sqlite:///houston.db"
    )
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


def test_more_may_wait_than_can_be_told(store: Store) -> None:
    """A process listens on a few connections only; everybody else has the answer as well."""
    # given
    people = [create_customer(store.channel, last_name=f"Lovelace {number}").customer_id for number in range(12)]
    # when
    with ThreadPoolExecutor(len(people)) as clerks:
        waiting = [clerks.submit(wait_until_settled, store.channel, one, 60) for one in people]
        for number, one in enumerate(people):
            store.synchronize(one, f"C-{number}")
        seen = [one.result(timeout=30).account_number for one in waiting]
    # then
    assert seen == [f"C-{number}" for number in range(12)]


def test_a_clerk_who_waits_takes_no_connection_from_the_others(store: Store) -> None:
    """What waiting has used serves others again, and is told of nothing any more."""
    # when
    for number in range(30):
        register_customer(store.channel, last_name=f"Lovelace {number}", sync_seconds=0.001)
    # then
    assert store.channel.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a pool with a queue has it
    if store.channel.engine.dialect.name == "postgresql":
        with store.channel.reading() as connection:
            assert connection.scalars(text("SELECT pg_listening_channels()")).all() == []


def test_a_lost_connection_ends_no_waiting(tmp_path: Path, new_database: NewDatabase) -> None:
    """Who can no longer be told looks by himself."""
    url = new_database()
    with set_store(tmp_path, url) as store, ThreadPoolExecutor(1) as clerk:
        # given
        ada = create_customer(store.channel, last_name="Lovelace")
        waiting = clerk.submit(wait_until_settled, store.channel, ada.customer_id, 60)
        # when
        wait_until(lambda: cut_listeners(url) > 0, "the clerk to listen")
        store.synchronize(ada.customer_id, "C-00000001")
        # then
        assert waiting.result(timeout=30).account_number == "C-00000001"


def test_a_customer_that_is_written_is_never_refused(tmp_path: Path, new_database: NewDatabase) -> None:
    """The database goes away while a sync creation waits: the clerk has a pending customer, and no error."""
    url = new_database()
    with set_store(tmp_path, url) as store, ThreadPoolExecutor(1) as clerk:
        # given
        name = store.channel.engine.url.database
        waiting = clerk.submit(register_customer, store.channel, last_name="Lovelace", sync_seconds=60)
        wait_until(lambda: listeners(url) > 0, "the clerk to listen")
        # when
        with psycopg.connect(url.replace(f"/{name}", "/postgres"), autocommit=True) as server:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        # then
        assert waiting.result(timeout=30).status is CustomerStatus.PENDING


LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"


def listeners(url: str) -> int:
    """How many connections listen and have done nothing since."""
    with psycopg.connect(url) as connection:
        return len(connection.execute(f"SELECT pid {LISTENERS}".encode()).fetchall())


def cut_listeners(url: str) -> int:
    """End these connections; how many there were."""
    with psycopg.connect(url) as connection:
        return len(connection.execute(f"SELECT pg_terminate_backend(pid) {LISTENERS}".encode()).fetchall())
