"""Headquarters publishes the settings of channels: what has changed, once, and after a crash the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from sqlalchemy import Engine

from tenten.avro.wire import contract, encode
from tenten.consumers.channel import loop
from tenten.consumers.headquarters.customers import held_touches, registrar, settings_publisher
from tenten.consumers.headquarters.customers.settings_publisher import SettingsPublisher
from tenten.identity.channel_changes import By
from tenten.identity.channel_keys import add_channel_key, read_channel_keys, revoke_channel_key
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.keys import new_key_pair
from tenten.identity.signing import RecordSigner
from tenten.identity.suspension import resume, suspend
from tenten.kafka.client_config import producer_configuration
from tenten.kafka.topics_admin import admin_client, apply_topics, topic_exists
from tenten.producers import OpenChannel, open_channel
from tenten.runtime.errors import TransactionFailed
from tenten.runtime.settings import Channel
from tenten.schemas.messages import ChannelSettings, LegalEntitySettings, to_avro
from tenten.schemas.topics import CHANNEL_SETTINGS
from tenten.sql.engine import open_database
from tests.databases import channel_tables
from tests.faults.traffic import Store
from tests.forked import run_to_failpoint
from tests.restores import back_up, restore
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, Scene
from tests.settings_file import channel
from tests.threads import Worker
from tests.waiting import wait_for

NOT_STOPPED = Event()
BY = By(source="test")


@pytest.fixture
def engine(scene: Scene) -> Iterator[Engine]:
    """Headquarters' database."""
    opened = open_database(scene.url)
    yield opened
    opened.dispose()


@contextmanager
def publishing(scene: Scene, engine: Engine) -> Iterator[SettingsPublisher]:
    """A publisher that has read the topic, with Avro's own framing."""
    publisher = SettingsPublisher(scene.settings, engine, contract("ChannelSettings").header)
    try:
        publisher.begin()
        yield publisher
    finally:
        publisher.close()


def has_begun(publisher: SettingsPublisher) -> bool:
    """Begin, as the registrar does again after an error."""
    try:
        publisher.begin()
    except KafkaException:
        return False
    return True


def published(scene: Scene, count: int) -> list[tuple[str, dict[str, Any] | None]]:
    """All records of the topic, by channel and then in their order, as soon as there are so many."""
    found: list[tuple[str, dict[str, Any] | None]] = []

    def have_arrived() -> bool:
        found.extend(follower.more())
        return len(found) >= count

    with scene.follow("channel-settings", "ChannelSettings") as follower:
        wait_for(have_arrived, f"{count} records")
        # Not one more.
        found.extend(follower.more())
    return sorted(found, key=lambda record: record[0])


def test_record_has_all_that_a_channel_needs(scene: Scene, engine: Engine) -> None:
    """Resolved: the legal entity with its country, currency and language, and every setting of the channel."""
    # given
    profile = (
        'creation = "sync"\nsync_seconds = 4.5\ntime_zone = "America/Chicago"\ncut_off_hour = 4\n'
        'offline_customers = "own"\nmay_erase = true\n'
    )
    defaults = '[channels.austin.default_customer]\ncustomer_type = "organization"\naffiliations = ["vip", "b2b"]\n'
    scene.toml.write_text(scene.toml.read_text() + channel("austin", address_books=["US", "TX"]) + profile + defaults)
    scene.apply_settings()
    with engine.begin() as headquarters:
        keys = ensure_headquarters_keys(headquarters)
        own = new_key_pair().public_key
        key = add_channel_key(headquarters, "austin", own, operator=None, source="test", now=datetime.now(UTC))
    # when
    with publishing(scene, engine) as publisher:
        assert publisher.publish(NOT_STOPPED) == 4
    # then
    (_, austin), *_ = published(scene, 4)
    assert austin is not None
    assert austin.pop("version") == 3
    assert austin.pop("published_at") is not None
    assert (austin.pop("headquarters_public_key"), austin.pop("kid")) == (keys.public_key, key.kid)
    assert (austin.pop("public_key"), austin.pop("checks_keys")) == (own, True)
    assert austin.pop("acceptance_changed_at") is not None
    assert austin == {
        "channel_id": "austin",
        "legal_entity": {
            "name": "usrt",
            "country": "US",
            "currency": "USD",
            "language": "en-US",
            "customer_groups": [],
            "attributes": [],
        },
        "address_books": ["TX", "US"],
        "offline_customers": "own",
        "creation": "sync",
        "sync_milliseconds": 4_500,
        "time_zone": "America/Chicago",
        "cut_off_hour": 4,
        "new_customers": {
            "customer_type": "organization",
            "customer_group": "",
            "receipt_preference": "none",
            "currency": None,
            "language": None,
            "affiliations": ["b2b", "vip"],
        },
        "may_erase": True,
        "suspended": None,
        "joins": [],
    }


