"""Settlement: headquarters' replies reach a channel's outbox and its customers, on PostgreSQL and on SQLite."""

import itertools
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from sqlalchemy import delete, insert, update

from tenten.avro.wire import AvroSchema, avro_schema, contract, encode
from tenten.consumers.channel import topic_watch
from tenten.consumers.channel.distribution.run import run as distribute
from tenten.consumers.channel.settlement import reply_stream
from tenten.consumers.channel.settlement.run import run
from tenten.kafka.partitioner import partition_of
from tenten.kafka.schema_registry import publish_schemas
from tenten.kafka.topics_admin import admin_client
from tenten.schemas.messages import Outcome, Reason, Reply, reasons_as_json, to_avro
from tenten.schemas.tables import channel
from tenten.schemas.topics import CHANNEL_REPLIES, SCHEMAS, TRANSACTION_REPLIES
from tenten.sql.notifications import SETTLED_CHANNEL
from tests.channel_scene import (
    AT,
    CHANNEL,
    REASON,
    SETTLEMENT,
    ChannelScene,
    changed,
    customer,
    die_at,
    event,
    guid,
    make_topics,
    reply,
    set_channel_scene,
    state,
    transaction_reply,
    transaction_reply_of_0_1_0,
)
from tests.conftest import NewDatabase
from tests.settings_file import PARTITIONS

NEIGHBOUR = next(
    name
    for name in (f"store-{number}" for number in itertools.count())
    if partition_of(name, PARTITIONS) == partition_of(CHANNEL, PARTITIONS)
)
"""Another channel whose replies go to the same partition."""


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, channel_url: str) -> Iterator[ChannelScene]:
    """A channel on each of the two databases; it has the customers of the address book US."""
    with set_channel_scene(tmp_path, bootstrap_servers, prefix, channel_url, address_books=["US"]) as made:
        yield made


def test_partition_of_agrees_with_producers(bootstrap_servers: str, prefix: str) -> None:
    """Sixty keys of every length modulo four land where `partition_of` says, by the producers' own partitioner."""
    # given
    topic, keys = f"{prefix}keys", ["a" * length for length in range(1, 13)] + [guid() for _ in range(24)]
    keys += [f"store-{number}" for number in range(20)] + ["münchen", "houston", "東京", "\x7f\x80ÿ"]
    with_topic = NewTopic(topic, num_partitions=12)
    producer = Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"})
    found: dict[str, int | None] = {}

    def note(key: str, _: KafkaError | None, message: Message) -> None:
        found[key] = message.partition()

    # when
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([with_topic])[topic].result()
    for key in keys:
        producer.produce(topic, b"", key, on_delivery=partial(note, key))
    producer.flush()
    # then
    assert found == {key: partition_of(key, 12) for key in keys}


def test_reply_settles_its_event_and_stores_the_account_number(scene: ChannelScene) -> None:
    """A synchronized event is closed with outcome, number and version; the pending customer has its account number."""
    # given
    customer_id = guid()
    own_event = scene.create(customer_id, state("Ann"))
    other = scene.create(guid(), state("Bob"))
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(own_event, account_number="C-00000007", version=1))
        scene.wait_until_replies_read()
    # then
    row = scene.outbox()[own_event.event_id]
    assert (row["outcome"], row["account_number"], row["version"], row["reasons"]) == (
        "synchronized",
        "C-00000007",
        1,
        None,
    )
    assert row["settled_at"] is not None
    assert scene.outbox()[other.event_id]["settled_at"] is None
    assert scene.visible() == {customer_id: ("C-00000007", 0, "Ann"), other.customer_id: (None, 0, "Bob")}


def test_account_number_never_changes(scene: ChannelScene) -> None:
    """A customer that has its number keeps it, whatever a reply says."""
    # given
    own_event = scene.create(guid(), state("Ann"))
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(own_event, account_number="C-00000007", version=1))
        scene.headquarters.reply(reply(own_event, account_number="C-00000008", version=1))
        scene.wait_until_replies_read()
    # then
    assert scene.visible() == {own_event.customer_id: ("C-00000007", 0, "Ann")}


def test_rejected_event_stays_unsettled_until_a_later_one_supersedes_it(scene: ChannelScene) -> None:
    """The clerk sees the reasons and their own input; when the event is superseded, it is settled."""
    # given
    own_event = scene.create(guid(), state("Ann"))
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(own_event, Outcome.REJECTED, reasons=(REASON,)))
        scene.wait_until_replies_read()
        # then
        row = scene.outbox()[own_event.event_id]
        assert (row["outcome"], row["settled_at"]) == ("rejected", None)
        assert row["reasons"] == [{"field": "first_name", "code": "too_long", "text": "is longer than 100 characters"}]
        assert scene.visible() == {own_event.customer_id: (None, 0, "Ann")}
        # when
        scene.headquarters.reply(reply(own_event, Outcome.SUPERSEDED, account_number="C-00000001", version=1))
        scene.wait_until_replies_read()
    # then
    row = scene.outbox()[own_event.event_id]
    assert (row["outcome"], row["settled_at"] is not None, row["reasons"]) == ("superseded", True, None)


def test_discarded_event_stays_discarded(scene: ChannelScene) -> None:
    """The clerk gave it up; a reply that comes after that opens nothing again."""
    # given
    own_event = event(guid(), state("Ann"), ["first_name"])
    scene.append(own_event, outcome="discarded", settled_at=AT)
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(own_event, Outcome.REJECTED, reasons=(REASON,)))
        scene.wait_until_replies_read()
    # then
    row = scene.outbox()[own_event.event_id]
    assert (row["outcome"], row["settled_at"]) == ("discarded", AT)


