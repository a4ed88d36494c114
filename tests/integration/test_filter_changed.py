"""A changed filter adds and removes exactly the customers that it should, on PostgreSQL and on SQLite."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from tenten.consumers.channel.distribution.resync import resync
from tenten.consumers.channel.distribution.run import run
from tenten.runtime.settings import Settings
from tenten.schemas.tables import channel
from tenten.schemas.topics import CUSTOMERS
from tests.channel_scene import CHANNEL, ChannelScene, changed, customer, guid, set_channel_scene, state


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, channel_url: str) -> Iterator[ChannelScene]:
    """A channel on each of the two databases; it has the customers of the address book US."""
    with set_channel_scene(tmp_path, bootstrap_servers, prefix, channel_url, address_books=["US"]) as made:
        yield made


def _with_books(settings: Settings, address_books: Sequence[str], legal_entity: str = "usrt") -> Settings:
    """The settings with another filter of the channel."""
    filtered = settings.channel(CHANNEL).model_copy(
        update={"address_books": tuple(address_books), "legal_entity": legal_entity}
    )
    return settings.model_copy(update={"channels": {CHANNEL: filtered}})


def test_changed_filter_adds_and_removes_exactly(scene: ChannelScene) -> None:
    """From US to EU: customers come and leave, those in both or in none stay, and so does what only the store has: a
    pending customer, and an edit that headquarters has not settled. A customer may move between the books meanwhile.
    """
    # given
    stays = [customer("Both", address_books=("EU", "US")), customer("None")]
    leaves = [customer(f"US {number}", address_books=("US",)) for number in range(20)]
    comes = [customer(f"EU {number}", address_books=("EU",)) for number in range(20)]
    edited, moves = customer("Edited", address_books=("US",)), customer("Moves", address_books=("US",))
    foreign = customer("Foreign", address_books=("EU",), legal_entity="demf")
    scene.headquarters.send(*stays, *leaves, *comes, edited, moves, foreign)
    with scene.running(run):
        scene.wait_until_level()
    scene.edit(edited, replace(edited.customer, first_name="Clerk"), ["first_name"])
    pending = scene.create(guid(), state("Pending", address_books=("US",)))
    assert set(scene.visible()) == {
        *(snapshot.customer_id for snapshot in (*stays, *leaves, edited, moves)),
        pending.customer_id,
    }
    # when
    scene.settings = _with_books(scene.settings, ["EU"])
    scene.headquarters.send(changed(moves, address_books=("EU",)))
    with scene.running(run):
        scene.wait(
            lambda: _stored_filters(scene) == {'{"legal_entity": "usrt", "address_books": ["EU"]}'}, "the filter"
        )
        scene.wait_until_level()
    # then
    visible = scene.visible()
    assert set(visible) == {
        *(snapshot.customer_id for snapshot in (*stays, *comes, edited, moves)),
        pending.customer_id,
    }
    assert visible[edited.customer_id] == (edited.account_number, 1, "Clerk")
    assert visible[pending.customer_id] == (None, 0, "Pending")
    # when
    scene.settings = _with_books(scene.settings, [], legal_entity="demf")
    assert resync(scene.settings, CHANNEL)
    # then
    assert set(scene.visible()) == {foreign.customer_id, edited.customer_id, pending.customer_id}


def test_equal_filter_starts_no_resync(scene: ChannelScene) -> None:
    """Another order of the same address books is the same filter; a store that is upgraded has the one that it had."""
    # given
    kept = customer("Kept", address_books=("US",))
    scene.headquarters.send(kept)
    scene.settings = _with_books(scene.settings, ["US", "EU"])
    with scene.running(run):
        scene.wait_until_level()
    unknown_to_headquarters = guid()
    with scene.engine.begin() as connection:
        row = {**scene.rows(channel.customers)[0], "customer_id": unknown_to_headquarters, "account_number": "C-0"}
        connection.execute(channel.customers.insert(), row)
        connection.execute(update(channel.positions).values(filter=None))
    # when
    for address_books in (["EU", "US"], ["US", "EU", "US"]):
        scene.settings = _with_books(scene.settings, address_books)
        scene.headquarters.send(customer("Later"))
        with scene.running(run):
            scene.wait_until_level()
    # then
    assert unknown_to_headquarters in scene.visible()


def test_rows_belong_to_the_filter_beside_the_positions(scene: ChannelScene) -> None:
    """A process that still has the former filter writes nothing by it beside the new one: it notices that somebody has
    resynced by another filter, and resyncs by its own.
    """
    # given
    american, european = customer("US", address_books=("US",)), customer("EU", address_books=("EU",))
    scene.headquarters.send(american, european)
    with scene.running(run):
        scene.wait_until_level()
        # when
        assert resync(_with_books(scene.settings, ["EU"]), CHANNEL)
        assert set(scene.visible()) == {european.customer_id}
        later = customer("Later", address_books=("US",))
        scene.headquarters.send(later)
        # then
        scene.wait(lambda: later.customer_id in scene.visible(), "the resync")
        scene.wait_until_level()
    assert set(scene.visible()) == {american.customer_id, later.customer_id}
    assert _stored_filters(scene) == {'{"legal_entity": "usrt", "address_books": ["US"]}'}


def _stored_filters(scene: ChannelScene) -> set[str | None]:
    """The filters beside the channel's positions in `customers`."""
    name = scene.settings.topic(CUSTOMERS)
    return {row["filter"] for row in scene.rows(channel.positions) if row["topic"] == name}
