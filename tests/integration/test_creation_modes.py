"""Async and sync creation end to end, with real relay, headquarters and settlement, on PostgreSQL and SQLite."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import ColumnElement, func, select

from tenten.producers import CustomerStatus, CustomerView, OpenChannel, register_customer, show_customer
from tenten.producers.outbox.table import queue_again
from tenten.producers.till.customers import new_id
from tenten.schemas.tables import channel
from tests.conftest import NewDatabase
from tests.flow_scene import HOUSTON, PARTS, Flow, rows, set_flow
from tests.scenes import DEADLINE_SECONDS
from tests.waiting import wait_for

DROPPED = 100
"""The number of late replies."""

TILLS = 4


@pytest.fixture(params=["postgresql", "sqlite"])
def flow(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    bootstrap_servers: str,
    prefix: str,
    new_database: NewDatabase,
) -> Flow:
    """Headquarters, and the channel houston on each of the two databases."""
    return set_flow(tmp_path, bootstrap_servers, prefix, new_database, request.param)


def ada(opened: OpenChannel, *, customer_id: str | None = None, sync_seconds: float | None = None) -> CustomerView:
    """A new customer, by default in the channel's creation mode."""
    return register_customer(
        opened, customer_id=customer_id, sync_seconds=sync_seconds, first_name="Ada", last_name="Lovelace"
    )


def test_async_creation_returns_immediately(flow: Flow) -> None:
    """The customer is pending at once, however long a sync creation would wait."""
    with flow.with_channel(HOUSTON, creation="async", sync_seconds=3600).opened() as houston:
        assert ada(houston).status is CustomerStatus.PENDING
        assert len(rows(houston, channel.outbox)) == 1


def test_sync_creation_returns_the_account_number(flow: Flow) -> None:
    """With all processes running, the returned customer has its number."""
    flow = flow.with_channel(HOUSTON, creation="sync", sync_seconds=DEADLINE_SECONDS)
    with flow.opened() as houston, flow.scene.headquarters(), flow.running(*PARTS):
        made = ada(houston)
    assert (made.status, made.account_number) == (CustomerStatus.SYNCHRONIZED, "C-00000001")


def test_sync_seconds_override_the_mode_of_the_channel(flow: Flow) -> None:
    """In an async channel a creation can wait, and in a sync channel it can return at once."""
    with flow.opened() as houston, flow.scene.headquarters(), flow.running(*PARTS):
        assert ada(houston, sync_seconds=DEADLINE_SECONDS).status is CustomerStatus.SYNCHRONIZED
    with flow.with_channel(HOUSTON, creation="sync", sync_seconds=3600).opened() as houston:
        assert ada(houston, sync_seconds=0).status is CustomerStatus.PENDING


def test_sync_creation_returns_at_once_when_headquarters_holds_the_customer(flow: Flow) -> None:
    """Headquarters has no account number left: the customer is held, with the reason, and nobody waits for it."""
    # given
    flow.scene.query("UPDATE number_sequences SET next = 100000000 WHERE legal_entity = 'usrt'")
    # when
    with flow.opened() as houston, flow.scene.headquarters(), flow.running(*PARTS):
        made = ada(houston, sync_seconds=DEADLINE_SECONDS)
    # then
    assert (made.status, made.account_number) == (CustomerStatus.HELD, None)
    assert [reason.code for reason in made.reasons] == ["number_sequence_used_up"]


def test_sync_creation_is_async_while_disconnected(flow: Flow) -> None:
    """Without any process running, the customer is pending after the timeout; it gets its number after reconnecting."""
    flow = flow.with_channel(HOUSTON, creation="sync", sync_seconds=0.2)
    with flow.opened() as houston:
        # given
        made = ada(houston)
        assert made.status is CustomerStatus.PENDING
        # when
        with flow.scene.headquarters(), flow.running(*PARTS):
            healed = ada(houston, customer_id=made.customer_id, sync_seconds=DEADLINE_SECONDS)
        # then
        assert (healed.customer_id, healed.account_number) == (made.customer_id, "C-00000001")
        assert len(rows(houston, channel.outbox)) == len(rows(houston, channel.customers)) == 1


def test_late_replies_create_no_second_customer(flow: Flow) -> None:
    """Many sync creations time out although headquarters has created the customers, and the tills repeat all
    calls: as many customers with consecutive numbers.
    """
    customer_ids = [new_id() for _ in range(DROPPED)]
    with flow.opened() as houston, flow.scene.headquarters(), ThreadPoolExecutor(TILLS) as tills:

        def registered() -> list[CustomerView]:
            return list(
                tills.map(lambda customer_id: ada(houston, customer_id=customer_id, sync_seconds=0.005), customer_ids)
            )

        with flow.running("relay"):
            # given: settlement does not run, so each reply is too late for the call that waits for it
            first = registered()
            wait_for(lambda: len(at_headquarters(flow)) == DROPPED, "headquarters to have all customers")
            # when: every till repeats its call after headquarters has committed
            again = registered()
            # and all rows are sent twice, as after a lost acknowledgement
            wait_for(lambda: unsent(houston) == 0, "everything to be sent")
            with houston.engine.begin() as connection:
                queue_again(connection, [row["sequence"] for row in rows(houston, channel.outbox)])
            wait_for(lambda: repeated_at_headquarters(flow) == DROPPED, "headquarters to have every event twice")
        # then: each till sees a pending customer, and nothing was written twice
        assert {view.status for view in first + again} == {CustomerStatus.PENDING}
        assert [view.customer_id for view in again] == customer_ids
        assert {row["customer_id"] for row in rows(houston, channel.customers)} == set(customer_ids)
        assert len(rows(houston, channel.outbox)) == DROPPED
        # when the replies arrive
        with flow.running("settlement"):
            wait_for(lambda: unsettled(houston) == 0, "the replies")
        # then
        assert numbers_in(houston) == numbers_at_headquarters(flow) == NUMBERS
        assert {row["outcome"] for row in rows(houston, channel.outbox)} == {"synchronized"}
        assert show_customer(houston, customer_ids[0]).unsettled == 0
    assert {row["customer_id"] for row in at_headquarters(flow)} == set(customer_ids)


NUMBERS = [f"C-{number:08d}" for number in range(1, DROPPED + 1)]


def at_headquarters(flow: Flow) -> list[dict[str, str]]:
    """All customers at headquarters."""
    return flow.scene.query("SELECT customer_id::text, account_number FROM customers ORDER BY account_number")


def numbers_at_headquarters(flow: Flow) -> list[str]:
    """Their account numbers, in order."""
    return [row["account_number"] for row in at_headquarters(flow)]


def numbers_in(houston: OpenChannel) -> list[str]:
    """The account numbers of the channel's customers, in order, without pending customers."""
    return sorted(row["account_number"] for row in rows(houston, channel.customers) if row["account_number"])


def repeated_at_headquarters(flow: Flow) -> int:
    """The number of events that headquarters has read more than once."""
    [row] = flow.scene.query("SELECT count(*) AS events FROM synchronization_log WHERE repeats > 0")
    return int(row["events"])


def unsent(houston: OpenChannel) -> int:
    """The number of outbox rows that are still to be sent."""
    return len(rows(houston, channel.outbox_queue))


def unsettled(houston: OpenChannel) -> int:
    """The number of outbox rows without a reply."""
    return _count(houston, channel.outbox.c.settled_at.is_(None))


def _count(houston: OpenChannel, condition: ColumnElement[bool]) -> int:
    with houston.reading() as connection:
        return connection.scalar(select(func.count()).select_from(channel.outbox).where(condition)) or 0
