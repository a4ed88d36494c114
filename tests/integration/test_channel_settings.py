"""A channel uses the settings that headquarters publishes for it, without a restart, on PostgreSQL and on SQLite."""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tenten.avro.wire import contract, encode
from tenten.consumers.channel import loop, own_settings
from tenten.consumers.channel.distribution.run import run as distribute
from tenten.consumers.channel.settlement.run import run as settle
from tenten.doctor import examine
from tenten.kafka.topics_admin import admin_client
from tenten.producers import create_customer, open_channel
from tenten.runtime.errors import SettingsError
from tenten.runtime.settings import Settings
from tenten.runtime.settings.from_headquarters import differing_settings
from tenten.schemas.messages import ChannelSettings, LegalEntitySettings, NewCustomerSettings, to_avro
from tenten.schemas.tables import channel
from tenten.schemas.topics import CHANNEL_SETTINGS
from tests.channel_scene import CHANNEL, ChannelScene, changed, customer, guid, make_topics, set_channel_scene, state
from tests.settings_file import general, kafka
from tests.waiting import wait_for

USRT = LegalEntitySettings(name="usrt", country="US", currency="USD", language="en-US")
HOUSTON = ChannelSettings(
    channel_id=CHANNEL, version=1, published_at=datetime(2026, 3, 1, tzinfo=UTC), legal_entity=USRT
)


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, channel_url: str) -> Iterator[ChannelScene]:
    """A channel on each of the two databases, whose tenten.toml has only Kafka and the database."""
    with set_channel_scene(tmp_path, bootstrap_servers, prefix, channel_url) as made:
        document = general(prefix) + kafka(bootstrap_servers) + f'[channels.{CHANNEL}]\ndatabase = "{channel_url}"\n'
        made.settings = Settings.model_validate(tomllib.loads(document), context={"directory": tmp_path})
        yield made


def publish(scene: ChannelScene, settings: ChannelSettings = HOUSTON, **fields: Any) -> None:
    """Publish settings as headquarters does, among those of other channels."""
    own = replace(settings, **fields)
    others = [replace(HOUSTON, channel_id=f"other-{number}", time_zone="Asia/Tokyo") for number in range(5)]
    records = [(each.channel_id, encode(contract("ChannelSettings"), to_avro(each))) for each in (*others, own)]
    scene.headquarters.raw(CHANNEL_SETTINGS.name, *records)


def named(*customers: Any) -> set[str]:
    """The ids of these customers."""
    return {each.customer_id for each in customers}


def test_store_that_knows_only_its_database_waits_for_its_settings_and_keeps_them_offline(scene: ChannelScene) -> None:
    """Before the first settings the till says what is missing; afterwards it works without a connection."""
    # given
    ann = customer("Ann")
    scene.headquarters.send(ann)
    with open_channel(scene.settings, CHANNEL) as till, pytest.raises(SettingsError, match="no settings from head"):
        create_customer(till, first_name="Bea", last_name="Berg")
    # when
    with capture_logs() as logs, scene.running(loop.run):
        scene.wait(lambda: _is_logged(logs, "channel_settings_missing"), "the message")
        defaults = NewCustomerSettings(customer_group="30", currency="CAD", affiliations=("staff",))
        publish(scene, address_books=("US",), new_customers=defaults)
        scene.wait(lambda: set(scene.visible()) == named(ann), "the customer")
    # then
    offline = scene.settings.model_copy(update={"kafka": {"bootstrap.servers": "127.0.0.1:1"}})
    with open_channel(offline, CHANNEL) as till:
        bea = create_customer(till, first_name="Bea", last_name="Berg")
        assert till.settings.legal_entity_of(CHANNEL).country == "US"
    assert (bea.state.legal_entity, bea.state.currency, bea.state.language) == ("usrt", "CAD", "en-US")
    assert (bea.state.customer_group, bea.state.affiliations) == ("30", ("staff",))
    assert bea.state.address_books == ("US",)