def test_repeated_reply_changes_nothing(scene: ChannelScene) -> None:
    """The same reply again, as after a repeat of the event, leaves the row unchanged."""
    # given
    own_event = scene.create(guid(), state("Ann"))
    with scene.running(run):
        scene.headquarters.reply(reply(own_event, account_number="C-00000001", version=1))
        scene.wait_until_replies_read()
        before = scene.outbox()
        # when
        scene.headquarters.reply(*[reply(own_event, account_number="C-00000001", version=1)] * 3)
        scene.wait_until_replies_read()
    # then
    assert scene.outbox() == before


def test_replies_to_others_and_to_unknown_events_change_nothing(scene: ChannelScene) -> None:
    """Another channel's replies in our partition, readable or not, and replies to unknown events are skipped."""
    # given
    own_event = scene.create(guid(), state("Ann"))
    before = scene.outbox()
    unknown = event(guid(), state("Lost"), ["first_name"])
    # when
    with scene.running(run):
        scene.headquarters.reply(
            replace(reply(own_event, account_number="C-00000009", version=1), channel_id=NEIGHBOUR),
            reply(unknown, account_number="C-00000002", version=1),
        )
        scene.headquarters.raw(CHANNEL_REPLIES.name, (NEIGHBOUR, b"rubbish"), (NEIGHBOUR, None))
        scene.wait_until_replies_read()
    # then
    assert scene.outbox() == before
    assert scene.visible() == {own_event.customer_id: (None, 0, "Ann")}


def test_erased_customer_leaves_the_channel(scene: ChannelScene) -> None:
    """All its rows go, and its events are settled as erased, with nothing personal left in them."""
    # given
    ann, bob = customer("Ann"), customer("Bob")
    with scene.running(distribute):
        scene.headquarters.send(ann, bob)
        scene.wait_until_level()
    first = scene.edit(ann, replace(ann.customer, first_name="Secret"), ["first_name"])
    second = event(ann.customer_id, replace(ann.customer, last_name="Secret"), ["last_name"])
    scene.append(second, is_sent=False)
    keys = [ann.customer_id, first.event_id, bob.customer_id]
    with scene.engine.begin() as connection:
        rows = [{"request_key": key, "digest": "of its request", "recorded_at": AT} for key in keys]
        connection.execute(insert(channel.request_keys), rows)
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(first, Outcome.ERASED))
        scene.wait_until_replies_read()
    # then
    assert set(scene.visible()) == {bob.customer_id}
    assert scene.counts() == (1, 1, 2)
    assert scene.rows(channel.snapshots) == []
    for row in scene.outbox().values():
        assert (row["outcome"], row["settled_at"] is not None) == ("erased", True)
        assert b"Secret" not in bytes(row["payload"])
    digests = {row["request_key"]: row["digest"] for row in scene.rows(channel.request_keys)}
    assert digests == {ann.customer_id: "", first.event_id: "", bob.customer_id: "of its request"}


def test_base_snapshot_is_deleted_with_the_last_overlay(scene: ChannelScene) -> None:
    """The snapshot with the edit came before its reply: the reply ends the overlay, and the row is the snapshot's."""
    # given
    first = customer("Ann")
    with scene.running(distribute):
        scene.headquarters.send(first)
        scene.wait_until_level()
        own_event = scene.edit(first, replace(first.customer, first_name="Clerk"), ["first_name"])
        # Headquarters' operators have changed it once more since the edit.
        scene.headquarters.send(replace(changed(first, first_name="Corrected"), version=3))
        scene.wait_until_level()
    assert scene.visible() == {first.customer_id: (first.account_number, 3, "Clerk")}
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(own_event, account_number=first.account_number, version=2))
        scene.wait_until_replies_read()
    # then
    assert scene.visible() == {first.customer_id: (first.account_number, 3, "Corrected")}
    assert scene.rows(channel.snapshots) == []


def test_edit_settled_before_its_snapshot_stays_visible(scene: ChannelScene) -> None:
    """The reply says version 2, the channel has version 1: the edit is still what the clerk sees."""
    # given
    first = customer("Ann")
    with scene.running(distribute):
        scene.headquarters.send(first)
        scene.wait_until_level()
    own_event = scene.edit(first, replace(first.customer, first_name="Clerk"), ["first_name"])
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(own_event, account_number=first.account_number, version=2))
        scene.wait_until_replies_read()
    # then
    assert scene.visible() == {first.customer_id: (first.account_number, 1, "Clerk")}
    assert len(scene.rows(channel.snapshots)) == 1


def test_customer_outside_the_filter_leaves_with_its_last_edit(scene: ChannelScene) -> None:
    """It stayed only for its unsettled edit; when that is settled, whatever the version, it goes."""
    # given
    first = customer("Ann", address_books=("US",))
    with scene.running(distribute):
        scene.headquarters.send(first)
        scene.wait_until_level()
        own_event = scene.edit(first, replace(first.customer, first_name="Clerk"), ["first_name"])
        scene.headquarters.send(changed(first, address_books=("JP",)))
        scene.wait_until_level()
    assert set(scene.visible()) == {first.customer_id}
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(own_event, account_number=first.account_number, version=3))
        scene.wait_until_replies_read()
    # then
    assert scene.counts() == (0, 0, 0)


