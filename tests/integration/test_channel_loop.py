"""The loop of a channel: replies and snapshots in one SQL transaction per wake-up, on PostgreSQL and on SQLite."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Condition
from typing import Final, Self

import pytest
from filelock import FileLock, Timeout
from sqlalchemy import insert, select, text

from tenten.avro.wire import WriterSchemas
from tenten.consumers.channel import loop, topic_watch
from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.distribution import snapshot_stream
from tenten.consumers.channel.distribution.read_position import load_read_position
from tenten.consumers.channel.distribution.run import run as distribute
from tenten.consumers.channel.distribution.snapshot_stream import SnapshotStream
from tenten.consumers.channel.loop import run
from tenten.consumers.channel.settlement.reply_stream import ReplyStream
from tenten.kafka import assigned_reader
from tenten.kafka.partitioner import partition_of
from tenten.kafka.schema_registry import writer_schemas
from tenten.runtime.errors import RegistryUnavailable
from tenten.schemas.tables import channel
from tenten.schemas.topics import CHANNEL_REPLIES, CUSTOMERS
from tenten.sql.locks import apply_lock
from tenten.status import group_lags
from tests.channel_scene import (
    AT,
    CHANNEL,
    DEADLINE_SECONDS,
    ChannelScene,
    customer,
    guid,
    reply,
    set_channel_scene,
    state,
)
from tests.forked import ended_with_block, fork_program
from tests.settings_file import PARTITIONS

LOOP: Final = (
    "import json, sys, threading\n"
    "from tenten.settings import Settings\n"
    "from tenten.consumers.channel.loop import run\n"
    f"run(Settings.model_validate(json.loads(sys.argv[1])), {CHANNEL!r}, threading.Event())"
)


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, channel_url: str) -> Iterator[ChannelScene]:
    """A channel on each of the two databases."""
    with set_channel_scene(tmp_path, bootstrap_servers, prefix, channel_url) as made:
        yield made


def test_reply_and_snapshot_of_a_new_customer(scene: ChannelScene) -> None:
    """The channel's own customer gets its number and its version, another store's customer arrives."""
    # given
    own, other = customer("Ann"), customer("Bob")
    created = scene.create(own.customer_id, own.customer)
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(created, account_number=own.account_number, version=1))
        scene.headquarters.send(own, other)
        scene.wait_until_level()
        scene.wait_until_replies_read()
    # then
    assert scene.visible() == {
        own.customer_id: (own.account_number, 1, "Ann"),
        other.customer_id: (other.account_number, 1, "Bob"),
    }
    assert scene.outbox()[created.event_id]["outcome"] == "synchronized"
    assert scene.counts() == (2, 2, 4)


@contextmanager
def writers_held_up(scene: ChannelScene, customer_id: str) -> Iterator[None]:
    """Nobody else can write this customer: PostgreSQL's row is locked, SQLite has a writer already."""
    with scene.engine.begin() as clerk:
        clerk.execute(select(channel.customers).where(channel.customers.c.customer_id == customer_id).with_for_update())
        yield


def waits_for_the_database(scene: ChannelScene) -> bool:
    """Whether another process waits for a lock of the channel's database."""
    if scene.engine.dialect.name == "postgresql":
        with scene.engine.connect() as connection:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(connection.scalar(text(waiting)))
    try:
        with FileLock(f"{scene.engine.url.database}.turn.lock", timeout=0):
            return False
    except Timeout:
        return True


