"""The ways out of an accident at headquarters: `republish`, `recover`, `verify`, and when a topic is complete.

Real broker, real databases, real workers.
"""

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from sqlalchemy import Engine

from tenten.avro.wire import contract
from tenten.consumers.headquarters.customers import republish as republishing
from tenten.consumers.headquarters.customers import scheduled_verification
from tenten.consumers.headquarters.customers import verify as verifying
from tenten.consumers.headquarters.customers.republish import Republished, republish
from tenten.consumers.headquarters.customers.settings_publisher import SettingsPublisher
from tenten.consumers.headquarters.customers.verify import Differences, verify
from tenten.consumers.headquarters.recovery.recover import Recovered, recover
from tenten.identity.channel_keys import add_channel_key
from tenten.identity.keys import new_key_pair
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.topic_status import read_topic_status
from tenten.kafka.topics_admin import admin_client, topic_ids
from tenten.runtime.errors import DatabaseOlderThanStream, DatabaseRefused, LockHeld
from tenten.schemas.topics import CHANNEL_REPLIES, CUSTOMERS, ERASURES, HEADQUARTERS_STATUS
from tenten.sql.engine import open_database
from tenten.sql.slots import workers_stopped
from tests.faults.avro import decode, encode
from tests.faults.checker import violations
from tests.faults.evidence import gather, group_offsets, read_topic
from tests.faults.traffic import Event, Store
from tests.restores import back_up, recreate, restore
from tests.sales import Till, Transaction, reply_with_status, send, status, wait_until
from tests.scenes import SETTING, Scene
from tests.settings_file import PARTITIONS, channel
from tests.waiting import wait_for


@pytest.fixture
def munich() -> Store:
    """A store of the legal entity whose numbers may have gaps, seeded."""
    return Store(channel_id="munich", legal_entity="demf", rng=random.Random(3))


@contextmanager
def database_of(scene: Scene) -> Iterator[Engine]:
    """Headquarters' database, as a command opens it."""
    engine = open_database(scene.url)
    try:
        yield engine
    finally:
        engine.dispose()


def recovered(scene: Scene) -> Recovered:
    """Recover; the result."""
    with database_of(scene) as engine:
        return recover(scene.settings, engine)


def republished(scene: Scene) -> Republished:
    """Republish; the result."""
    with database_of(scene) as engine:
        return republish(scene.settings, engine)


def verified(scene: Scene) -> Differences:
    """Verify; the result."""
    with database_of(scene) as engine:
        return verify(scene.settings, engine)


def declared(scene: Scene) -> list[int] | None:
    """The offsets up to which `customers` is declared complete, for the topic that exists now."""
    found = read_topic_status(scene.settings, CUSTOMERS)
    name = scene.settings.topic(CUSTOMERS)
    current = topic_ids(scene.settings, [name])[name]
    return list(found.complete_offsets) if found is not None and found.topic_id == current.topic_id else None


def violated(scene: Scene) -> list[str]:
    """The invariants that do not hold."""
    return violations(gather(scene.bootstrap_servers, scene.prefix, scene.url), scene.journal, SETTING)


def erasures(scene: Scene) -> dict[str, dict[str, Any]]:
    """The newest record of each key on `erasures`."""
    records = read_topic(scene.bootstrap_servers, scene.prefix, "erasures")
    return {(record.key or b"").decode(): decode("Erasure", record.value or b"") for record in records}


def test_new_topic_is_complete_and_an_erasure_is_kept_for_ever(scene: Scene, houston: Store) -> None:
    """A new system needs no hand; an upgraded one is declared complete by `verify`, which also sends erasures of the
    release before.
    """
    # given
    created, erased = houston.create(), houston.create()
    with scene.headquarters():
        scene.ask(created)
        scene.ask(erased)
        (reply,) = scene.ask(houston.erase(erased["customer_id"]))
    # then
    assert declared(scene) == [0] * PARTITIONS
    record = erasures(scene)[erased["customer_id"]]
    assert (record["account_number"], record["version"], record["legal_entity"]) == ("C-00000002", 2, "usrt")
    assert reply["outcome"] == "ERASED"

    # given: topics as an earlier release would leave them
    for topic in (ERASURES, HEADQUARTERS_STATUS):
        recreate(scene.settings, topic)
    # when
    assert verified(scene).none
    with scene.headquarters():
        wait_for(lambda: erased["customer_id"] in erasures(scene), "the erasure")
    # then
    assert sum(declared(scene) or ()) > 0