def test_all_waiters_are_notified(
    tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase
) -> None:
    """On PostgreSQL a listener hears of settled and of rejected events when they can be seen."""
    # given
    url = new_database()
    with set_channel_scene(tmp_path, bootstrap_servers, prefix, url) as scene:
        own_event, refused = scene.create(guid(), state("Ann")), scene.create(guid(), state("Bob"))
        with psycopg.connect(url, autocommit=True) as listener, scene.running(run):
            listener.execute(f"LISTEN {SETTLED_CHANNEL}".encode())
            for settling in (
                reply(own_event, account_number="C-00000001", version=1),
                reply(refused, Outcome.REJECTED, reasons=(REASON,)),
            ):
                # when
                scene.headquarters.reply(settling)
                heard = [notice.channel for notice in listener.notifies(timeout=20, stop_after=1)]
                # then
                assert heard == [SETTLED_CHANNEL]
                assert scene.outbox()[settling.event_id]["outcome"] == settling.outcome.lower()


def test_unreadable_reply_is_not_skipped(scene: ChannelScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply to this channel that cannot be read stops settlement; the replies before it are settled."""
    # given
    monkeypatch.setattr(reply_stream, "RETRY_SECONDS", 0.1)
    before, behind = scene.create(guid(), state("Ann")), scene.create(guid(), state("Bob"))
    name = scene.settings.topic(CHANNEL_REPLIES)
    # when
    with scene.running(run):
        scene.headquarters.raw(
            CHANNEL_REPLIES.name,
            (CHANNEL, encode(contract("Reply"), to_avro(reply(before, account_number="C-1", version=1)))),
            (CHANNEL, b"rubbish"),
            (CHANNEL, encode(contract("Reply"), to_avro(reply(behind, account_number="C-2", version=1)))),
        )
        scene.wait(lambda: scene.outbox()[before.event_id]["settled_at"] is not None, "the first reply")
        scene.headquarters.reply(reply(behind, account_number="C-2", version=1))
    # then
    assert scene.outbox()[behind.event_id]["settled_at"] is None
    assert scene.positions(name) == {partition_of(CHANNEL, PARTITIONS): 1}


@pytest.mark.parametrize("others", [0, 30])
def test_unknown_outcome_leaves_its_event_unsettled(
    scene: ChannelScene, capsys: pytest.CaptureFixture[str], others: int
) -> None:
    """An outcome of a later release is passed and logged once, alone or among many replies; later replies settle."""
    # given
    schema = _with_outcome("ADOPTED")
    unknown, repeated, behind = (scene.create(guid(), state(name)) for name in ("Ann", "Bob", "Cid"))
    publish_schemas(scene.settings)
    scene.headquarters.raw(SCHEMAS.name, (schema.fingerprint.hex(), json.dumps(schema.json).encode()))
    before = scene.outbox()
    more = [reply(event(guid(), state("Lost"), ["first_name"]), version=1) for _ in range(others)]
    adopted = [reply(unknown, account_number="C-1", version=1), reply(repeated)]
    # when
    with scene.running(run):
        scene.headquarters.raw(
            CHANNEL_REPLIES.name,
            *((CHANNEL, encode(schema, {**to_avro(each), "outcome": "ADOPTED"})) for each in adopted),
            *((CHANNEL, encode(contract("Reply"), to_avro(each))) for each in more),
        )
        scene.wait_until_replies_read()
        assert scene.outbox() == before
        scene.headquarters.reply(reply(behind, account_number="C-3", version=1))
        scene.wait_until_replies_read()
    # then
    rows = scene.outbox()
    assert rows[behind.event_id]["outcome"] == "synchronized"
    assert [rows[each.event_id]["settled_at"] for each in (unknown, repeated)] == [None, None]
    assert scene.visible()[unknown.customer_id] == (None, 0, "Ann")
    assert [line.split("outcome=")[1].split()[0] for line in _logged(capsys, "unknown_outcome")] == ["ADOPTED"]


@pytest.mark.parametrize("others", [0, 30])
def test_unknown_status_leaves_its_transaction_unsettled(
    scene: ChannelScene, capsys: pytest.CaptureFixture[str], others: int
) -> None:
    """A status of a later release is passed and logged once, alone or among many replies; later replies settle."""
    # given
    order, behind = scene.sell(), scene.sell()
    more = [transaction_reply(guid(), "posted", 1) for _ in range(others)]
    before = scene.outbox()
    # when
    with scene.running(run):
        scene.headquarters.reply(*[transaction_reply(order, "shipped", 1)] * 2, *more)
        scene.wait_until_replies_read()
        assert scene.outbox() == before
        scene.headquarters.reply(transaction_reply(behind, "waiting", 1))
        scene.wait_until_replies_read()
    # then
    assert (scene.sale(order), scene.sale(behind)) == (("pending", None, 0), ("waiting", None, 1))
    assert scene.outbox()[order]["settled_at"] is None
    assert [line.split("outcome=")[1].split()[0] for line in _logged(capsys, "unknown_outcome")] == ["shipped"]


def test_event_that_headquarters_cannot_read_is_shown_as_rejected(scene: ChannelScene) -> None:
    """The clerk sees the reason, and the row is not sent again by itself; when headquarters reads the event in the end,
    its reply settles it, and another copy that cannot be read changes nothing any more.
    """
    # given
    created = scene.create(guid(), state("Ann"))
    unreadable = reply(created, Outcome.UNREADABLE, reasons=(REASON,), judgement=0)
    # when
    with scene.running(run):
        scene.headquarters.reply(unreadable)
        scene.wait_until_replies_read()
        # then
        row = scene.outbox()[created.event_id]
        assert (row["outcome"], row["settled_at"], row["reasons"][0]["code"]) == ("rejected", None, REASON.code)
        # when
        scene.headquarters.reply(reply(created, account_number="C-1", version=1, judgement=1), unreadable)
        scene.wait_until_replies_read()
    # then
    assert scene.outbox()[created.event_id]["outcome"] == "synchronized"


def test_record_of_another_type_is_passed(scene: ChannelScene, capsys: pytest.CaptureFixture[str]) -> None:
    """A record of a type that a later release writes to the topic stops nothing, and is logged once."""
    # given
    created = scene.create(guid(), state("Ann"))
    fields = [{"name": "channel_id", "type": "string"}, {"name": "note", "type": "string"}]
    schema = avro_schema({"type": "record", "namespace": "tenten", "name": "Announcement", "fields": fields})
    publish_schemas(scene.settings)
    scene.headquarters.raw(SCHEMAS.name, (schema.fingerprint.hex(), json.dumps(schema.json).encode()))
    announcement = encode(schema, {"channel_id": CHANNEL, "note": "closed on Monday"})
    # when
    with scene.running(run):
        scene.headquarters.raw(CHANNEL_REPLIES.name, (CHANNEL, announcement), (CHANNEL, announcement))
        scene.headquarters.reply(reply(created, account_number="C-1", version=1))
        scene.wait_until_replies_read()
    # then
    assert scene.outbox()[created.event_id]["outcome"] == "synchronized"
    (line,) = _logged(capsys, "unknown_record_type")
    assert "Announcement" in line


def _with_outcome(symbol: str) -> AvroSchema:
    """The schema of a later release: `Reply` with another outcome."""
    declaration = deepcopy(contract("Reply").json)
    outcome = next(field for field in declaration["fields"] if field["name"] == "outcome")
    outcome["type"]["symbols"].insert(0, symbol)
    return avro_schema(declaration)


def _logged(capsys: pytest.CaptureFixture[str], name: str) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if name in line]


@pytest.mark.parametrize("failpoint", ["settlement.before_commit", "settlement.after_commit"])
def test_killed_settlement_continues_at_its_position(scene: ChannelScene, failpoint: str) -> None:
    """Outbox and position move together: killed before or after the commit, every reply is settled once."""
    # given
    events = [scene.create(guid(), state(f"Ann {number}")) for number in range(3)]
    scene.headquarters.reply(
        *(reply(created, account_number=f"C-{number}", version=1) for number, created in enumerate(events))
    )
    # when
    die_at(scene, failpoint, SETTLEMENT)
    # then
    settled = [row for row in scene.outbox().values() if row["settled_at"] is not None]
    assert len(settled) == (3 if failpoint == "settlement.after_commit" else 0)
    # when
    with scene.running(run):
        scene.wait_until_replies_read()
    # then
    assert {row["outcome"] for row in scene.outbox().values()} == {"synchronized"}


_READ = (channel.positions, channel.topics)


def test_recreated_replies_topic_is_read_from_its_beginning(scene: ChannelScene) -> None:
    """The topic was deleted and recreated: the channel reads the new one from its first reply on."""
    # given
    first, second = scene.create(guid(), state("Ann")), scene.create(guid(), state("Bob"))
    name = scene.settings.topic(CHANNEL_REPLIES)
    with scene.running(run):
        scene.headquarters.reply(reply(first, account_number="C-1", version=1))
        scene.wait_until_replies_read()
    admin = admin_client(scene.settings)
    admin.delete_topics([name])[name].result()
    scene.wait(lambda: name not in admin.list_topics(timeout=10).topics, "the deletion")
    make_topics(scene.settings)
    # when
    scene.headquarters.reply(reply(second, account_number="C-2", version=1))
    with scene.running(run):
        scene.wait(lambda: scene.outbox()[second.event_id]["outcome"] == "synchronized", "the second reply")
    # then
    ids = [{row["topic_id"] for row in scene.rows(table) if row["topic"] == name} for table in _READ]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 1


def test_lost_reply_offset_restarts_at_the_beginning(scene: ChannelScene) -> None:
    """Older replies were deleted, as after a month away: settlement logs it and reads from the beginning."""
    # given
    own_event = scene.create(guid(), state("Ann"))
    with scene.running(run):
        scene.headquarters.reply(reply(event(guid(), state("Lost"), ["first_name"]), account_number="C-0", version=1))
        scene.wait_until_replies_read()
    with scene.engine.begin() as connection:
        connection.execute(update(channel.positions).values(next_offset=1_000))
    # when
    scene.headquarters.reply(reply(own_event, account_number="C-1", version=1))
    with scene.running(run):
        scene.wait_until_replies_read()
    # then
    assert scene.outbox()[own_event.event_id]["outcome"] == "synchronized"


def test_reply_to_an_order_settles_it_and_stores_its_status(scene: ChannelScene) -> None:
    """The order has status and sales order, its row of the outbox is closed, and its customer is not touched."""
    # given
    ann = scene.create(guid(), state("Ann"))
    order, other = scene.sell(ann.customer_id), scene.sell()
    # when
    with scene.running(run):
        scene.headquarters.reply(transaction_reply(order, "synchronized", 1, sales_order="S-00000001"))
        scene.wait_until_replies_read()
    # then
    assert scene.sale(order) == ("synchronized", "S-00000001", 1)
    assert scene.sale(other) == ("pending", None, 0)
    rows = scene.outbox()
    assert rows[order]["settled_at"] is not None
    assert (rows[order]["outcome"], rows[order]["reasons"], rows[order]["version"]) == ("synchronized", None, None)
    assert rows[other]["settled_at"] is rows[ann.event_id]["settled_at"] is None
    assert scene.visible() == {ann.customer_id: (None, 0, "Ann")}


def test_reply_with_the_highest_number_wins_in_any_order(scene: ChannelScene) -> None:
    """Waiting, then a sales order; a lower number that comes later, in the same batch or another, changes nothing."""
    # given
    order, late = scene.sell(), scene.sell()
    # when
    with scene.running(run):
        scene.headquarters.reply(transaction_reply(order, "waiting", 1))
        scene.wait_until_replies_read()
        assert scene.sale(order) == ("waiting", None, 1)
        settled_at = scene.outbox()[order]["settled_at"]
        scene.headquarters.reply(
            transaction_reply(order, "synchronized", 3, sales_order="S-1"),
            transaction_reply(order, "blocked", 2, reasons=(REASON,)),
            transaction_reply(late, "synchronized", 2, sales_order="S-2"),
        )
        scene.headquarters.reply(
            transaction_reply(late, "waiting", 1), transaction_reply(order, "rejected", 3, reasons=(REASON,))
        )
        scene.wait_until_replies_read()
    # then
    assert (scene.sale(order), scene.sale(late)) == (("synchronized", "S-1", 3), ("synchronized", "S-2", 2))
    assert [row["reasons"] for row in scene.rows(channel.transactions)] == [None, None]
    assert scene.outbox()[order]["settled_at"] == settled_at is not None


@pytest.mark.parametrize("status", ["waiting", "blocked", "rejected", "posted"])
def test_reply_to_an_end_of_day(scene: ChannelScene, status: str) -> None:
    """Its status and its reasons are shown, and whatever the answer is, its row of the outbox is settled."""
    # given
    end, reasons = scene.close(), () if status == "posted" else (REASON,)
    # when
    with scene.running(run):
        scene.headquarters.reply(transaction_reply(end, status, 1, reasons=reasons))
        scene.wait_until_replies_read()
    # then
    stored = [{"field": reason.field, "code": reason.code, "text": reason.text} for reason in reasons] or None
    assert scene.sale(end) == (status, None, 1)
    assert [row["reasons"] for row in scene.rows(channel.end_of_days)] == [stored]
    row = scene.outbox()[end]
    assert (row["outcome"], row["reasons"]) == ("rejected" if status == "rejected" else "synchronized", stored)
    assert row["settled_at"] is not None


def test_reply_before_the_row_has_left_the_queue_settles(scene: ChannelScene) -> None:
    """The row is still queued; the answer is new all the same."""
    # given
    order = scene.sell(is_sent=False)
    # when
    with scene.running(run):
        scene.headquarters.reply(transaction_reply(order, "waiting", 1))
        scene.wait_until_replies_read()
    # then
    assert scene.outbox()[order]["settled_at"] is not None


def test_old_reply_does_not_prevent_a_resend(scene: ChannelScene) -> None:
    """A clerk sends a rejected order again; the rejection comes once more before the relay has sent it."""
    # given
    order = scene.sell(is_sent=False)
    with scene.engine.begin() as connection:
        connection.execute(update(channel.transactions).values(answer=4))
    # when
    with scene.running(run):
        scene.headquarters.reply(transaction_reply(order, "rejected", 4, reasons=(REASON,)))
        scene.wait_until_replies_read()
        # then
        assert scene.sale(order) == ("pending", None, 4)
        assert scene.outbox()[order]["settled_at"] is None
        # when
        scene.headquarters.reply(transaction_reply(order, "synchronized", 5, sales_order="S-1"))
        scene.wait_until_replies_read()
    # then
    assert scene.sale(order) == ("synchronized", "S-1", 5)
    assert scene.outbox()[order]["settled_at"] is not None


def test_transaction_that_headquarters_cannot_read_is_shown_as_rejected(scene: ChannelScene) -> None:
    """The clerk sees the reason, and nothing is sent again by itself; a reply to a record that headquarters read in the
    end counts, and the one that it could not read comes too late to change it.
    """
    # given
    order, end, resent = scene.sell(), scene.close(), scene.sell(is_sent=False)
    with scene.engine.begin() as connection:
        is_resent = channel.transactions.c.transaction_id == resent
        connection.execute(update(channel.transactions).where(is_resent).values(answer=-1))
    unreadable = {
        transaction_id: transaction_reply(transaction_id, "rejected", -1, reasons=(REASON,))
        for transaction_id in (order, end, resent)
    }
    # when
    with scene.running(run):
        scene.headquarters.reply(*unreadable.values())
        scene.wait_until_replies_read()
        # then
        rows = scene.outbox()
        assert (scene.sale(order), scene.sale(end)) == (("rejected", None, -1), ("rejected", None, -1))
        assert [row["reasons"][0]["code"] for row in scene.rows(channel.end_of_days)] == [REASON.code]
        assert rows[order]["settled_at"] is not None
        assert rows[end]["settled_at"] is not None
        # A clerk has sent it again since the first reply, and the relay has not.
        assert scene.sale(resent) == ("pending", None, -1)
        assert rows[resent]["settled_at"] is None
        # when
        read = (transaction_reply(order, "waiting", 1), transaction_reply(resent, "synchronized", 1))
        scene.headquarters.reply(*read, unreadable[order])
        scene.wait_until_replies_read()
    # then
    assert (scene.sale(order), scene.sale(resent)) == (("waiting", None, 1), ("synchronized", None, 1))


def test_reply_to_an_unknown_transaction_changes_nothing(scene: ChannelScene) -> None:
    """The database was restored from a backup; customers' replies in the same batch are settled as usual."""
    # given
    ann = scene.create(guid(), state("Ann"))
    order = scene.sell()
    # when
    with scene.running(run):
        scene.headquarters.reply(
            transaction_reply(guid(), "synchronized", 1, sales_order="S-1"),
            reply(ann, account_number="C-00000001", version=1),
            transaction_reply(guid(), "posted", 1),
        )
        scene.wait_until_replies_read()
    # then
    assert scene.sale(order) == ("pending", None, 0)
    assert scene.visible() == {ann.customer_id: ("C-00000001", 0, "Ann")}
    assert scene.outbox()[ann.event_id]["outcome"] == "synchronized"
    assert len(scene.outbox()) == 2


def test_hundreds_of_replies_in_one_batch(scene: ChannelScene) -> None:
    """More than a small batch: orders, ends of day and customers' events mixed."""
    # given
    orders, ends = [scene.sell() for _ in range(60)], [scene.close() for _ in range(20)]
    people = [scene.create(guid(), state(f"Ann {number}")) for number in range(20)]
    # when
    scene.headquarters.reply(
        *(transaction_reply(order, "synchronized", 1, sales_order=f"S-{at}") for at, order in enumerate(orders)),
        *(reply(created, account_number=f"C-{number}", version=1) for number, created in enumerate(people)),
        *(transaction_reply(end, "posted", 1) for end in ends),
    )
    with scene.running(run):
        scene.wait_until_replies_read()
    # then
    assert [scene.sale(order) for order in orders] == [("synchronized", f"S-{at}", 1) for at in range(60)]
    assert {scene.sale(end_of_day) for end_of_day in ends} == {("posted", None, 1)}
    assert {number for number, _, _ in scene.visible().values()} == {f"C-{at}" for at in range(20)}
    assert all(row["settled_at"] is not None for row in scene.outbox().values())


# Replies of release 0.1.0, which answered transactions on `channel-replies`.


@pytest.mark.parametrize("others", [0, 30])
def test_reply_of_0_1_0_settles_a_transaction(scene: ChannelScene, others: int) -> None:
    """A `Reply` with a status of a transaction, alone or among many customers' replies, settles the transaction."""
    # given
    order, refused, end = scene.sell(), scene.sell(), scene.close()
    ann = scene.create(guid(), state("Ann"))
    more = [reply(event(guid(), state("Lost"), ["first_name"]), version=1) for _ in range(others)]
    # when
    with scene.running(run):
        scene.headquarters.raw(
            CHANNEL_REPLIES.name,
            (CHANNEL, transaction_reply_of_0_1_0(order, "synchronized", 2, sales_order="S-1")),
            (CHANNEL, transaction_reply_of_0_1_0(refused, "rejected", 1, reasons=reasons_as_json([REASON]))),
            *((CHANNEL, encode(contract("Reply"), to_avro(each))) for each in more),
            (CHANNEL, transaction_reply_of_0_1_0(end, "posted", 1)),
            (CHANNEL, encode(contract("Reply"), to_avro(reply(ann, account_number="C-1", version=1)))),
        )
        scene.wait_until_replies_read()
    # then
    assert [scene.sale(key) for key in (order, refused, end)] == [
        ("synchronized", "S-1", 2),
        ("rejected", None, 1),
        ("posted", None, 1),
    ]
    rows = scene.outbox()
    assert [rows[key]["outcome"] for key in (order, refused, end)] == ["synchronized", "rejected", "synchronized"]
    assert rows[refused]["reasons"] == reasons_as_json([REASON])
    assert scene.visible() == {ann.customer_id: ("C-1", 0, "Ann")}


@pytest.mark.parametrize("first", ["transaction-replies", "channel-replies"])
def test_highest_number_wins_in_any_order_of_the_two_topics(scene: ChannelScene, first: str) -> None:
    """Answers of 0.1.0 and of this release to the same orders: whichever topic is read first, the result is the same.

    One order has its newest answer on the new topic, the other, as after an interrupted upgrade, on the old one.
    """
    # given
    order, other = scene.sell(), scene.sell()
    old = [
        (CHANNEL, transaction_reply_of_0_1_0(order, "waiting", 1)),
        (CHANNEL, transaction_reply_of_0_1_0(order, "blocked", 2, reasons=reasons_as_json([REASON]))),
        (CHANNEL, transaction_reply_of_0_1_0(other, "synchronized", 4, sales_order="S-2")),
    ]
    new = (transaction_reply(order, "synchronized", 3, sales_order="S-1"), transaction_reply(other, "waiting", 3))
    # when
    with scene.running(run):
        for topic in (first, *({"transaction-replies", "channel-replies"} - {first})):
            if topic == "channel-replies":
                scene.headquarters.raw(CHANNEL_REPLIES.name, *old)
            else:
                scene.headquarters.reply(*new)
            scene.wait_until_replies_read()
    # then
    assert (scene.sale(order), scene.sale(other)) == (("synchronized", "S-1", 3), ("synchronized", "S-2", 4))
    assert [row["reasons"] for row in scene.rows(channel.transactions)] == [None, None]
    assert all(row["settled_at"] is not None for row in scene.outbox().values())


def test_store_that_is_upgraded_late_receives_every_answer(scene: ChannelScene) -> None:
    """It has read `channel-replies` only, as 0.1.0 does; then it reads the new topic from its first record on."""
    # given
    orders = [scene.sell() for _ in range(3)]
    scene.headquarters.raw(CHANNEL_REPLIES.name, (CHANNEL, transaction_reply_of_0_1_0(orders[0], "waiting", 1)))
    with scene.running(run):
        scene.wait_until_replies_read()
    with scene.engine.begin() as connection:
        for table in (channel.positions, channel.topics):
            name = scene.settings.topic(TRANSACTION_REPLIES)
            connection.execute(delete(table).where(table.c.topic == name))
    # when
    scene.headquarters.reply(
        transaction_reply(orders[0], "synchronized", 2, sales_order="S-1"), transaction_reply(orders[1], "waiting", 1)
    )
    scene.headquarters.reply(transaction_reply(orders[2], "rejected", 1, reasons=(REASON,)))
    with scene.running(run):
        scene.wait_until_replies_read()
    # then
    assert [scene.sale(order) for order in orders] == [
        ("synchronized", "S-1", 2),
        ("waiting", None, 1),
        ("rejected", None, 1),
    ]


@pytest.mark.parametrize("has_read", [False, True])
def test_transactions_are_sent_again_where_their_answers_were_deleted(scene: ChannelScene, has_read: bool) -> None:
    """Kafka has deleted answers that the channel has not read: what waits or is blocked is sent again, nothing else."""
    # given
    statuses = ("waiting", "blocked", "synchronized", "rejected")
    sold = {status: scene.sell(settled_at=AT, outcome="synchronized") for status in statuses}
    closed = {status: scene.close(settled_at=AT, outcome="synchronized") for status in ("waiting", "posted")}
    with scene.engine.begin() as connection:
        for table, key, ids in (
            (channel.transactions, channel.transactions.c.transaction_id, sold),
            (channel.end_of_days, channel.end_of_days.c.end_of_day_id, closed),
        ):
            for status, transaction_id in ids.items():
                connection.execute(update(table).where(key == transaction_id).values(status=status, answer=1))
    if has_read:
        with scene.running(run):
            scene.wait_until_replies_read()
    scene.headquarters.reply(*(transaction_reply(guid(), "posted", 1) for _ in range(3)))
    name, partition = scene.settings.topic(TRANSACTION_REPLIES), partition_of(CHANNEL, PARTITIONS)
    end = scene.headquarters.ends(name)[partition]
    admin, place = admin_client(scene.settings), TopicPartition(name, partition, end)
    admin.delete_records([place])[place].result()
    # when
    with scene.running(run):
        scene.wait(
            lambda: {key for key, row in scene.outbox().items() if row["settled_at"] is None} != set(), "open rows"
        )
        scene.wait_until_replies_read()
    # then
    queued = {row["sequence"] for row in scene.rows(channel.outbox_queue)}
    unsent = {key for key, row in scene.outbox().items() if row["settled_at"] is None and row["sequence"] in queued}
    assert unsent == {sold["waiting"], sold["blocked"], closed["waiting"]}
    assert {scene.outbox()[key]["outcome"] for key in unsent} == {None}


def test_unreadable_reply_stops_its_topic_only(
    scene: ChannelScene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders are settled while a customer's reply cannot be read."""
    # given
    monkeypatch.setattr(reply_stream, "RETRY_SECONDS", 3600.0)
    ann, order = scene.create(guid(), state("Ann")), scene.sell()
    # when
    with scene.running(run):
        scene.headquarters.raw(CHANNEL_REPLIES.name, (CHANNEL, b"rubbish"))
        scene.headquarters.reply(reply(ann, account_number="C-1", version=1))
        scene.wait(lambda: bool(_logged(capsys, "reply_unreadable")), "the unreadable reply")
        scene.headquarters.reply(transaction_reply(order, "synchronized", 1, sales_order="S-1"))
        scene.wait(lambda: scene.sale(order) == ("synchronized", "S-1", 1), "the order")
    # then
    assert scene.outbox()[ann.event_id]["settled_at"] is None


def test_channel_works_before_the_new_topic_exists(
    scene: ChannelScene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headquarters is older: customers are settled, the log names the topic, which is read as soon as it exists."""
    # given
    monkeypatch.setattr(topic_watch, "WATCH_SECONDS", 0.1)
    ann, order, old_order = scene.create(guid(), state("Ann")), scene.sell(), scene.sell()
    name = scene.settings.topic(TRANSACTION_REPLIES)
    admin = admin_client(scene.settings)
    admin.delete_topics([name])[name].result()
    scene.wait(lambda: name not in admin.list_topics(timeout=10).topics, "the deletion")
    # when
    with scene.running(run):
        scene.headquarters.reply(reply(ann, account_number="C-1", version=1))
        scene.headquarters.raw(CHANNEL_REPLIES.name, (CHANNEL, transaction_reply_of_0_1_0(old_order, "waiting", 1)))
        scene.wait(lambda: scene.sale(old_order) == ("waiting", None, 1), "the replies of an earlier release")
        make_topics(scene.settings)
        scene.headquarters.reply(transaction_reply(order, "synchronized", 1, sales_order="S-1"))
        scene.wait_until_replies_read()
    # then
    assert scene.visible() == {ann.customer_id: ("C-1", 0, "Ann")}
    assert scene.sale(order) == ("synchronized", "S-1", 1)
    (line,) = _logged(capsys, "reply_topic_missing")
    assert name in line


# Judgements: headquarters may judge an event again.


def settle(scene: ChannelScene, replies: Sequence[Reply], *, together: bool) -> None:
    """Run settlement until it has read the replies, sent together or one after the other."""
    with scene.running(run):
        for batch in [replies] if together else [[reply] for reply in replies]:
            scene.headquarters.reply(*batch)
            scene.wait_until_replies_read()


@pytest.mark.parametrize("together", [True, False])
def test_rejected_event_takes_only_a_higher_judgement(scene: ChannelScene, together: bool) -> None:
    """A late repeat of an earlier judgement changes nothing, in the same batch or another; a final reply stays."""
    # given
    ann, bob = scene.create(guid(), state("Ann")), scene.create(guid(), state("Bob"))
    later = Reason(field="last_name", code="required", text="This field is required.")
    replies = [
        reply(ann, Outcome.REJECTED, reasons=(later,), judgement=2),
        reply(ann, Outcome.REJECTED, reasons=(REASON,), judgement=1),
        reply(ann, Outcome.REJECTED, judgement=2),
        reply(ann, Outcome.REJECTED),
        reply(bob, Outcome.REJECTED, reasons=(REASON,), judgement=1),
        reply(bob, Outcome.SUPERSEDED, account_number="C-2", version=2, judgement=2),
        reply(bob, Outcome.REJECTED, reasons=(REASON,), judgement=3),
    ]
    # when
    settle(scene, replies, together=together)
    # then
    rows = scene.outbox()
    assert (rows[ann.event_id]["outcome"], rows[ann.event_id]["judgement"]) == ("rejected", 2)
    assert rows[ann.event_id]["reasons"] == reasons_as_json([later])
    assert (rows[bob.event_id]["outcome"], rows[bob.event_id]["judgement"]) == ("superseded", 2)


@pytest.mark.parametrize("together", [True, False])
def test_held_event_stays_unsettled_until_its_final_reply(scene: ChannelScene, together: bool) -> None:
    """The clerk sees the reasons. A final reply counts whatever its number: a restored headquarters begins at 1."""
    # given
    names = ("Ann", "Bob", "Eve")
    ann, bob, eve = (scene.create(guid(), state(name)) for name in names)
    replies = [
        reply(ann, Outcome.HELD, reasons=(REASON,), judgement=2),
        reply(ann, Outcome.HELD, judgement=1),
        reply(bob, Outcome.HELD, reasons=(REASON,), judgement=2),
        reply(bob, account_number="C-2", version=1, judgement=1),
        reply(bob, Outcome.HELD, reasons=(REASON,), judgement=3),
        reply(eve, Outcome.HELD, reasons=(REASON,), judgement=1),
        reply(eve, Outcome.REJECTED, reasons=(REASON,), judgement=2),
        reply(eve, Outcome.HELD, reasons=(REASON,), judgement=1),
        reply(ann, Outcome.UNREADABLE, reasons=(REASON,), judgement=0),
    ]
    # when
    settle(scene, replies, together=together)
    # then
    rows = {name: scene.outbox()[event.event_id] for name, event in zip(names, (ann, bob, eve), strict=True)}
    assert {name: (row["outcome"], row["judgement"], row["settled_at"] is None) for name, row in rows.items()} == {
        "Ann": ("held", 2, True),
        "Bob": ("synchronized", 1, False),
        "Eve": ("rejected", 2, True),
    }
    assert rows["Ann"]["reasons"] == reasons_as_json([REASON])
    assert scene.visible()[ann.customer_id] == (None, 0, "Ann")


@pytest.mark.parametrize("together", [True, False])
def test_replies_of_0_1_0_without_a_judgement_count_in_their_order(scene: ChannelScene, together: bool) -> None:
    """The later of two counts, and every judgement of this release after them; a final reply stays."""
    # given
    ann, bob = scene.create(guid(), state("Ann")), scene.create(guid(), state("Bob"))
    replies = [
        reply(ann, Outcome.REJECTED, reasons=(REASON,)),
        reply(bob, Outcome.REJECTED, reasons=(REASON,)),
        reply(ann, Outcome.SUPERSEDED, account_number="C-1", version=1),
        reply(ann, Outcome.REJECTED, reasons=(REASON,)),
        reply(bob, Outcome.REJECTED, reasons=(REASON,), judgement=1),
    ]
    # when
    settle(scene, replies, together=together)
    # then
    rows = scene.outbox()
    assert (rows[ann.event_id]["outcome"], rows[ann.event_id]["judgement"]) == ("superseded", 0)
    assert (rows[bob.event_id]["outcome"], rows[bob.event_id]["judgement"]) == ("rejected", 1)