def test_replies_and_snapshots_of_a_wake_up_are_one_transaction(scene: ChannelScene) -> None:
    """Killed after both were written and before the commit, the loop has written neither; the next one writes both."""
    # given
    started, first, second = (scene.create(guid(), state(name)) for name in ("Started", "First", "Second"))
    other = customer("Other")
    given = json.dumps(scene.settings.model_dump(mode="json"))
    environment = {**os.environ, "TENTEN_FAILPOINT": "distribution.before_commit"}
    # when
    process = fork_program(
        LOOP, given, directory=scene.directory, log=scene.directory / "killed.log", environment=environment
    )
    with ended_with_block(process):
        scene.headquarters.reply(reply(started, account_number="C-0", version=1))
        scene.wait(lambda: scene.outbox()[started.event_id]["outcome"] == "synchronized", "the loop to run")
        with writers_held_up(scene, first.customer_id):
            scene.headquarters.reply(reply(first, account_number="C-1", version=1))
            scene.wait(lambda: waits_for_the_database(scene), "the loop to write")
            scene.headquarters.reply(reply(second, account_number="C-2", version=1))
            scene.headquarters.send(other)
            time.sleep(1.5)
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    # then
    assert scene.outbox()[first.event_id]["outcome"] == "synchronized"
    assert scene.outbox()[second.event_id]["outcome"] is None
    assert other.customer_id not in scene.visible()
    # when
    with scene.running(run):
        scene.wait_until_level()
        scene.wait_until_replies_read()
    # then
    assert scene.outbox()[second.event_id]["outcome"] == "synchronized"
    assert scene.visible()[other.customer_id] == (other.account_number, 1, "Other")


def test_replies_are_settled_while_a_snapshot_partition_is_stopped(scene: ChannelScene) -> None:
    """An unreadable snapshot stops its own partition, and neither the other ones nor the replies."""
    # given
    created = scene.create(guid(), state("Ann"))
    broken, fine = customer("Broken"), customer("Fine")
    while partition_of(fine.customer_id, PARTITIONS) == partition_of(broken.customer_id, PARTITIONS):
        fine = replace(fine, customer_id=guid())
    # when
    with scene.running(run):
        scene.headquarters.raw(CUSTOMERS.name, (broken.customer_id, b"rubbish"))
        scene.headquarters.send(fine)
        scene.wait(lambda: fine.customer_id in scene.visible(), "the readable snapshot")
        scene.headquarters.reply(reply(created, account_number="C-1", version=1))
        scene.wait(lambda: scene.outbox()[created.event_id]["outcome"] == "synchronized", "the reply")
    # then
    assert broken.customer_id not in scene.visible()


