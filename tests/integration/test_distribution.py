"""Distribution: headquarters' snapshots reach a channel's tables, on PostgreSQL and on SQLite."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.cimpl import NewPartitions
from sqlalchemy import delete, select, text, update

from tenten.avro.wire import avro_schema, contract, encode
from tenten.consumers.channel import topic_watch
from tenten.consumers.channel.distribution import prefetch
from tenten.consumers.channel.distribution.resync import resync
from tenten.consumers.channel.distribution.run import run
from tenten.consumers.channel.status import status, stopped_partitions
from tenten.kafka.partitioner import partition_of
from tenten.kafka.schema_registry import publish_schemas
from tenten.kafka.topics_admin import admin_client
from tenten.runtime.errors import TopicChanged
from tenten.schemas.messages import Address, Contact, Loading, to_avro
from tenten.schemas.tables import channel
from tenten.schemas.topics import CUSTOMERS, SCHEMAS
from tenten.sql.loading import read_loading
from tenten.status import channel_status
from tests.channel_scene import (
    AT,
    CHANNEL,
    DISTRIBUTION,
    ChannelScene,
    changed,
    customer,
    die_at,
    guid,
    set_channel_scene,
    state,
)
from tests.restores import recreate
from tests.settings_file import PARTITIONS


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, channel_url: str) -> Iterator[ChannelScene]:
    """A channel on each of the two databases; it has the customers of the address books US and EU."""
    with set_channel_scene(tmp_path, bootstrap_servers, prefix, channel_url, address_books=["US", "EU"]) as made:
        yield made


def test_new_customers_arrive_with_addresses_and_contacts(scene: ChannelScene) -> None:
    """Snapshots of customers that the channel has never seen become rows of its tables, and positions move along.

    A first load is one that is noted, until it has ended.
    """
    # given
    sent = [customer(f"Ann {number}") for number in range(50)]
    scene.headquarters.send(*sent)
    # when
    with scene.running(run):
        scene.wait_until_level()
        scene.wait(lambda: loading(scene) is None, "the end of the load")
    # then
    assert scene.visible() == {
        snapshot.customer_id: (snapshot.account_number, 1, snapshot.customer.first_name) for snapshot in sent
    }
    assert scene.counts() == (50, 50, 100)
    found = status(scene.settings, CHANNEL)
    assert (found.customers, found.pending, found.unsettled, found.lag) == (50, 0, 0, 0)
    [load] = scene.rows(channel.loading)
    total = sum(scene.headquarters.ends(scene.settings.topic(CUSTOMERS)).values())
    assert (load["kind"], load["done"], load["total"]) == ("first_load", None, total)


def loading(scene: ChannelScene) -> Loading | None:
    """The load that heartbeats would report now."""
    with scene.engine.connect() as connection:
        return read_loading(connection, scene.settings, datetime.now(UTC))


def test_rows_equal_the_snapshot(scene: ChannelScene) -> None:
    """Every column of the three tables, written out: enums in lower case, lists as JSON, times with microseconds."""
    # given
    address_id, email_id = guid(), guid()
    sent = customer(
        "Ann",
        title="Dr.",
        middle_name="M.",
        address_books=("EU", "US"),
        primary_address=address_id,
        primary_email=email_id,
        addresses=(Address(address_id=address_id, purpose="HOME", street="1 Main\nBack", country="US", updated_at=AT),),
        contacts=(Contact(contact_id=email_id, kind="EMAIL", value="ann@example.com", marketing_consent=True),),
    )
    # when
    with scene.running(run):
        scene.headquarters.send(sent)
        scene.wait_until_level()
    # then
    assert scene.rows(channel.customers) == [
        {
            "customer_id": sent.customer_id,
            "account_number": sent.account_number,
            "version": 1,
            "updated_at": AT,
            "legal_entity": "usrt",
            "customer_type": "person",
            "title": "Dr.",
            "first_name": "Ann",
            "middle_name": "M.",
            "last_name": "Müller",
            "organization_name": "",
            "language": "en-US",
            "currency": "USD",
            "customer_group": "",
            "receipt_preference": "none",
            "receipt_email": "",
            "tax_number": "",
            "known_as": None,
            "primary_address": address_id,
            "primary_phone": None,
            "primary_email": email_id,
            "address_books": ["EU", "US"],
            "affiliations": ["gold", "staff"],
            "attributes": [],
            "search_name": "ann m. muller",
        }
    ]
    assert scene.rows(channel.customer_addresses) == [
        {
            "customer_id": sent.customer_id,
            "address_id": address_id,
            "purpose": "home",
            "name": "",
            "street": "1 Main\nBack",
            "city": "",
            "county": "",
            "state": "",
            "postal_code": "",
            "country": "US",
            "updated_at": AT,
        }
    ]
    assert scene.rows(channel.customer_contacts) == [
        {
            "customer_id": sent.customer_id,
            "contact_id": email_id,
            "kind": "email",
            "value": "ann@example.com",
            "marketing_consent": True,
            "description": "",
        }
    ]


def test_newer_snapshot_updates_customer_and_children(scene: ChannelScene) -> None:
    """A newer snapshot changes the customer, one address and one contact, adds an address and takes a contact away."""
    # given
    first = customer("Ann")
    untouched = customer("Bob")
    home = first.customer.addresses[0]
    kept, removed = first.customer.contacts
    shop = Address(address_id=guid(), purpose="BUSINESS", street="2 Side", country="US", updated_at=AT)
    second = changed(
        first,
        first_name="Anna",
        addresses=tuple(sorted((replace(home, city="Dallas"), shop), key=lambda address: address.address_id)),
        contacts=(replace(kept, description="new"),),
    )
    # when
    with scene.running(run):
        scene.headquarters.send(first, untouched)
        scene.wait_until_level()
        scene.headquarters.send(second)
        scene.wait_until_level()
    # then
    assert scene.visible()[first.customer_id] == (first.account_number, 2, "Anna")
    assert scene.visible()[untouched.customer_id] == (untouched.account_number, 1, "Bob")
    addresses = {row["address_id"]: row["city"] for row in scene.rows(channel.customer_addresses)}
    assert addresses == {
        home.address_id: "Dallas",
        shop.address_id: "",
        untouched.customer.addresses[0].address_id: "Houston",
    }
    contacts = {row["contact_id"]: row["description"] for row in scene.rows(channel.customer_contacts)}
    assert contacts[kept.contact_id] == "new"
    assert removed.contact_id not in contacts
    assert len(contacts) == 3


def test_newest_version_wins(scene: ChannelScene) -> None:
    """Versions that arrive together, and an older one that comes again later, leave the newest in the table."""
    # given
    first = customer("One")
    second = changed(first, first_name="Two")
    third = changed(second, first_name="Three")
    # when
    scene.headquarters.send(first, second, third)
    with scene.running(run):
        scene.wait_until_level()
        scene.headquarters.send(second)
        scene.wait_until_level()
    # then
    assert scene.visible() == {first.customer_id: (first.account_number, 3, "Three")}


def test_tombstone_deletes_the_customer_and_empties_its_outbox_rows(scene: ChannelScene) -> None:
    """An erased customer leaves all tables; its unsettled event is settled as erased, without personal data."""
    # given
    erased, kept = customer("Ann"), customer("Bob")
    with scene.running(run):
        scene.headquarters.send(erased, kept)
        scene.wait_until_level()
        edited_event = scene.edit(erased, replace(erased.customer, first_name="Secret"), ["first_name"])
        # when
        scene.headquarters.send(erased.customer_id)
        scene.wait_until_level()
    # then
    assert set(scene.visible()) == {kept.customer_id}
    assert scene.counts() == (1, 1, 2)
    assert scene.rows(channel.snapshots) == []
    row = scene.outbox()[edited_event.event_id]
    assert (row["outcome"], row["settled_at"] is not None) == ("erased", True)
    assert b"Secret" not in bytes(row["payload"])


def test_snapshot_after_a_tombstone_is_applied(scene: ChannelScene) -> None:
    """Snapshot, tombstone and snapshot of one GUID in one batch: the last one wins."""
    # given
    first = customer("Before")
    again = replace(first, customer=replace(first.customer, first_name="After", addresses=()))
    # when
    scene.headquarters.send(first, first.customer_id, again)
    with scene.running(run):
        scene.wait_until_level()
    # then
    assert scene.visible() == {first.customer_id: (first.account_number, 1, "After")}
    assert scene.counts() == (1, 0, 2)


def test_aborted_transaction_is_skipped(scene: ChannelScene) -> None:
    """Snapshots of an aborted transaction change nothing, and the positions pass them, so that no lag stays."""
    # given
    aborted, committed = customer("Ghost"), customer("Ann")
    value = encode(contract("Customer"), to_avro(aborted))
    # when
    with scene.running(run):
        scene.headquarters.send(committed)
        scene.headquarters.raw(CUSTOMERS.name, (aborted.customer_id, value), abort=True)
        scene.wait_until_level()
    # then
    assert set(scene.visible()) == {committed.customer_id}
    assert status(scene.settings, CHANNEL).lag == 0


def test_channel_has_only_the_customers_of_its_filter(scene: ChannelScene) -> None:
    """Another legal entity or only foreign address books: not here; no address book at all: everywhere."""
    # given
    here = customer("Here", address_books=("EU",))
    everywhere = customer("Everywhere")
    sent = [here, everywhere, customer("Elsewhere", address_books=("JP",)), customer("Other", legal_entity="demf")]
    # when
    with scene.running(run):
        scene.headquarters.send(*sent)
        scene.wait_until_level()
    # then
    assert set(scene.visible()) == {here.customer_id, everywhere.customer_id}


def test_customer_that_leaves_the_filter_leaves_the_channel(scene: ChannelScene) -> None:
    """A new snapshot with foreign address books takes the customer away, but not one with an unsettled edit."""
    # given
    leaving, edited = customer("Leaving", address_books=("US",)), customer("Edited", address_books=("US",))
    with scene.running(run):
        scene.headquarters.send(leaving, edited)
        scene.wait_until_level()
        scene.edit(edited, replace(edited.customer, last_name="Mine"), ["last_name"])
        # when
        scene.headquarters.send(changed(leaving, address_books=("JP",)), changed(edited, address_books=("JP",)))
        scene.wait_until_level()
    # then
    assert scene.visible() == {edited.customer_id: (edited.account_number, 2, "Edited")}
    assert scene.rows(channel.customers)[0]["last_name"] == "Mine"
    assert len(scene.rows(channel.customer_addresses)) == 1


def test_unsettled_edit_stays_visible_on_a_newer_snapshot(scene: ChannelScene) -> None:
    """Headquarters' changes and the clerk's are both shown, and the snapshot is stored as the base."""
    # given
    first = customer("Ann", last_name="Old", tax_number="")
    with scene.running(run):
        scene.headquarters.send(first)
        scene.wait_until_level()
        scene.edit(first, replace(first.customer, first_name="Clerk"), ["first_name"])
        # when
        scene.headquarters.send(changed(first, first_name="HQ", last_name="New", tax_number="7"))
        scene.wait_until_level()
    # then
    (row,) = scene.rows(channel.customers)
    assert (row["first_name"], row["last_name"], row["tax_number"], row["version"]) == ("Clerk", "New", "7", 2)
    assert [(kept["customer_id"], kept["version"]) for kept in scene.rows(channel.snapshots)] == [
        (first.customer_id, 2)
    ]
    assert len(scene.rows(channel.customer_contacts)) == 2


def test_edit_settled_in_a_later_version_stays_visible_until_its_snapshot(scene: ChannelScene) -> None:
    """An edit whose reply arrives before its snapshot stays visible; the base snapshot is deleted afterwards."""
    # given
    first = customer("Ann")
    with scene.running(run):
        scene.headquarters.send(first)
        scene.wait_until_level()
        edited = replace(first.customer, first_name="Clerk")
        edited_event = scene.edit(first, edited, ["first_name"])
        with scene.engine.begin() as connection:
            settled = update(channel.outbox).where(channel.outbox.c.id == edited_event.event_id)
            connection.execute(settled.values(settled_at=AT, outcome="synchronized", version=3))
        # when
        second = changed(first, last_name="Other")
        scene.headquarters.send(second)
        scene.wait_until_level()
        # then
        assert scene.visible() == {first.customer_id: (first.account_number, 2, "Clerk")}
        # when
        scene.headquarters.send(changed(second, first_name="Clerk"))
        scene.wait_until_level()
    # then
    assert scene.visible() == {first.customer_id: (first.account_number, 3, "Clerk")}
    assert scene.rows(channel.snapshots) == []


def test_pending_customer_gets_its_snapshot(scene: ChannelScene) -> None:
    """The first snapshot of a customer that was made here, and whose event is settled, replaces the pending row."""
    # given
    made = customer("Ann")
    edited_event = scene.create(made.customer_id, made.customer)
    with scene.engine.begin() as connection:
        settled = update(channel.outbox).where(channel.outbox.c.id == edited_event.event_id)
        connection.execute(settled.values(settled_at=AT, outcome="synchronized", version=1))
    # when
    with scene.running(run):
        scene.headquarters.send(made)
        scene.wait_until_level()
    # then
    assert scene.visible() == {made.customer_id: (made.account_number, 1, "Ann")}
    assert scene.counts() == (1, 1, 2)


def test_snapshot_waits_for_an_open_edit(scene: ChannelScene) -> None:
    """While a clerk's transaction holds the customer's row its snapshot waits, and then shows their input."""
    # given
    first = customer("Ann")
    with scene.running(run):
        scene.headquarters.send(first)
        scene.wait_until_level()
        before = scene.positions(scene.settings.topic(CUSTOMERS))
        mine = channel.customers.c.customer_id == first.customer_id
        with scene.engine.begin() as clerk:
            clerk.execute(select(channel.customers).where(mine).with_for_update())
            # when
            scene.headquarters.send(changed(first, last_name="New"))
            edited_event = _event_row(first, "Clerk")
            clerk.execute(channel.outbox.insert(), edited_event)
            clerk.execute(update(channel.customers).where(mine).values(first_name="Clerk"))
            assert scene.engine.dialect.name == "sqlite" or scene.positions(scene.settings.topic(CUSTOMERS)) == before
        scene.wait_until_level()
    # then
    (row,) = scene.rows(channel.customers)
    assert (row["first_name"], row["last_name"], row["version"]) == ("Clerk", "New", 2)


def _event_row(snapshot: Any, first_name: str) -> dict[str, Any]:
    from tests.channel_scene import event

    edited_event = event(snapshot.customer_id, replace(snapshot.customer, first_name=first_name), ["first_name"])
    return {
        "id": edited_event.event_id,
        "aggregatetype": "customer",
        "aggregateid": edited_event.customer_id,
        "type": "CustomerEdited",
        "payload": encode(contract("CustomerEvent"), to_avro(edited_event)),
        "created_at": AT,
    }


@pytest.mark.parametrize("value", [b"", b"rubbish", contract("Customer").header + b"\x02x"])
def test_unreadable_snapshot_stops_its_partition_only(scene: ChannelScene, value: bytes) -> None:
    """Records before it and in other partitions are applied, records behind it wait; status names the record."""
    # given
    first, behind = customer("First"), customer("Behind")
    partition = partition_of(first.customer_id, PARTITIONS)
    behind = replace(behind, customer_id=_guid_in(partition))
    elsewhere = replace(customer("Elsewhere"), customer_id=_guid_in((partition + 1) % PARTITIONS))
    # when
    with scene.running(run):
        scene.headquarters.send(first)
        scene.headquarters.raw(CUSTOMERS.name, (first.customer_id, value))
        scene.headquarters.send(behind, elsewhere)
        scene.wait(lambda: len(scene.visible()) == 2, "the readable snapshots")
    # then
    assert set(scene.visible()) == {first.customer_id, elsewhere.customer_id}
    (waiting,) = stopped_partitions(scene.settings, CHANNEL)
    assert (waiting.partition, waiting.offset) == (
        partition,
        scene.positions(scene.settings.topic(CUSTOMERS))[partition],
    )
    assert status(scene.settings, CHANNEL).lag >= 3


def test_stopped_partition_resumes_when_its_schema_is_known(
    scene: ChannelScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot of a newer release waits until that release's schema is on the schemas topic; no restart is needed."""
    # given
    monkeypatch.setattr(prefetch, "RETRY_SECONDS", 0.2)
    newer = {**contract("Customer").json, "fields": [*contract("Customer").json["fields"]]}
    newer["fields"].append({"name": "shoe_size", "type": "long", "default": 0})
    schema = avro_schema(newer)
    sent = customer("Ann")
    elsewhere = _guid_in((partition_of(sent.customer_id, PARTITIONS) + 1) % PARTITIONS)
    with scene.running(run):
        scene.headquarters.raw(CUSTOMERS.name, (sent.customer_id, encode(schema, {**to_avro(sent), "shoe_size": 42})))
        scene.headquarters.send(replace(customer("Bob"), customer_id=elsewhere))
        scene.wait(lambda: len(scene.visible()) >= 1 and bool(stopped_partitions(scene.settings, CHANNEL)), "the stop")
        # when
        publish_schemas(scene.settings)
        _publish(scene, schema.fingerprint.hex(), newer)
        scene.wait_until_level()
    # then
    assert scene.visible()[sent.customer_id] == (sent.account_number, 1, "Ann")