def test_recreated_topic_gets_every_customer_again(
    scene: Scene, houston: Store, munich: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not complete until all are sent; an interrupted republication continues where it stopped; nothing is left out."""
    # given
    events = [store.create() for _ in range(4) for store in (houston, munich)]
    gone = events[0]["customer_id"]
    with scene.headquarters():
        scene.ask(*events)
        scene.ask(houston.edit(events[2]["customer_id"], title="Dr."), houston.erase(gone))
        # then
        with database_of(scene) as engine, pytest.raises(LockHeld, match="tenten headquarters run"):
            republish(scene.settings, engine)
    recreate(scene.settings, CUSTOMERS)
    assert declared(scene) is None
    monkeypatch.setattr(republishing, "SLICE_CUSTOMERS", 3)

    # when
    sent: list[int] = []

    def interrupt(done: int, _: int) -> None:
        sent.append(done)
        if done >= 6:
            raise InterruptedError

    with database_of(scene) as engine, pytest.raises(InterruptedError):
        republish(scene.settings, engine, interrupt)
    # then
    assert declared(scene) is None
    # when
    with database_of(scene) as engine:
        result = republish(scene.settings, engine, lambda done, _: sent.append(done))
    # then
    assert sent == [0, 3, 6, 6, 8]
    assert (result.customers, result.erased) == (7, 1)
    records = read_topic(scene.bootstrap_servers, scene.prefix, "customers")
    assert len(records) == 8
    assert {(record.key or b"").decode() for record in records if record.value is None} == {gone}
    assert declared(scene) == [_end(records, partition) for partition in range(PARTITIONS)]
    assert verified(scene).none
    with scene.headquarters():
        (reply,) = scene.ask(houston.create())
    assert reply["account_number"] == "C-00000005"


def _end(records: Any, partition: int) -> int:
    return max((record.offset + 1 for record in records if record.partition == partition), default=0)


def test_worker_and_command_exclude_each_other(scene: Scene) -> None:
    """A worker that is started while a command is alone ends with a message."""
    with database_of(scene) as engine, workers_stopped(engine, scene.settings, ["headquarters"]):
        refusal = _refusal(scene)
    assert isinstance(refusal, LockHeld)
    assert "recover" in str(refusal)


def test_verification_corrects_what_is_missing_surplus_or_different(
    scene: Scene, houston: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torn transaction, a lost tombstone, another state, a customer that only the topic has: each is named; the first
    three are sent again, and until then the topic does not count as complete.
    """
    # given
    monkeypatch.setattr(verifying, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(verifying, "CHUNK_CUSTOMERS", 2)
    events = [houston.create() for _ in range(7)]
    missing, surplus, different = (event["customer_id"] for event in events[:3])
    unknown = houston.guid()
    with scene.headquarters():
        scene.ask(*events)
        scene.ask(houston.erase(surplus))
        assert verified(scene).none
        before = read_topic(scene.bootstrap_servers, scene.prefix, "customers")
        (snapshot,) = [decode("Customer", record.value or b"") for record in before if record.key == different.encode()]
        _write(scene, missing, None)
        _write(scene, surplus, snapshot | {"customer_id": surplus, "account_number": "C-00000091"})
        _write(scene, different, snapshot | {"account_number": "C-00000092"})
        _write(scene, unknown, snapshot | {"customer_id": unknown, "account_number": "C-00000093"})

        # when
        found = verified(scene)
        # then
        assert (found.customers, found.missing, found.different) == (6, (missing,), (different,))
        assert (found.surplus, found.unknown) == (tuple(sorted((surplus, unknown))), (unknown,))
        assert declared(scene) is None

        # when
        wait_for(lambda: len(_customers_after(scene, len(before) + 4)) == 3, "the customers that are sent again")
    # then
    found = verified(scene)
    assert (found.missing, found.different, found.surplus) == ((), (), (unknown,))
    assert declared(scene) is not None
    rows = scene.query("SELECT missing, surplus, different FROM verifications ORDER BY finished_at")
    assert [tuple(row.values()) for row in rows] == [(0, 0, 0), (1, 2, 1), (0, 1, 0)]


def _customers_after(scene: Scene, count: int) -> Any:
    """The records of `customers` beyond this number; they are ordered by partition."""
    return read_topic(scene.bootstrap_servers, scene.prefix, "customers")[count:]


def _write(scene: Scene, customer_id: str, snapshot: dict[str, Any] | None) -> None:
    """Write a snapshot or a tombstone to `customers` past the worker."""
    value = None if snapshot is None else encode("Customer", snapshot)
    producer = Producer({"bootstrap.servers": scene.bootstrap_servers, "partitioner": "murmur2_random"})
    producer.produce(f"{scene.prefix}customers", value, customer_id)
    assert producer.flush(60) == 0


def test_verification_runs_on_a_schedule(scene: Scene, houston: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker compares when the last result is old, and then not again."""
    monkeypatch.setattr(scheduled_verification, "CHECK_SECONDS", 0.05)
    with scene.headquarters():
        wait_for(lambda: bool(scene.query("SELECT 1 FROM verifications")), "the verification")
        scene.ask(houston.create())
        assert len(scene.query("SELECT 1 FROM verifications")) == 1
        scene.query("UPDATE verifications SET finished_at = finished_at - interval '25 hours'")
        wait_for(lambda: len(scene.query("SELECT 1 FROM verifications")) == 2, "the next verification")
    rows = scene.query("SELECT customers FROM verifications ORDER BY finished_at")
    assert [row["customers"] for row in rows] == [0, 1]


@dataclass(slots=True, kw_only=True)
class Told:
    """What stores were told before the accident."""

    till: Till
    events: list[Event]
    replies: list[dict[str, Any]]
    erased: str
    sales_orders: dict[Any, str]
    day: Transaction
    rejected: Transaction


def trade(scene: Scene, houston: Store, munich: Store) -> tuple[str, Told]:
    """Create, edit, reject, erase and sell; in between the backup is made, whose address is returned."""
    till = Till(channel_id="houston")
    early = [store.create(title="") for _ in range(3) for store in (houston, munich)]
    known, edited, forgotten = (event["customer_id"] for event in early[::2])
    with scene.headquarters(), scene.transactions():
        scene.ask(*early)
        order = till.order(early[0])
        send(scene, order)
        reply_with_status(scene, order, "synchronized")
    backup = back_up(scene.url)
    late = [store.create() for _ in range(4) for store in (houston, munich)]
    wrong = houston.edit(known, addresses=[houston.address("XX")])
    edits = [
        houston.edit(edited, title="Dr."),
        houston.edit(edited, title="Prof."),
        wrong,
        houston.edit(known, [wrong], addresses=[], tax_number="T1"),
        houston.erase(forgotten),
        houston.erase(late[2]["customer_id"]),
    ]
    orders = [till.order(late[0]), till.order(), till.order(late[4])]
    sale, rejected = till.sale(), till.sale(total=Decimal(99))
    day = till.end_of_day([sale])
    with scene.headquarters(), scene.transactions():
        scene.ask(*late)
        for edit in edits:
            scene.ask(edit)
        for order in orders:
            send(scene, order)
            wait_until(scene, order, "synchronized")
        send(scene, sale, rejected, day)
        reply_with_status(scene, day, "posted")
        reply_with_status(scene, rejected, "rejected")
    events = [*late, *edits]
    return backup, Told(
        till=till,
        events=events,
        replies=[_told(reply) for reply in scene.replies(*events)],
        erased=late[2]["customer_id"],
        sales_orders=sales_orders(scene),
        day=day,
        rejected=rejected,
    )


def _told(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply as far as a store acts on it."""
    return {name: reply[name] for name in ("outcome", "account_number", "version", "judgement", "reasons")}


def sales_orders(scene: Scene) -> dict[Any, str]:
    """The numbers of the sales orders, by transaction."""
    return {row["transaction_id"]: row["sales_order"] for row in scene.tables().sales.orders}


def _published_key(scene: Scene, channel_id: str) -> str:
    """Give a channel a key, and publish it; its id."""
    with database_of(scene) as engine:
        with engine.begin() as headquarters:
            public_key, now = new_key_pair().public_key, datetime.now(UTC)
            key = add_channel_key(headquarters, channel_id, public_key, operator=None, source="test", now=now)
        publisher = SettingsPublisher(scene.settings, engine, contract("ChannelSettings").header)
        publisher.begin()
        publisher.publish(threading.Event())
        publisher.close()
    return key.kid


def test_restored_database_is_recovered(scene: Scene, houston: Store, munich: Store) -> None:
    """Numbers, versions, erasures, rejections, sales orders: what was told before the accident stands after it."""
    # given
    backup, told = trade(scene, houston, munich)
    before = scene.tables()
    key = _published_key(scene, "dallas")

    # when
    restore(scene.url, backup)
    # then
    assert isinstance(_refusal(scene), DatabaseOlderThanStream)
    with database_of(scene) as engine, pytest.raises(DatabaseOlderThanStream):
        republish(scene.settings, engine)

    # when
    _interrupt_recovery(scene)
    # then
    refusal = _refusal(scene)
    assert isinstance(refusal, DatabaseRefused)
    assert "half recovered" in str(refusal)

    # when
    result = recovered(scene)
    # then
    assert (result.conflicts, result.holes, result.expired, result.orders_without_record) == ((), (), 0, 0)
    # An interrupted recovery has taken it back already.
    assert scene.query("SELECT channel_id, kid FROM channel_keys") == [{"channel_id": "dallas", "kid": key}]
    after = scene.tables()
    assert _known(after.customers) == _known(before.customers)
    assert _logged(after.log) == _logged(before.log)
    assert sales_orders(scene) == told.sales_orders
    assert after.sequences["usrt"] == before.sequences["usrt"]
    again = recovered(scene)
    assert (again.customers, again.erased, again.events, again.sales_orders) == (0, 0, 0, 0)

    # when
    with scene.headquarters(), scene.transactions():
        (created,) = scene.ask(houston.create())
        (edited,) = scene.ask(houston.edit(told.erased, title="X"))
        order = told.till.order()
        send(scene, order)
        reply = reply_with_status(scene, order, "synchronized")
        wait_until(scene, told.day, "posted")
    # then
    assert created["account_number"] == f"C-{before.sequences['usrt']['next']:08d}"
    assert edited["outcome"] == "ERASED"
    assert reply["sales_order"] == "SO-00000005"
    assert status(scene, told.rejected)["status"] == "rejected"
    assert [_told(reply) for reply in scene.replies(*told.events)] == told.replies
    assert verified(scene).none
    assert violated(scene) == []


def _refusal(scene: Scene) -> BaseException:
    """The error with which a customers worker ends."""
    with scene.headquarters() as worker:
        return worker.dies()


def _known(customers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Customers without the time of their last change."""
    return {key: {**row, "updated_at": None, "erased_at": row["erased_at"] is None} for key, row in customers.items()}


def _logged(log: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Log entries without the time and the number of repeats."""
    return {key: {**row, "received_at": None, "repeats": None} for key, row in log.items()}


def _interrupt_recovery(scene: Scene) -> None:
    """Begin a recovery, and end it before the log has been taken back."""

    def interrupt(source: str, *_: int) -> None:
        if source == "channel-replies":
            raise InterruptedError

    with database_of(scene) as engine, pytest.raises(InterruptedError):
        recover(scene.settings, engine, interrupt)


def test_offsets_that_were_moved_are_put_back(scene: Scene, houston: Store) -> None:
    """The group's offsets were moved to the end: the events between are read, as if nothing had happened."""
    # given
    with scene.headquarters():
        scene.ask(houston.create())
    before = scene.tables()
    late = houston.create()
    scene.send(late)
    name, group = f"{scene.prefix}async-customers", f"{scene.prefix}headquarters"
    admin = admin_client(scene.settings)
    ends = last_stable_offsets(scene.settings, name, PARTITIONS)
    moved = [TopicPartition(name, partition, end) for partition, end in ends.items()]
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, moved)])[group].result(60)

    # when
    result = recovered(scene)
    # then
    assert (result.customers, result.erased, result.events, result.repeated) == (0, 0, 0, 1)
    assert _known(scene.tables().customers) == _known(before.customers)
    committed = group_offsets(scene.bootstrap_servers, scene.prefix, "headquarters")
    assert sum(committed.values()) == sum(ends.values()) - 1
    with scene.headquarters():
        (reply,) = scene.replies(late)
    assert reply["account_number"] == "C-00000002"
    assert violated(scene) == []


def test_events_whose_replies_are_lost_are_not_applied_again(scene: Scene, houston: Store) -> None:
    """Database restored and `channel-replies` recreated: a later edit is not overwritten by an earlier one."""
    # given
    created = houston.create(title="")
    customer_id = created["customer_id"]
    with scene.headquarters():
        scene.ask(created)
    backup = back_up(scene.url)
    edits = [houston.edit(customer_id, title="Dr."), houston.edit(customer_id, title="Prof.")]
    with scene.headquarters():
        for edit in edits:
            scene.ask(edit)
    restore(scene.url, backup)
    recreate(scene.settings, CHANNEL_REPLIES)

    # when
    result = recovered(scene)
    with scene.headquarters():
        replies = scene.ask(*edits)
    # then
    assert result.events_without_reply == 2
    assert [(reply["outcome"], reply["version"]) for reply in replies] == [("SYNCHRONIZED", 3)] * 2
    assert scene.tables().states[customer_id]["title"] == "Prof."
    assert scene.tables().customers[customer_id]["version"] == 3


def test_held_event_that_was_judged_since_the_backup_is_not_judged_again(scene: Scene, houston: Store) -> None:
    """The backup has it as held; its customer has been edited since, and stays as it is."""
    # given
    paris = Store(channel_id="paris", legal_entity="usrt", rng=random.Random(4))
    held = paris.create(title="Dr.")
    customer_id = held["customer_id"]
    with scene.headquarters():
        (first,) = scene.ask(held)
    backup = back_up(scene.url)
    scene.toml.write_text(scene.toml.read_text() + channel("paris"))
    scene.apply_settings()
    houston.adopt(paris, customer_id)
    with scene.headquarters():
        wait_for(lambda: scene.replies(held)[0]["outcome"] == "SYNCHRONIZED", "the judgement")
        (edited,) = scene.ask(houston.edit(customer_id, title="Prof."))
    restore(scene.url, backup)
    # when
    recovered(scene)
    # then
    assert scene.query("SELECT 1 FROM held_events") == []
    with scene.headquarters():
        scene.ask(houston.touch(customer_id))
    assert (first["outcome"], edited["version"]) == ("HELD", 2)
    assert scene.tables().states[customer_id]["title"] == "Prof."
    assert scene.tables().customers[customer_id]["version"] == 2
    assert verified(scene).none


def test_numbers_that_were_assigned_twice_are_named(scene: Scene, houston: Store) -> None:
    """A customer whose number another one has is left out; numbers that nobody has are holes. Nothing is made up."""
    # given
    events = [houston.create() for _ in range(4)]
    with scene.headquarters():
        for event in events:
            scene.ask(event)
    _, robbed, robber, gone = (event["customer_id"] for event in events)
    scene.query("DELETE FROM customers WHERE customer_id = ANY(%s::uuid[])", [robbed, gone])
    scene.query("UPDATE customers SET account_number = 'C-00000002', version = 2 WHERE customer_id = %s", robber)
    # when
    result = recovered(scene)
    # then
    assert (result.customers, result.conflicts) == (1, (robbed,))
    assert [(hole.legal_entity, hole.first, hole.last, hole.numbers) for hole in result.holes] == [
        ("usrt", "C-00000003", "C-00000003", 1)
    ]
    (row,) = scene.query("SELECT account_number FROM customers WHERE customer_id = %s", gone)
    assert row["account_number"] == "C-00000004"
    assert scene.query("SELECT next FROM number_sequences WHERE legal_entity = 'usrt'") == [{"next": 5}]