@pytest.mark.parametrize("processes", [(loop.run,), (distribute, settle)], ids=["together", "apart"])
def test_changed_filter_adds_and_removes_exactly_while_the_channel_runs(
    scene: ChannelScene, processes: Sequence[Any]
) -> None:
    """From US to EU: customers come and leave, those in both or in none stay, and so does what only the store has: a
    pending customer, and an edit that headquarters has not settled. Nothing is restarted.
    """
    # given
    stays = [customer("Both", address_books=("EU", "US")), customer("None")]
    leaves = [customer(f"US {number}", address_books=("US",)) for number in range(20)]
    comes = [customer(f"EU {number}", address_books=("EU",)) for number in range(20)]
    edited, moves = customer("Edited", address_books=("US",)), customer("Moves", address_books=("US",))
    foreign = customer("Foreign", address_books=("EU",), legal_entity="demf")
    publish(scene, address_books=("US",))
    scene.headquarters.send(*stays, *leaves, *comes, edited, moves, foreign)
    with scene.running(processes[0]), scene.running(processes[-1]) if len(processes) > 1 else scene.running(_idle):
        scene.wait(lambda: set(scene.visible()) == named(*stays, *leaves, edited, moves), "the customers")
        scene.edit(edited, replace(edited.customer, first_name="Clerk"), ["first_name"])
        pending = scene.create(guid(), state("Pending", address_books=("US",)))
        # when
        publish(scene, address_books=("EU",), version=2)
        scene.headquarters.send(changed(moves, address_books=("EU",)))
        # then
        expected = named(*stays, *comes, edited, moves, pending)
        scene.wait(lambda: set(scene.visible()) == expected, "the other filter")
        scene.wait_until_level()
        visible = scene.visible()
        assert set(visible) == expected
        assert visible[edited.customer_id] == (edited.account_number, 1, "Clerk")
        assert visible[pending.customer_id] == (None, 0, "Pending")
        # when: headquarters has removed the channel, and added it again to another legal entity
        demf = LegalEntitySettings(name="demf", country="DE", currency="EUR", language="de-DE")
        publish(scene, version=3, legal_entity=demf)
        # then
        expected = named(foreign, edited, pending)
        scene.wait(lambda: set(scene.visible()) == expected, "the other legal entity")


def _has(scene: ChannelScene, customer_ids: set[str]) -> bool:
    return set(scene.visible()) == customer_ids


def _is_logged(logs: Sequence[Any], name: str) -> bool:
    return any(entry["event"] == name for entry in logs)


def _idle(_: Settings, __: str, stop: Any) -> None:
    stop.wait()


def test_filters_that_change_faster_than_the_channel_resyncs_end_with_the_last(scene: ChannelScene) -> None:
    """A resync by a former filter is given up."""
    # given
    by_book = {book: [customer(f"{book} {number}", address_books=(book,)) for number in range(400)] for book in "ABC"}
    for customers in by_book.values():
        scene.headquarters.send(*customers)
    publish(scene, address_books=("A",))
    with scene.running(loop.run):
        scene.wait(lambda: set(scene.visible()) == named(*by_book["A"]), "the first filter")
        # when
        for version, book in enumerate("BACB" * 3, 2):
            publish(scene, address_books=(book,), version=version)
        # then
        scene.wait(lambda: set(scene.visible()) == named(*by_book["B"]), "the last filter")
        scene.wait_until_level()
        assert set(scene.visible()) == named(*by_book["B"])