def test_running_worker_publishes_a_change_as_soon_as_it_is_notified(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the notification alone: nothing looks again before a day has passed. Only the changed channel is sent, and a
    removed one gets a tombstone.
    """
    # given
    monkeypatch.setattr(registrar, "LOOK_SECONDS", 86_400.0)
    monkeypatch.setattr(held_touches, "CHECK_SECONDS", 86_400.0)
    names = sorted(LEGAL_ENTITY_BY_CHANNEL)
    with scene.headquarters():
        assert [key for key, _ in published(scene, 3)] == names
        # when
        document, dallas = scene.toml.read_text(), channel("dallas", may_erase=True)
        scene.toml.write_text(document.replace(dallas, dallas.replace("[]", '["TX"]')))
        scene.apply_settings()
        # then
        assert [key for key, _ in published(scene, 4)] == ["dallas", *names]
        # when
        scene.toml.write_text(document.replace(dallas, ""))
        scene.apply_settings()
        # then
        of_dallas = [value for key, value in published(scene, 5) if key == "dallas"]
    assert [value and value["address_books"] for value in of_dallas] == [[], ["TX"], None]


def test_next_publisher_sends_only_what_the_topic_lacks(scene: Scene, engine: Engine) -> None:
    """After a restart nothing; what changed while none ran; all of a recreated topic; and what a restored database has
    otherwise than the topic.
    """
    # given
    with publishing(scene, engine) as publisher:
        assert publisher.publish(NOT_STOPPED) == 3
        assert publisher.publish(NOT_STOPPED) == 0
    # when, then: a restart
    with publishing(scene, engine) as publisher:
        assert publisher.publish(NOT_STOPPED) == 0
    # when, then: an older copy of the database, which knows nothing of what was published since
    scene.query("UPDATE channels SET time_zone = 'Europe/Berlin' WHERE channel_id = 'munich'")
    with publishing(scene, engine) as publisher:
        assert publisher.publish(NOT_STOPPED) == 1
    scene.query("UPDATE channels SET time_zone = 'UTC' WHERE channel_id = 'munich'")
    scene.query("UPDATE legal_entities SET language = 'de-AT' WHERE legal_entity = 'demf'")
    with publishing(scene, engine) as publisher:
        assert publisher.publish(NOT_STOPPED) == 1
        # when, then: the topic is deleted and created again
        name = scene.settings.topic(CHANNEL_SETTINGS)
        admin_client(scene.settings).delete_topics([name])[name].result()
        wait_for(lambda: not topic_exists(scene.settings, name), "the deletion")
        apply_topics(scene.settings)
        assert publisher.was_recreated()
        wait_for(lambda: has_begun(publisher), "leaders of the new topic")
        assert publisher.publish(NOT_STOPPED) == 3
    assert [value and value["legal_entity"]["language"] for _, value in published(scene, 3)] == [
        "en-US",
        "en-US",
        "de-AT",
    ]


def test_restored_database_takes_back_keys_and_suspensions_before_anything_is_published(
    scene: Scene, engine: Engine
) -> None:
    """A store that has joined since, another key, a revoked one, a suspension and its end; from its own records."""
    # given
    suspend(engine, "munich", "stolen", BY)
    of_houston, of_munich = add_key(engine, "houston"), add_key(engine, "munich")
    engine.dispose()
    backup = back_up(scene.url)
    new_of_houston, of_dallas = add_key(engine, "houston"), add_key(engine, "dallas")
    with engine.begin() as headquarters:
        revoke_channel_key(headquarters, "munich", operator=None, source="test", now=datetime.now(UTC))
    resume(engine, "munich", BY)
    suspend(engine, "dallas", "stolen", BY)
    with publishing(scene, engine) as publisher:
        publisher.publish(NOT_STOPPED)
    forge(scene, engine, "austin")
    # when
    engine.dispose()
    restore(scene.url, backup)
    with publishing(scene, engine) as publisher:
        # then
        expected = {"houston": new_of_houston, "dallas": of_dallas}
        assert valid_keys(engine) == expected
        suspended = scene.query("SELECT channel_id, suspended_reason FROM channels WHERE suspended_at IS NOT NULL")
        assert suspended == [{"channel_id": "dallas", "suspended_reason": "stolen"}]
        known = {row["kid"] for row in scene.query("SELECT kid FROM channel_keys")}
        assert known == {of_houston, of_munich, new_of_houston, of_dallas}
        changes = scene.query("SELECT change_id FROM settings_history WHERE source = 'published settings'")
        assert len(changes) == 5
        assert publisher.publish(NOT_STOPPED) == 4
    # when: nothing is lacking
    with publishing(scene, engine) as publisher:
        assert publisher.publish(NOT_STOPPED) == 0
    # when: what the database has changed since is newer than what was published
    resume(engine, "dallas", BY)
    with engine.begin() as headquarters:
        revoke_channel_key(headquarters, "dallas", operator=None, source="test", now=datetime.now(UTC))
    with publishing(scene, engine):
        pass
    # then
    assert valid_keys(engine) == {"houston": new_of_houston}
    assert scene.query("SELECT channel_id FROM channels WHERE suspended_at IS NOT NULL") == []


def add_key(engine: Engine, channel_id: str) -> str:
    """Give a channel a new key; its id."""
    with engine.begin() as headquarters:
        public_key, now = new_key_pair().public_key, datetime.now(UTC)
        return add_channel_key(headquarters, channel_id, public_key, operator=None, source="test", now=now).kid


def valid_keys(engine: Engine) -> dict[str, str]:
    """The ids of the valid keys, by channel."""
    with engine.connect() as headquarters:
        return {key.channel_id: key.kid for key in read_channel_keys(headquarters) if key.revoked_at is None}


def forge(scene: Scene, engine: Engine, channel_id: str) -> None:
    """Publish settings with a key as headquarters does, signed by somebody else who knows the id of its key."""
    with engine.begin() as headquarters:
        own = ensure_headquarters_keys(headquarters)
    signer = RecordSigner.of_headquarters(new_key_pair())
    signer.kid = RecordSigner.of_headquarters(own).kid
    settings = ChannelSettings(
        channel_id=channel_id,
        version=1_000,
        published_at=datetime.now(UTC),
        legal_entity=LegalEntitySettings(name="usrt", country="US", currency="USD", language="en-US"),
        public_key=new_key_pair().public_key,
    )
    schema = contract("ChannelSettings")
    value = encode(schema, to_avro(settings), schema.header)
    producer = Producer(producer_configuration(scene.settings))
    headers = signer.headers("channel-settings", channel_id.encode(), value)
    producer.produce(scene.settings.topic(CHANNEL_SETTINGS), value, channel_id, headers=headers)
    assert producer.flush(60) == 0


def test_publisher_that_was_frozen_cannot_overwrite_its_successor(scene: Scene, engine: Engine) -> None:
    """Its older settings would stay on the topic for ever."""
    # given
    with publishing(scene, engine) as frozen:
        frozen.publish(NOT_STOPPED)
        scene.query("UPDATE channels SET time_zone = 'Europe/Berlin' WHERE channel_id = 'munich'")
        # when
        with publishing(scene, engine) as successor:
            assert successor.publish(NOT_STOPPED) == 1
            with pytest.raises((TransactionFailed, KafkaException)):
                frozen.publish(NOT_STOPPED)
    # then
    assert len(published(scene, 4)) == 4


def test_killed_publisher_is_continued_where_it_was(
    scene: Scene, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that were committed are not sent again."""
    # given
    code = (
        "import threading\n"
        "from pathlib import Path\n"
        "from tenten.avro.wire import contract\n"
        "from tenten.consumers.headquarters.customers import settings_publisher\n"
        "from tenten.settings import load_settings\n"
        "from tenten.sql.engine import open_database\n"
        "settings_publisher.RECORDS_MAX = 1\n"
        "settings = load_settings(Path('tenten.toml'))\n"
        "engine = open_database(settings.headquarters_database())\n"
        "header = contract('ChannelSettings').header\n"
        "publisher = settings_publisher.SettingsPublisher(settings, engine, header)\n"
        "publisher.begin()\n"
        "publisher.publish(threading.Event())\n"
    )
    run_to_failpoint(code, "registrar.after_batch@2", scene.toml.parent)
    # when
    monkeypatch.setattr(settings_publisher, "RECORDS_MAX", 1)
    with publishing(scene, engine) as publisher:
        # then
        assert publisher.publish(NOT_STOPPED) == 1
    assert [key for key, _ in published(scene, 3)] == sorted(LEGAL_ENTITY_BY_CHANNEL)


def test_change_at_headquarters_reaches_a_running_store(scene: Scene, houston: Store) -> None:
    """From the file that is applied to the customers in the store's database, which is all that its own file names."""
    # given
    american, european = houston.create(address_books=["US"]), houston.create(address_books=["EU"])
    document = scene.toml.read_text()
    scene.toml.write_text(document.replace(HOUSTON, HOUSTON.replace("[]", '["US"]')))
    scene.apply_settings()
    database = f"sqlite:///{scene.toml.parent / 'store.db'}"
    channel_tables(database)
    own = {"houston": Channel(database=database)}
    settings = scene.settings.model_copy(update={"channels": own, "legal_entities": {}})
    with scene.headquarters(), open_channel(settings, "houston") as till:
        store = Worker(lambda stop: loop.run(settings, "houston", stop))
        try:
            scene.ask(american, european)
            wait_for(lambda: _customers(till) == {american["customer_id"]}, "the customer", check=store.check)
            # when
            scene.toml.write_text(document.replace(HOUSTON, HOUSTON.replace("[]", '["EU"]')))
            scene.apply_settings()
            # then
            wait_for(lambda: _customers(till) == {european["customer_id"]}, "the other one", check=store.check)
        finally:
            store.stop()
        # The till reads the topic by itself.
        wait_for(lambda: till.settings.channel("houston").address_books == ("EU",), "the till's settings")


HOUSTON = channel("houston", may_erase=True)


def _customers(till: OpenChannel) -> set[str]:
    """The ids of the customers in the store."""
    with till.reading() as connection:
        return set(connection.exec_driver_sql("SELECT customer_id FROM customers").scalars())