def _publish(scene: ChannelScene, fingerprint: str, declaration: dict[str, Any]) -> None:
    import json

    scene.headquarters.raw(SCHEMAS.name, (fingerprint, json.dumps(declaration).encode()))


def _guid_in(partition: int) -> str:
    """A GUID whose records go to this partition of `customers`."""
    return next(new for new in iter(guid, None) if partition_of(new, PARTITIONS) == partition)


def test_two_distributors_lose_nothing(scene: ChannelScene) -> None:
    """Two processes distribute to one channel: every customer arrives, and positions end where the topic ends."""
    # given
    sent = [customer(f"Ann {number}") for number in range(300)]
    # when
    with scene.running(run), scene.running(run):
        for first in range(0, 300, 30):
            scene.headquarters.send(*sent[first : first + 30])
        scene.headquarters.send(*(changed(snapshot, last_name="New") for snapshot in sent))
        scene.wait_until_level()
    # then
    assert scene.visible() == {
        snapshot.customer_id: (snapshot.account_number, 2, snapshot.customer.first_name) for snapshot in sent
    }
    assert scene.counts() == (300, 300, 600)


@pytest.mark.parametrize(
    "failpoint", ["distribution.after_poll", "distribution.before_commit", "distribution.after_commit"]
)
def test_killed_distributor_continues_at_its_positions(scene: ChannelScene, failpoint: str) -> None:
    """Rows and positions move together: killed at any point, the next one applies exactly the missing records."""
    # given
    sent = [customer(f"Ann {number}") for number in range(40)]
    scene.headquarters.send(*sent)
    # when
    die_at(scene, failpoint, DISTRIBUTION)
    # then
    applied = set(scene.visible())
    offsets = scene.positions(scene.settings.topic(CUSTOMERS))
    assert len(applied) <= sum(offsets.values())
    assert (failpoint == "distribution.after_commit") == bool(applied)
    # when
    with scene.running(run):
        scene.wait_until_level()
    # then
    assert set(scene.visible()) == {snapshot.customer_id for snapshot in sent}