def test_replies_are_settled_while_the_schema_of_snapshots_cannot_be_looked_up(
    scene: ChannelScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the lookup of a new schema is retried, the replies are read on, from streams that stay open."""
    # given
    lookups: list[bytes] = []
    opened: list[str] = []

    def look_up(fingerprint: bytes) -> None:
        lookups.append(fingerprint)
        raise RegistryUnavailable("the schema registry does not answer")

    class Counted(ReplyStream):
        def __enter__(self) -> Self:
            opened.append(self.topic.name)
            return super().__enter__()

    monkeypatch.setattr(snapshot_stream, "writer_schemas", lambda _: WriterSchemas(by_fingerprint=look_up))
    monkeypatch.setattr(loop, "ReplyStream", Counted)
    created, waiting = scene.create(guid(), state("Ann")), customer("Waiting")
    # when
    with scene.running(run):
        scene.headquarters.raw(CUSTOMERS.name, (waiting.customer_id, b"\xc3\x01newer..."))
        scene.wait(lambda: len(lookups) >= 3, "the lookup to be retried")
        scene.headquarters.reply(reply(created, account_number="C-1", version=1))
        scene.wait(lambda: scene.outbox()[created.event_id]["outcome"] == "synchronized", "the reply")
    # then
    assert len(opened) == len(set(opened))


def test_snapshots_are_applied_while_a_reply_is_unreadable(scene: ChannelScene) -> None:
    """An unreadable reply stops its own topic, and not the snapshots."""
    # given
    sent = customer("Ann")
    # when
    with scene.running(run):
        scene.headquarters.raw(CHANNEL_REPLIES.name, (CHANNEL, b"rubbish"))
        scene.headquarters.send(sent)
        scene.wait_until_level()
    # then
    assert set(scene.visible()) == {sent.customer_id}


def test_replies_are_settled_while_another_process_applies_snapshots(scene: ChannelScene) -> None:
    """Snapshots wait for the apply lock, as in the last step of a resync; replies do not."""
    # given
    created, sent = scene.create(guid(), state("Ann")), customer("Bob")
    # when
    with scene.running(run):
        with apply_lock(scene.engine):
            scene.headquarters.send(sent)
            scene.headquarters.reply(reply(created, account_number="C-1", version=1))
            scene.wait(lambda: scene.outbox()[created.event_id]["outcome"] == "synchronized", "the reply")
            time.sleep(0.5)
            assert sent.customer_id not in scene.visible()
        scene.wait_until_level()
    # then
    assert sent.customer_id in scene.visible()


def test_replies_are_settled_while_the_channel_resyncs(scene: ChannelScene) -> None:
    """The resync that the loop has started waits for the apply lock; a reply that arrives meanwhile is settled."""
    # given
    created, sent = scene.create(guid(), state("Ann")), customer("Bob")
    scene.headquarters.send(sent)
    with scene.running(run):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        connection.execute(insert(channel.resync_requests).values(reason="a new column", requested_at=AT))
    # when
    with scene.running(run):
        with apply_lock(scene.engine):
            scene.headquarters.reply(reply(created, account_number="C-1", version=1))
            scene.wait(lambda: scene.outbox()[created.event_id]["outcome"] == "synchronized", "the reply")
            assert scene.rows(channel.resync_requests) != []
        scene.wait(lambda: scene.rows(channel.resync_requests) == [], "the resync")
        later = customer("Later")
        scene.headquarters.send(later)
        scene.wait_until_level()
    # then
    assert later.customer_id in scene.visible()


def test_distribution_alone_waits_for_its_resync(scene: ChannelScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without replies the loop reads no topic during a resync; checks of the topics do not end it."""
    # given
    monkeypatch.setattr(topic_watch, "WATCH_SECONDS", 0.1)
    sent = customer("Bob")
    scene.headquarters.send(sent)
    with scene.running(distribute):
        scene.wait_until_level()
    with scene.engine.begin() as connection:
        connection.execute(insert(channel.resync_requests).values(reason="a new column", requested_at=AT))
    # when
    with scene.running(distribute) as worker:
        with apply_lock(scene.engine):
            time.sleep(1.5)
            worker.check()
            assert scene.rows(channel.resync_requests) != []
        scene.wait(lambda: scene.rows(channel.resync_requests) == [], "the resync")
        later = customer("Later")
        scene.headquarters.send(later)
        scene.wait_until_level()
    # then
    assert later.customer_id in scene.visible()


def test_lag_returns_to_zero(scene: ChannelScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets are committed past the markers of transactions, so that lag monitors show 0 when all is settled."""
    # given
    monkeypatch.setattr(assigned_reader, "MONITORING_SECONDS", 0.5)
    monkeypatch.setattr(assigned_reader, "_MARKER_SECONDS", 0.1)
    created = scene.create(guid(), state("Ann"))
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(created, account_number="C-1", version=1))
        scene.headquarters.send(*(customer(f"Bob {number}") for number in range(20)))
        # then
        scene.wait(lambda: _lag(scene) == 0, "no lag")


def test_check_of_ends_does_not_hide_a_newer_end(scene: ChannelScene) -> None:
    """Kafka tells an end once. A check whose answer is older must not replace it, or the channel would show a lag until
    the partition's next record.
    """
    # given
    name = scene.settings.topic(CUSTOMERS)
    before = scene.headquarters.ends(name)
    view = ChannelView.of(scene.settings, CHANNEL, writer_schemas(scene.settings))
    position, _ = load_read_position(scene.settings, scene.engine, view.filter)
    with SnapshotStream(scene.settings, scene.engine, view, position, Condition()) as stream:
        # Only an end behind what nobody reads: an aborted record and its marker.
        scene.headquarters.raw(CUSTOMERS.name, (guid(), None), abort=True)
        ends = scene.headquarters.ends(name)
        (partition,) = (partition for partition, end in ends.items() if end != before[partition])
        scene.wait(lambda: stream.moves().offsets.get(partition) == (0, ends[partition]), "the end")
        # when
        stream.confirm(before)
        # then
        assert stream.moves().offsets[partition] == (0, ends[partition])


def _lag(scene: ChannelScene) -> int:
    """The lag of the channel's group in what it has read, in offsets."""
    lags = [lag for lag in group_lags(scene.settings) if lag.group.endswith(f"channel.{CHANNEL}")]
    read = [lag for lag in lags if lag.topic.endswith(CUSTOMERS.name) or lag.committed is not None]
    assert read
    return sum(lag.lag for lag in read)
