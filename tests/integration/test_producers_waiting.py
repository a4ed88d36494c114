"""Sync creation: waiting for headquarters' reply, on PostgreSQL and SQLite."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from tenten.producers import CustomerStatus, create_customer, register_customer, wait_until_settled
from tenten.runtime.errors import NoSuchCustomer
from tests.conftest import NewDatabase
from tests.producer_scene import REASON, Store, set_store
from tests.waiting import wait_for

GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"


def test_waiting_ends_when_the_account_number_arrives(store: Store) -> None:
    """Long before the timeout."""
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
    """The clerk reads at once that headquarters has rejected the customer, and why."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    store.reject(store.events()[0].event_id)
    # when
    seen = wait_until_settled(store.channel, ada.customer_id, 60)
    # then
    assert (seen.status, seen.reasons) == (CustomerStatus.REJECTED, (REASON,))


def test_customer_is_pending_after_the_timeout(store: Store) -> None:
    """The same event stays in the outbox, so there is no second customer."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    started = time.monotonic()
    # when
    seen = wait_until_settled(store.channel, ada.customer_id, 0.3)
    # then
    assert seen == ada
    assert 0.3 <= time.monotonic() - started < 20


def test_waiting_for_an_unknown_customer_raises(store: Store) -> None:
    """It would never be settled."""
    with pytest.raises(NoSuchCustomer):
        wait_until_settled(store.channel, GUID, 60)


def test_waiters_beyond_listener_limit_poll(store: Store) -> None:
    """A process listens on a few connections only; other waiters get the reply as well."""
    # given
    people = [create_customer(store.channel, last_name=f"Lovelace {number}").customer_id for number in range(12)]
    # when
    with ThreadPoolExecutor(len(people)) as clerks:
        waiting = [clerks.submit(wait_until_settled, store.channel, customer_id, 60) for customer_id in people]
        for number, customer_id in enumerate(people):
            store.synchronize(customer_id, f"C-{number}")
        seen = [future.result(timeout=30).account_number for future in waiting]
    # then
    assert seen == [f"C-{number}" for number in range(12)]


def test_waiting_returns_its_connections_to_the_pool(store: Store) -> None:
    """They listen to nothing any more."""
    # when
    for number in range(30):
        register_customer(store.channel, last_name=f"Lovelace {number}", sync_seconds=0.001)
    # then
    assert store.channel.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a pool with a queue has it
    if store.channel.engine.dialect.name == "postgresql":
        with store.channel.reading() as connection:
            assert connection.scalars(text("SELECT pg_listening_channels()")).all() == []


def test_waiting_survives_a_lost_listening_connection(tmp_path: Path, new_database: NewDatabase) -> None:
    """Without notifications it polls."""
    url = new_database()
    with set_store(tmp_path, url) as store, ThreadPoolExecutor(1) as clerk:
        # given
        ada = create_customer(store.channel, last_name="Lovelace")
        waiting = clerk.submit(wait_until_settled, store.channel, ada.customer_id, 60)
        # when
        wait_for(lambda: cut_listeners(url) > 0, "the clerk to listen")
        store.synchronize(ada.customer_id, "C-00000001")
        # then
        assert waiting.result(timeout=30).account_number == "C-00000001"


def test_recorded_customer_is_returned_when_the_database_disappears(tmp_path: Path, new_database: NewDatabase) -> None:
    """The database disappears while a sync creation waits: the call returns a pending customer and raises no error."""
    url = new_database()
    with set_store(tmp_path, url) as store, ThreadPoolExecutor(1) as clerk:
        # given
        name = store.channel.engine.url.database
        waiting = clerk.submit(register_customer, store.channel, last_name="Lovelace", sync_seconds=60)
        wait_for(lambda: listeners(url) > 0, "the clerk to listen")
        # when
        with psycopg.connect(url.replace(f"/{name}", "/postgres"), autocommit=True) as server:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        # then
        assert waiting.result(timeout=30).status is CustomerStatus.PENDING


LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"


def listeners(url: str) -> int:
    """The number of connections whose last statement was LISTEN."""
    with psycopg.connect(url) as connection:
        return len(connection.execute(f"SELECT pid {LISTENERS}".encode()).fetchall())


def cut_listeners(url: str) -> int:
    """Terminate these connections and return their number."""
    with psycopg.connect(url) as connection:
        return len(connection.execute(f"SELECT pg_terminate_backend(pid) {LISTENERS}".encode()).fetchall())
