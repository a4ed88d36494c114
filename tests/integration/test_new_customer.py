"""A new customer is written with few statements, and the rows are those of the general path."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import delete

from tenten.producers import CustomerStatus, create_customer, show_customer
from tenten.producers.till import customer_change
from tenten.producers.till.customers import new_id
from tenten.producers.till.new_customer import write_new_customer
from tenten.runtime.errors import NoSuchCustomer
from tenten.schemas.messages import CustomerState
from tenten.schemas.tables import channel
from tests.conftest import NewDatabase
from tests.customers import valid_states
from tests.producer_scene import HOUSTON, Store, set_store

TABLES = (
    channel.customers,
    channel.customer_addresses,
    channel.customer_contacts,
    channel.outbox,
    channel.outbox_queue,
    channel.snapshots,
)


@pytest.fixture
def store(channel_url: str, tmp_path: Path) -> Iterator[Store]:
    """A channel on each of the two databases."""
    with set_store(tmp_path, channel_url) as scene:
        yield scene


def test_rows_are_those_of_the_general_path(store: Store) -> None:
    """Whatever the customer has: every column of every table."""

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(valid_states())
    def check(state: CustomerState) -> None:
        now = datetime.now(UTC)
        change = customer_change.created(
            channel_id=HOUSTON, customer_id=new_id(), event_id=new_id(), operator="Kim", state=state, now=now
        )
        write_new_customer(store.channel, change, now)
        found = taken_out(store)
        with store.channel.engine.begin() as connection:
            customer_change.write(connection, [change], now)
        assert found == taken_out(store)
        assert len(found["outbox_queue"]) == len(found["customers"]) == 1

    check()


def taken_out(store: Store) -> dict[str, list[list[str]]]:
    """The rows of every table, without sequences, as the driver returns them; they are deleted."""
    found = {}
    with store.channel.engine.begin() as connection:
        for table in TABLES:
            rows = connection.exec_driver_sql(f"SELECT * FROM {table.name}").mappings()  # noqa: S608 - our own names
            found[table.name] = sorted([str(row[name]) for name in row if name != "sequence"] for row in rows)
            connection.execute(delete(table))
    return found


def test_new_customer_is_one_round_trip_on_postgresql(new_database: NewDatabase, tmp_path: Path) -> None:
    """Neither a check of the connection nor BEGIN and COMMIT are sent: one request with its answer."""
    with set_store(tmp_path, new_database()) as store:
        # given
        for number in range(2):
            create_customer(store.channel, last_name=f"Lovelace {number}")
        # when
        with (tmp_path / "trace").open("w+") as trace, traced(store, trace):
            create_customer(store.channel, last_name="Lovelace")
            create_customer(store.channel, last_name="Byron")
        # then
        messages = [line.split("\t")[3] for line in (tmp_path / "trace").read_text().splitlines() if "\tF\t" in line]
    assert messages == ["Bind", "Describe", "Execute", "Sync"] * 2


@contextmanager
def traced(store: Store, trace: TextIO) -> Iterator[None]:
    """Write the messages of the only pooled connection to a file."""
    pooled = store.channel.engine.raw_connection()
    connection: Any = pooled.driver_connection
    pooled.close()
    connection.pgconn.trace(trace.fileno())
    try:
        yield
    finally:
        connection.pgconn.untrace()


def test_repeated_ids_write_nothing(store: Store) -> None:
    """Neither the same customer again, nor the same event for another customer."""
    # given
    ada = create_customer(store.channel, customer_id=new_id(), event_id=new_id(), last_name="Lovelace")
    [written] = store.events()
    before = store.counts()
    # when
    again = create_customer(store.channel, customer_id=ada.customer_id, last_name="Byron")
    with pytest.raises(NoSuchCustomer):
        create_customer(store.channel, customer_id=new_id(), event_id=written.event_id, last_name="Byron")
    # then
    assert again == show_customer(store.channel, ada.customer_id)
    assert (again.state.last_name, again.status) == ("Lovelace", CustomerStatus.PENDING)
    assert store.counts() == before


def test_customer_is_created_on_another_connection_after_a_break(store: Store) -> None:
    """The server has ended the pooled connection: the till's next customer is created all the same."""
    if store.channel.engine.dialect.name == "sqlite":
        return
    # given
    create_customer(store.channel, last_name="Lovelace")
    with psycopg.connect(store.channel.engine.url.set(drivername="postgresql").render_as_string(False)) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    # when
    create_customer(store.channel, last_name="Byron")
    # then
    assert store.counts()["customers"] == store.counts()["outbox"] == 2


def test_connection_that_breaks_meanwhile_leaves_one_customer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement is sent once more on another connection, although it may have been committed."""
    if store.channel.engine.dialect.name == "sqlite":
        return
    # given
    monkeypatch.setattr("tenten.sql.engine.has_input", lambda _: False)
    create_customer(store.channel, last_name="Lovelace")
    with psycopg.connect(store.channel.engine.url.set(drivername="postgresql").render_as_string(False)) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    # when
    create_customer(store.channel, last_name="Byron")
    # then
    assert store.counts()["customers"] == store.counts()["outbox"] == 2