def test_database_outage_is_retried(scene: ChannelScene) -> None:
    """Connections that the server ends, or a writer that holds SQLite for a while, lose nothing and end nothing."""
    # given
    first, second = customer("One"), customer("Two")
    with scene.running(run):
        scene.headquarters.send(first)
        scene.wait_until_level()
        # when
        if scene.engine.dialect.name == "postgresql":
            with scene.engine.begin() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
            scene.headquarters.send(second)
        else:
            with scene.engine.begin() as connection:
                connection.execute(text("SELECT 1"))
                scene.headquarters.send(second)
        scene.wait_until_level()
    # then
    assert set(scene.visible()) == {first.customer_id, second.customer_id}


@pytest.mark.parametrize("away", [timedelta(days=21), timedelta(hours=-1)], ids=["long", "in_the_future"])
def test_channel_that_was_away_too_long_resyncs(scene: ChannelScene, away: timedelta) -> None:
    """Last at the end before two thirds of the tombstone retention, or at a time that lies in the future, which proves
    nothing: a customer with a missed tombstone is deleted.
    """
    # given
    kept, vanished = customer("Kept"), customer("Vanished")
    scene.headquarters.send(kept)
    with scene.running(run):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        row = {**scene.rows(channel.customers)[0], "customer_id": vanished.customer_id}
        connection.execute(channel.customers.insert(), row)
        began_at = datetime.now(UTC)
        connection.execute(update(channel.positions).values(confirmed_at=began_at - away))
    # when
    with scene.running(run):
        scene.wait(lambda: set(scene.visible()) == {kept.customer_id}, "the resync")
        scene.wait_until_level()
    # then
    confirmed_at = {row["confirmed_at"] for row in scene.rows(channel.positions)}
    assert all(began_at <= at < began_at + timedelta(minutes=30) for at in confirmed_at)


