"""Async and sync creation, the whole way: real relay, real headquarters, real settlement, on PostgreSQL and SQLite."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import ColumnElement, func, select

from tenten.producers import CustomerStatus, CustomerView, OpenChannel, outbox, show_customer
from tenten.producers.till.customers import new_id
from tenten.producers.till.sync_create import register_customer
from tenten.schemas.tables import channel
from tests.conftest import NewDatabase
from tests.flow_scene import HOUSTON, PARTS, Flow, rows, set_flow
from tests.scenes import DEADLINE_SECONDS, wait_for

DROPPED = 1_000
"""So many answers come too late."""

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
    """A new customer by the channel's mode, unless told otherwise."""
    return register_customer(
        opened, customer_id=customer_id, sync_seconds=sync_seconds, first_name="Ada", last_name="Lovelace"
    )


def test_async_creation_waits_for_nothing(flow: Flow) -> None:
    """The customer is pending and there at once, however long a sync creation would wait."""
    with flow.with_channel(HOUSTON, creation="async", sync_seconds=3600).opened() as houston:
        assert ada(houston).status is CustomerStatus.PENDING
        assert len(rows(houston, channel.outbox)) == 1


def test_sync_creation_gives_the_account_number(flow: Flow) -> None:
    """With everything running the clerk reads the number in the answer itself."""
    flow = flow.with_channel(HOUSTON, creation="sync", sync_seconds=DEADLINE_SECONDS)
    with flow.opened() as houston, flow.scene.headquarters(), flow.running(*PARTS):
        made = ada(houston)
    assert (made.status, made.account_number) == (CustomerStatus.SYNCHRONIZED, "C-00000001")


def test_said_seconds_win_over_the_mode_of_the_channel(flow: Flow) -> None:
    """In an async channel one customer can be waited for, and in a sync channel one need not be."""
    with flow.opened() as houston, flow.scene.headquarters(), flow.running(*PARTS):
        assert ada(houston, sync_seconds=DEADLINE_SECONDS).status is CustomerStatus.SYNCHRONIZED
    with flow.with_channel(HOUSTON, creation="sync", sync_seconds=3600).opened() as houston:
        assert ada(houston, sync_seconds=0).status is CustomerStatus.PENDING


def test_sync_creation_gives_a_rejection_with_its_reasons(flow: Flow) -> None:
    """Where headquarters says no, here because its numbers are used up, the clerk is told at once."""
    # given
    flow.scene.query("UPDATE number_sequences SET next = 100000000 WHERE legal_entity = 'usrt'")
    # when
    with flow.opened() as houston, flow.scene.headquarters(), flow.running(*PARTS):
        made = ada(houston, sync_seconds=DEADLINE_SECONDS)
    # then
    assert (made.status, made.account_number) == (CustomerStatus.REJECTED, None)
    assert [reason.code for reason in made.reasons] == ["number_sequence_used_up"]


def test_with_the_line_down_a_sync_customer_is_async_and_heals(flow: Flow) -> None:
    """Nothing runs: the customer is pending when the time is up, and has its number once the line is back."""
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


def test_answers_that_come_too_late_make_no_second_customer(flow: Flow) -> None:
    """A thousand sync creations time out though headquarters has made the customer, and the tills say all of it once
    more: a thousand customers, a thousand numbers without a gap.
    """
    customer_ids = [new_id() for _ in range(DROPPED)]
    with flow.opened() as houston, flow.scene.headquarters(), ThreadPoolExecutor(TILLS) as tills:

        def registered() -> list[CustomerView]:
            return list(tills.map(lambda one: ada(houston, customer_id=one, sync_seconds=0.005), customer_ids))

        with flow.running("relay"):
            # given: nothing settles, so each answer is lost to the call that waits for it
            first = registered()
            wait_for(lambda: len(at_headquarters(flow)) == DROPPED, "headquarters to have them all")
            # when: headquarters has committed, and every till tries again
            again = registered()
            # and what was sent may be sent twice, as after any lost acknowledgement
            wait_for(lambda: unsent(houston) == 0, "everything to be marked as sent")
            with houston.engine.begin() as connection:
                outbox.mark_unsent(connection, [row["sequence"] for row in rows(houston, channel.outbox)])
            wait_for(lambda: repeated_at_headquarters(flow) == DROPPED, "headquarters to have everything twice")
        # then: to each till the customer is pending, and nothing was written twice
        assert {view.status for view in first + again} == {CustomerStatus.PENDING}
        assert [view.customer_id for view in again] == customer_ids
        assert {row["customer_id"] for row in rows(houston, channel.customers)} == set(customer_ids)
        assert len(rows(houston, channel.outbox)) == DROPPED
        # when the answers come at last
        with flow.running("settlement"):
            wait_for(lambda: unsettled(houston) == 0, "the answers")
        # then
        assert numbers_in(houston) == numbers_at_headquarters(flow) == NUMBERS
        assert {row["outcome"] for row in rows(houston, channel.outbox)} == {"synchronized"}
        assert show_customer(houston, customer_ids[0]).unsettled == 0
    assert {row["customer_id"] for row in at_headquarters(flow)} == set(customer_ids)


NUMBERS = [f"C-{number:08d}" for number in range(1, DROPPED + 1)]


def at_headquarters(flow: Flow) -> list[dict[str, str]]:
    """Every customer that headquarters has."""
    return flow.scene.query("SELECT customer_id::text, account_number FROM customers ORDER BY account_number")


def numbers_at_headquarters(flow: Flow) -> list[str]:
    """Their account numbers, in order."""
    return [row["account_number"] for row in at_headquarters(flow)]


def numbers_in(houston: OpenChannel) -> list[str]:
    """The account numbers that the channel's customers have, in order; the pending ones are left out."""
    return sorted(row["account_number"] for row in rows(houston, channel.customers) if row["account_number"])


def repeated_at_headquarters(flow: Flow) -> int:
    """How many events headquarters has read more than once."""
    [row] = flow.scene.query("SELECT count(*) AS events FROM synchronization_log WHERE repeats > 0")
    return int(row["events"])


def unsent(houston: OpenChannel) -> int:
    """How many rows of the outbox the relay has not marked as sent."""
    return _count(houston, channel.outbox.c.sent_at.is_(None))


def unsettled(houston: OpenChannel) -> int:
    """How many rows of the outbox have no answer."""
    return _count(houston, channel.outbox.c.settled_at.is_(None))


def _count(houston: OpenChannel, condition: ColumnElement[bool]) -> int:
    with houston.reading() as connection:
        return connection.scalar(select(func.count()).select_from(channel.outbox).where(condition)) or 0