def test_open_till_uses_a_change_and_reports_what_its_file_has_otherwise(tmp_path: Path, scene: ChannelScene) -> None:
    """Headquarters wins over tenten.toml, which is said once; other settings than the filter reopen nothing."""
    # given
    document = (
        tmp_path / "tenten.toml"
    ).read_text() + 'time_zone = "Europe/Berlin"\n[channels.houston.default_customer]\ncustomer_group = "10"\n'
    scene.settings = Settings.model_validate(tomllib.loads(document), context={"directory": tmp_path})
    with capture_logs() as logs, open_channel(scene.settings, CHANNEL) as till, scene.running(loop.run):
        assert till.settings.channel(CHANNEL).time_zone == "Europe/Berlin"
        # when
        publish(scene, time_zone="America/Chicago", creation="sync", sync_milliseconds=2_500)
        wait_for(lambda: till.settings.channel(CHANNEL).time_zone == "America/Chicago", "the time zone")
        publish(scene, time_zone="America/Chicago", creation="async", cut_off_hour=4, version=2)
        wait_for(lambda: till.settings.channel(CHANNEL).creation == "async", "the creation mode")
        used = till.settings.channel(CHANNEL)
    # then
    assert (used.cut_off_hour, used.sync_seconds) == (4, 2.0)
    names = ["channels.houston.default_customer.customer_group", "channels.houston.time_zone"]
    assert [entry["settings"] for entry in logs if entry["event"] == "channel_settings_differ"] == [names]
    assert [entry for entry in logs if entry["event"] == "resync_needed"] == []
    published = till.published
    assert published is not None
    assert differing_settings(scene.settings, CHANNEL, published) == names
    checks = {check.what: check for check in examine(lambda: scene.settings)}
    check = checks[f"settings of {CHANNEL}"]
    assert not check.ok
    assert ", ".join(names) in check.text


def test_channel_keeps_its_settings_when_newer_ones_cannot_be_used(
    scene: ChannelScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that cannot be read, a removed channel, a topic that is created again; later settings are used."""
    # given
    monkeypatch.setattr(own_settings, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(own_settings, "REFUSED_SECONDS", 0.2)
    publish(scene, time_zone="America/Chicago")
    with capture_logs() as logs, scene.running(loop.run):
        scene.wait(lambda: bool(scene.rows(channel.channel_settings)), "the first settings")
        # when
        for value, event in ((b"\xc3\x01 unreadable", "unreadable"), (None, "removed")):
            scene.headquarters.raw(CHANNEL_SETTINGS.name, (CHANNEL, value))
            name = f"channel_settings_{event}"
            scene.wait(partial(_is_logged, logs, name), name)
        topic = scene.settings.topic(CHANNEL_SETTINGS)
        admin_client(scene.settings).delete_topics([topic])[topic].result()
        scene.wait(lambda: _is_logged(logs, "channel_settings_failed"), "the deletion")
        # then
        (row,) = scene.rows(channel.channel_settings)
        assert row["settings"]["time_zone"] == "America/Chicago"
        # when
        make_topics(scene.settings)
        publish(scene, time_zone="America/Denver", version=2)
        # then
        scene.wait(
            lambda: scene.rows(channel.channel_settings)[0]["settings"]["time_zone"] == "America/Denver", "the next"
        )


def test_channel_does_without_shared_or_all_customers(scene: ChannelScene) -> None:
    """From all customers to its own, to none, and back; pending customers and unsettled edits stay throughout."""
    # given
    own, shared = customer("Own", address_books=("US",)), customer("Shared")
    edited = customer("Edited", address_books=("US",))
    scene.headquarters.send(own, shared, edited)
    publish(scene, address_books=("US",))
    with scene.running(loop.run):
        scene.wait(lambda: set(scene.visible()) == named(own, shared, edited), "all customers")
        scene.edit(edited, replace(edited.customer, first_name="Clerk"), ["first_name"])
        pending = scene.create(guid(), state("Pending", address_books=("US",)))
        local = named(edited, pending)
        # when, then
        for version, (kept, expected) in enumerate(
            (("own", named(own)), ("none", set()), ("all", named(own, shared))), start=2
        ):
            publish(scene, address_books=("US",), offline_customers=kept, version=version)
            scene.wait(partial(_has, scene, expected | local), kept)
            scene.wait_until_level()
            assert set(scene.visible()) == expected | local
            assert scene.visible()[edited.customer_id] == (edited.account_number, 1, "Clerk")