def test_recreated_topic_costs_no_channel_a_customer(scene: ChannelScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic was recreated: the channel takes what is new there and keeps what it has, until headquarters
    declares the topic complete; then it deletes what headquarters does not have, without a hand.
    """
    # given
    monkeypatch.setattr(topic_watch, "WATCH_SECONDS", 0.2)
    old, new = [customer(f"Old {number}") for number in range(5)], customer("New")
    name = scene.settings.topic(CUSTOMERS)
    scene.headquarters.send(*old)
    with scene.running(run):
        scene.wait_until_level()
    # when
    recreate(scene.settings, CUSTOMERS)
    scene.headquarters.send(new)
    with scene.running(run):
        scene.wait(lambda: new.customer_id in scene.visible(), "the new customer")
        scene.wait_until_level()
        # then
        problem = channel_status(scene.settings, CHANNEL).problem or ""
        assert "tenten headquarters republish" in problem
        assert resync(scene.settings, CHANNEL, consent=True)
        assert set(scene.visible()) == {snapshot.customer_id for snapshot in (*old, new)}
        # when
        scene.headquarters.send(*old[1:])
        scene.headquarters.declare_complete()
        # then
        scene.wait(lambda: len(scene.visible()) == 5, "the resync")
        scene.wait_until_level()
    assert set(scene.visible()) == {snapshot.customer_id for snapshot in (*old[1:], new)}
    assert {row["topic_id"] for row in scene.rows(channel.positions)} == {scene.rows(channel.topics)[0]["topic_id"]}
    assert {row["topic"] for row in scene.rows(channel.positions)} == {name}
    assert channel_status(scene.settings, CHANNEL).problem is None


def test_added_partitions_stop_the_channel_with_advice(scene: ChannelScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another number of partitions keys go astray: the running channel ends with a remedy."""
    # given
    monkeypatch.setattr(topic_watch, "WATCH_SECONDS", 0.2)
    scene.headquarters.send(customer("Ann"))
    with pytest.raises(TopicChanged, match="13 partitions"), scene.running(run) as worker:  # noqa: PT012 - it ends within
        scene.wait_until_level()
        # when
        name = scene.settings.topic(CUSTOMERS)
        admin = admin_client(scene.settings)
        admin.create_partitions([NewPartitions(name, 13)])[name].result()
        # then
        scene.wait(worker.ended, "the end of the channel")


def test_channel_without_positions_resyncs(scene: ChannelScene) -> None:
    """Customers from headquarters but no positions, as after the table was emptied: surplus customers are deleted."""
    # given
    kept = customer("Kept")
    scene.headquarters.send(kept)
    with scene.running(run):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        row = {**scene.rows(channel.customers)[0], "customer_id": guid()}
        connection.execute(channel.customers.insert(), row)
        connection.execute(delete(channel.positions))
    # when
    with scene.running(run):
        scene.wait(lambda: set(scene.visible()) == {kept.customer_id}, "the resync")


def test_positions_are_committed_for_lag_monitors(scene: ChannelScene) -> None:
    """Positions are committed to Kafka under the group channel.NAME as well."""
    # given
    scene.headquarters.send(*(customer(f"Ann {number}") for number in range(30)))
    name = scene.settings.topic(CUSTOMERS)
    # when
    with scene.running(run):
        scene.wait_until_level()
    # then
    lag_tool = Consumer(
        {**scene.settings.kafka, "group.id": f"{scene.settings.prefix}channel.{CHANNEL}", "enable.auto.commit": False}
    )
    asked = [TopicPartition(name, partition) for partition in range(PARTITIONS)]
    committed = {position.partition: position.offset for position in lag_tool.committed(asked, timeout=20)}
    lag_tool.close()
    assert {partition: max(0, offset) for partition, offset in committed.items()} == scene.positions(name)


def test_customer_without_content_is_applied(scene: ChannelScene) -> None:
    """A customer without addresses, contacts and names is a customer all the same."""
    # given
    bare = customer(
        "", addresses=(), contacts=(), affiliations=(), primary_address=None, primary_email=None, last_name=""
    )
    assert bare.customer == replace(
        state(""), addresses=(), contacts=(), affiliations=(), primary_address=None, primary_email=None, last_name=""
    )
    # when
    with scene.running(run):
        scene.headquarters.send(bare)
        scene.wait_until_level()
    # then
    assert scene.counts() == (1, 0, 0)
