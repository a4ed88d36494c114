"""Changes that were never sent become part of the customer's next change. On PostgreSQL and SQLite."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tenten.producers import (
    Item,
    NewAddress,
    create_customer,
    discard_rejected,
    edit_customer,
    record_order,
    show_customer,
)
from tenten.producers.outbox.queue import RESERVED_AHEAD, OutboxQueue
from tenten.schemas.messages import EventKind, SupersededEvent
from tenten.schemas.tables import channel
from tests.producer_scene import Store, decoded, event_ids, set_store

GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
TEA = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))


@pytest.fixture
def store(channel_url: str, tmp_path: Path, bootstrap_servers: str, prefix: str) -> Iterator[Store]:
    """A channel on each of the two databases, with topics of its own, whose relay has never run."""
    with set_store(tmp_path, channel_url, bootstrap_servers=bootstrap_servers, prefix=prefix) as scene:
        scene.reserve(to=0)
        yield scene


def test_unsent_edits_become_part_of_the_create(store: Store) -> None:
    """One event is left, which creates the customer as it is now; headquarters gets nothing else."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace", address=NewAddress(city="Bath"))
    # when
    for number in range(30):
        edit_customer(store.channel, ada.customer_id, first_name=f"Ada {number}")
    seen = edit_customer(store.channel, ada.customer_id, email="ada@example.com")
    # then
    [left] = store.events()
    assert (left.kind, left.supersedes, left.based_on_version) == (EventKind.CREATED, (), 0)
    assert left.customer == seen.state
    assert {"last_name", "first_name", f"contacts/{seen.state.primary_email}"} < set(left.changed)
    assert (seen.unsettled, store.unsent_ids()) == (1, [left.event_id])
    assert [row["outcome"] for row in store.rows(channel.outbox)] == ["folded"] * 31 + [None]
    assert [row["id"] for row in store.rows(channel.outbox) if row["aggregateid"] == ada.customer_id] == [left.event_id]
    with store.relaying():
        store.wait_until_sent()
    assert event_ids(store.topic()) == [left.event_id]


def test_paths_of_a_folded_edit_stay_changed(store: Store) -> None:
    """Also those that the next edit sets back, which headquarters may have changed meanwhile."""
    # given
    ada = create_customer(store.channel, first_name="Ada", last_name="Lovelace")
    store.synchronize(ada.customer_id, "C-00000001", version=7)
    edit_customer(store.channel, ada.customer_id, first_name="Augusta", last_name="King")
    # when
    edit_customer(store.channel, ada.customer_id, first_name="Ada")
    # then
    last = store.events()[-1]
    assert (last.kind, set(last.changed), last.supersedes) == (EventKind.EDITED, {"first_name", "last_name"}, ())
    assert last.based_on_version == 7


def test_repeated_call_is_recognised_after_its_event_was_folded(store: Store) -> None:
    """It must not revert the edit that came after it."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    edit_customer(store.channel, ada.customer_id, event_id=GUID, last_name="King")
    edit_customer(store.channel, ada.customer_id, last_name="Byron")
    # when
    seen = edit_customer(store.channel, ada.customer_id, event_id=GUID, last_name="King")
    # then
    assert seen.state.last_name == "Byron"
    assert len(store.rows(channel.outbox)) == 3


def test_event_that_the_relay_may_have_read_is_not_folded(store: Store) -> None:
    """Headquarters may know it, so the next edit supersedes it."""
    # given
    with store.relaying():
        ada = create_customer(store.channel, last_name="Lovelace")
        store.wait_until_sent()
    [created] = store.events()
    # when
    for number in range(RESERVED_AHEAD + 5):
        edit_customer(store.channel, ada.customer_id, first_name=f"Ada {number}")
    # then
    reserved = store.events()[: RESERVED_AHEAD + 1]
    last = store.events()[-1]
    assert last.supersedes == tuple(
        SupersededEvent(event_id=event.event_id, changed=event.changed) for event in reserved
    )
    assert reserved[0] == created
    outcomes = [row["outcome"] for row in store.rows(channel.outbox)]
    assert outcomes == [None] * (RESERVED_AHEAD + 1) + ["folded"] * 4 + [None]


def test_row_folded_while_the_relay_reads_is_not_sent(store: Store) -> None:
    """The relay reads again after it has reserved rows: a till may have folded some of them before."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    with store.channel.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        queue = OutboxQueue(connection)
        read = queue._read

        def read_slowly(*arguments: int) -> object:
            rows = read(*arguments)
            # Writes nothing the second time.
            edit_customer(store.channel, ada.customer_id, first_name="Ada")
            return rows

        queue._read = read_slowly  # type: ignore[method-assign,assignment]  # the moment between read and reservation
        # when
        rows = queue.read(100, 1_000_000).rows
        connection.invalidate()
    # then
    assert [row.event_id for row in rows] == [store.events()[0].event_id]
    assert decoded(rows[0].payload).changed == store.events()[0].changed


def test_event_in_an_order_is_not_folded(store: Store) -> None:
    """Headquarters takes it out of the order whenever that arrives."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    record_order(store.channel, customer_id=ada.customer_id, lines=[TEA])
    # when
    edit_customer(store.channel, ada.customer_id, first_name="Ada")
    edit_customer(store.channel, ada.customer_id, first_name="Augusta")
    # then
    created, last = store.events()
    assert store.transactions()[0].customer_event_id == created.event_id
    assert [old.event_id for old in last.supersedes] == [created.event_id]


def test_change_of_another_operator_is_not_folded(store: Store) -> None:
    """The audit names who changed what."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace", operator="ann")
    # when
    edit_customer(store.channel, ada.customer_id, first_name="Ada", operator="bob")
    # then
    assert [event.operator for event in store.events()] == ["ann", "bob"]


def test_rejected_change_is_not_folded(store: Store) -> None:
    """It is superseded, so that the clerk's correction carries it along; discarding leaves nothing of it."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    [created] = store.events()
    store.reject(created.event_id)
    # when
    edit_customer(store.channel, ada.customer_id, first_name="Ada")
    # then
    assert [old.event_id for old in store.events()[1].supersedes] == [created.event_id]


def test_discarding_a_folded_create_deletes_the_customer(store: Store) -> None:
    """As if it had been created with its last values."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    edit_customer(store.channel, ada.customer_id, first_name="Ada")
    store.reject(store.events()[0].event_id)
    assert show_customer(store.channel, ada.customer_id).status == "rejected"
    # when
    remains = discard_rejected(store.channel, ada.customer_id)
    # then
    assert remains is None
    assert store.counts()["customers"] == 0
