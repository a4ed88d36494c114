"""The relay publishes the outbox of a channel to its two topics. On PostgreSQL and SQLite, with a real broker."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from typing import Final

import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from sqlalchemy import Connection, delete, insert, text, update

from tenten.avro.wire import contract, encode
from tenten.kafka.topics_admin import admin_client
from tenten.producers import (
    CustomerStatus,
    Item,
    close_day,
    create_customer,
    edit_customer,
    record_order,
    record_sale,
    resend_transaction,
    show_customer,
    show_transaction,
)
from tenten.producers.outbox.queue import OutboxQueue
from tenten.producers.relay import maintenance
from tenten.producers.relay import run as relay
from tenten.producers.relay.producer import DeliveryFailed, RelayProducer
from tenten.runtime.errors import KafkaRefused, LockHeld, TopicChanged
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Attribute, to_avro
from tenten.schemas.tables import channel
from tenten.schemas.topics import ASYNC_CUSTOMERS, RETAIL_TRANSACTIONS
from tests.conftest import NewDatabase
from tests.databases import channel_tables
from tests.forked import run_to_failpoint
from tests.opened_databases import opened
from tests.producer_scene import HOUSTON, Store, decoded, event_ids, set_store
from tests.settings_file import PARTITIONS
from tests.waiting import wait_for

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
TEA = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))


@pytest.fixture
def store(channel_url: str, tmp_path: Path, bootstrap_servers: str, prefix: str) -> Iterator[Store]:
    """A channel on each of the two databases, with topics of its own."""
    with set_store(tmp_path, channel_url, bootstrap_servers=bootstrap_servers, prefix=prefix) as scene:
        yield scene


def test_every_row_is_sent_once_keyed_by_its_customer(store: Store) -> None:
    """Records have the payload byte for byte, the id and the type; the rows leave the queue, and stay unsettled."""
    # given
    created = [create_customer(store.channel, last_name=f"Lovelace {number}") for number in range(20)]
    edit_customer(store.channel, created[0].customer_id, first_name="Ada")
    # when
    with store.relaying():
        store.wait_until_sent()
    # then
    rows = {row["id"]: row for row in store.rows(channel.outbox)}
    messages = store.topic()
    assert sorted(event_ids(messages)) == sorted(rows)
    for message, event_id in zip(messages, event_ids(messages), strict=True):
        headers = dict(message.headers() or [])
        assert (message.key(), message.value()) == (rows[event_id]["aggregateid"].encode(), rows[event_id]["payload"])
        assert headers == {"id": event_id.encode(), "type": rows[event_id]["type"].encode()}
    assert store.unsent_ids() == []
    assert all(row["settled_at"] is None for row in rows.values())


def test_events_of_a_customer_are_sent_in_order(store: Store) -> None:
    """Alternating edits of several customers arrive, customer by customer, in their order."""
    # given
    people = [create_customer(store.channel, last_name=f"Lovelace {number}").customer_id for number in range(3)]
    # when
    with store.relaying():
        for number in range(30):
            edit_customer(store.channel, people[number % 3], first_name=f"Ada {number}")
        store.wait_until_sent()
    # then
    made: dict[str, list[str]] = {}
    for event in store.events():
        made.setdefault(event.customer_id, []).append(event.event_id)
    arrived: dict[str, list[str]] = {}
    for message in store.topic():
        event = decoded(message.value())
        arrived.setdefault(event.customer_id, []).append(event.event_id)
    assert arrived == made


def test_idle_relay_is_notified_of_new_rows(store: Store) -> None:
    """A new row is sent within a fraction of a second, not at the next poll."""
    create_customer(store.channel, last_name="First")
    with store.relaying():
        store.wait_until_sent()
        latencies = []
        for number in range(10):
            # given
            time.sleep(0.05)
            began = time.monotonic()
            # when
            create_customer(store.channel, last_name=f"Lovelace {number}")
            store.wait_until_sent()
            latencies.append(time.monotonic() - began)
    # then
    assert sorted(latencies)[len(latencies) // 2] < 0.5


def test_row_committed_out_of_order_is_still_sent(store: Store) -> None:
    """A slow transaction draws its sequence first and commits last."""
    if store.channel.engine.dialect.name == "sqlite":
        # SQLite has one writer at a time, so the row with the lower sequence is deleted and inserted late by hand.
        first = create_customer(store.channel, last_name="Slow")
        [late] = store.rows(channel.outbox)
        with store.channel.engine.begin() as connection:
            connection.execute(text("DELETE FROM outbox"))
            connection.execute(text("DELETE FROM outbox_queue"))
        with store.relaying():
            create_customer(store.channel, last_name="Quick")
            store.wait_until_sent()
            with store.channel.engine.begin() as connection:
                connection.execute(insert(channel.outbox).values(late))
                connection.execute(insert(channel.outbox_queue).values(sequence=late["sequence"]))
            store.wait_until_sent()
    else:
        with store.relaying(), store.channel.engine.connect() as slow:
            # given
            first = create_customer(store.channel, last_name="Slow")
            store.wait_until_sent()
            [row] = store.rows(channel.outbox)
            sequence = slow.scalar(text("SELECT nextval(pg_get_serial_sequence('outbox', 'sequence'))"))
            slow.execute(insert(channel.outbox).values({**row, "sequence": sequence, "id": first.customer_id}))
            slow.execute(insert(channel.outbox_queue).values(sequence=sequence))
            # when
            create_customer(store.channel, last_name="Quick")
            store.wait_until_sent()
            slow.execute(text("SELECT pg_notify('tenten_outbox', '')"))
            slow.commit()
            # then
            store.wait_until_sent()
    assert sorted(event_ids(store.topic())) == sorted(row["id"] for row in store.rows(channel.outbox))
    assert {row["aggregateid"] for row in store.rows(channel.outbox)} >= {first.customer_id}


def test_second_relay_of_a_channel_is_refused(store: Store) -> None:
    """Two relays would send a customer's events out of order."""
    create_customer(store.channel, last_name="Lovelace")
    with store.relaying():
        store.wait_until_sent()
        with pytest.raises(LockHeld):
            relay.run(HOUSTON, store.settings, Event())


def test_missing_topic_is_refused_at_the_start(store: Store) -> None:
    """The message names the command; waiting would not help."""
    elsewhere = store.settings.model_copy(update={"prefix": store.settings.prefix + "nowhere-"})
    with pytest.raises(KafkaRefused, match="tenten topics apply"):
        relay.run(HOUSTON, elsewhere, Event())


def test_relay_without_a_broker_waits_until_stopped(store: Store) -> None:
    """Nothing is marked, nothing is lost, and a shutdown is not delayed."""
    # given
    create_customer(store.channel, last_name="Lovelace")
    stop = Event()
    waiting = Thread(target=relay.run, args=(HOUSTON, without_broker(store.settings), stop))
    waiting.start()
    # when
    time.sleep(1.5)
    assert waiting.is_alive()
    stop.set()
    waiting.join(10)
    # then
    assert not waiting.is_alive()
    assert len(store.unsent_ids()) == 1


def without_broker(settings: Settings) -> Settings:
    """The settings with the address of no broker."""
    return settings.model_copy(update={"kafka": {"bootstrap.servers": "127.0.0.1:1"}})


def test_rows_without_a_reply_are_sent_again_with_a_back_off(store: Store) -> None:
    """After one hour, two more, four more and so on, at most a day; never rows with a reply."""
    # given
    states = ["unanswered", "settled", "rejected", "settled later"]
    for state in states:
        create_customer(store.channel, last_name=state)
    with store.relaying():
        store.wait_until_sent()
    ids = [row["id"] for row in store.rows(channel.outbox)]
    store.reply(ids[1], "synchronized", version=1)
    store.reject(ids[2])
    unsent = create_customer(store.channel, last_name="unsent")
    with autocommit(store) as connection:
        # when
        started_at = datetime.now(UTC)
        list(maintenance.schedule_resends(connection, started_at))
        list(maintenance.schedule_resends(connection, started_at + timedelta(minutes=1)))
        scheduled = {row["sequence"]: row["resend_at"] - started_at for row in store.rows(channel.outbox_resends)}
        store.reply(ids[3], "synchronized", version=1)
        queued_at = []
        for hour in range(1, 100):
            list(maintenance.resend(connection, started_at + timedelta(hours=hour, seconds=1)))
            if store.unsent_ids()[0] == ids[0]:
                queued_at.append(hour)
                connection.execute(delete(channel.outbox_queue).where(channel.outbox_queue.c.sequence == 1))
    # then
    assert scheduled == dict.fromkeys([1, 4], timedelta(hours=1))
    assert queued_at == [1, 3, 7, 15, 31, 55, 79]
    assert [row["sequence"] for row in store.rows(channel.outbox_resends)] == [1]
    assert [row["aggregateid"] for row in store.rows(channel.outbox) if row["id"] in store.unsent_ids()] == [
        unsent.customer_id
    ]


def test_held_rows_are_sent_again_once_a_day(store: Store) -> None:
    """A restored headquarters may have lost them; until then nobody asks for them."""
    # given
    for name in ("held at once", "held later"):
        create_customer(store.channel, last_name=name)
    with store.relaying():
        store.wait_until_sent()
    ids = [row["id"] for row in store.rows(channel.outbox)]
    store.hold(ids[0])
    with autocommit(store) as connection:
        # when
        started_at = datetime.now(UTC)
        list(maintenance.schedule_resends(connection, started_at))
        store.hold(ids[1])
        queued_at: dict[str, list[int]] = {event_id: [] for event_id in ids}
        for hour in range(1, 80):
            list(maintenance.resend(connection, started_at + timedelta(hours=hour, seconds=1)))
            for event_id in store.unsent_ids():
                queued_at[event_id].append(hour)
            connection.execute(delete(channel.outbox_queue))
        list(maintenance.resend(connection, started_at + timedelta(hours=100)))
    with store.relaying():
        store.wait_until_sent()
    # then
    assert list(queued_at.values()) == [[24, 48, 72], [1, 25, 49, 73]]
    assert sorted(event_ids(store.topic())) == sorted(ids * 2)


def test_row_whose_resend_is_due_is_sent_again(store: Store) -> None:
    """Once, in spite of a second pass before it is sent."""
    # given
    create_customer(store.channel, last_name="Lovelace")
    with store.relaying():
        store.wait_until_sent()
    with autocommit(store) as connection:
        list(maintenance.schedule_resends(connection, datetime.now(UTC)))
        # when
        for _ in range(2):
            list(maintenance.resend(connection, datetime.now(UTC) + timedelta(hours=2)))
    with store.relaying():
        store.wait_until_sent()
    # then
    [row] = store.rows(channel.outbox)
    assert event_ids(store.topic()) == [row["id"]] * 2
    assert [row["attempts"] for row in store.rows(channel.outbox_resends)] == [1]


def test_settled_rows_are_not_sent(store: Store) -> None:
    """An erased customer's unsent events never leave the store."""
    # given
    for _ in range(3):
        create_customer(store.channel, last_name="Lovelace")
    ids = [row["id"] for row in store.rows(channel.outbox)]
    with store.channel.engine.begin() as connection:
        erased = update(channel.outbox).values(settled_at=datetime.now(UTC), outcome="erased")
        connection.execute(erased.where(channel.outbox.c.id == ids[0]))
    # when
    with store.relaying():
        store.wait_until_sent()
    # then
    assert sorted(event_ids(store.topic())) == sorted(ids[1:])


def test_too_large_event_is_rejected_and_blocks_no_other(store: Store) -> None:
    """The clerk reads the reason, as with any rejection, and the other events are sent."""
    # given
    huge = create_customer(store.channel, last_name="Huge")
    other = create_customer(store.channel, last_name="Other")
    event = store.events()[0]
    assert event.customer is not None
    state = replace(event.customer, attributes=(Attribute(name="note", text="x" * 1_100_000),))
    payload = encode(contract("CustomerEvent"), to_avro(replace(event, customer=state)))
    with store.channel.engine.begin() as connection:
        too_large = update(channel.outbox).values(payload=payload)
        connection.execute(too_large.where(channel.outbox.c.id == event.event_id))
    # when
    with store.relaying():
        wait_for(lambda: show_customer(store.channel, huge.customer_id).status == "rejected", "the rejection")
        store.wait_until_sent()
    # then
    seen = show_customer(store.channel, huge.customer_id)
    assert (seen.status, [reason.code for reason in seen.reasons]) == (CustomerStatus.REJECTED, ["too_large"])
    assert [decoded(message.value()).customer_id for message in store.topic()] == [other.customer_id]
    assert channel_events_of(store) == [("rejected", "customer", huge.customer_id, ["too_large"])]


def channel_events_of(store: Store) -> list[tuple[str, str, str, list[str]]]:
    """What those who follow the channel learn."""
    rows = store.rows(channel.channel_events)
    return [(row["type"], row["subject"], row["subject_id"], row["codes"]) for row in rows]


@pytest.mark.parametrize("point", ["relay.after_select", "relay.after_produce", "relay.after_ack", "relay.after_mark"])
def test_killed_relay_loses_nothing_and_keeps_the_order(store: Store, point: str) -> None:
    """SIGKILL at any point, then another relay: every event arrives, possibly repeated, each customer's in order."""
    # given
    people = [create_customer(store.channel, last_name=f"Lovelace {number}").customer_id for number in range(5)]
    for person in people:
        edit_customer(store.channel, person, first_name="Ada")
    code = (
        "from pathlib import Path; from threading import Event; from tenten.settings import load_settings; "
        "from tenten.producers.relay import run as relay; "
        f"relay.run('houston', load_settings(Path({str(store.toml)!r})), Event())"
    )
    # when
    run_to_failpoint(code, point, store.toml.parent)
    with store.relaying():
        store.wait_until_sent()
    # then
    first_arrivals = list(dict.fromkeys(event_ids(store.topic())))
    events = store.events()
    assert sorted(first_arrivals) == sorted(event.event_id for event in events)
    for person in people:
        mine = [event.event_id for event in events if event.customer_id == person]
        assert [event_id for event_id in first_arrivals if event_id in mine] == mine


def test_queue_is_read_in_bounded_parts(store: Store) -> None:
    """A part has at least one row and stays within its limits; each row is read once, deleted or not."""
    # given
    for number in range(7):
        create_customer(store.channel, last_name=f"Lovelace {number}")
    ids = [event.event_id for event in store.events()]
    with autocommit(store) as connection:
        queue = OutboxQueue(connection)
        # when
        parts = [queue.read(2, 1_000_000), queue.read(100, 1)]
        queue.delete([parts[0].rows[1].sequence])
        parts += [queue.read(100, 1_000_000), queue.read(100, 1_000_000)]
    # then
    assert [[row.event_id for row in part.rows] for part in parts] == [ids[:2], ids[2:3], ids[3:], []]
    assert [part.has_more for part in parts] == [True, True, False, False]
    assert [decoded(row.payload).event_id for part in parts for row in part.rows] == ids
    assert store.unsent_ids() == [ids[0], *ids[2:]]


def test_entries_without_a_row_to_send_are_obsolete(store: Store) -> None:
    """Settled, rejected and deleted rows are not read, and their entries can be deleted."""
    # given
    for _ in range(4):
        create_customer(store.channel, last_name="Lovelace")
    ids = [event.event_id for event in store.events()]
    store.reply(ids[0], "erased")
    store.reject(ids[1])
    with store.channel.engine.begin() as connection:
        connection.execute(delete(channel.outbox).where(channel.outbox.c.id == ids[2]))
    # when
    with autocommit(store) as connection:
        queued = OutboxQueue(connection).read(100, 1_000_000)
    # then
    assert [row.event_id for row in queued.rows] == ids[3:]
    assert sorted(queued.obsolete) == [1, 2, 3]


def test_old_settled_rows_are_pruned_after_their_snapshot(store: Store) -> None:
    """A row is deleted once it is old and the snapshot with its version has arrived."""
    # given
    shown, pending, old = (create_customer(store.channel, last_name=name) for name in ("Shown", "Pending", "Old"))
    store.synchronize(old.customer_id, "C-00000001")
    store.reply(store.rows(channel.outbox)[0]["id"], "synchronized", version=1)
    # when
    with store.channel.engine.begin() as connection:
        assert list(maintenance.prune(connection, datetime.now(UTC) + timedelta(days=1)))
    # then
    assert [row["aggregateid"] for row in store.rows(channel.outbox)] == [shown.customer_id, pending.customer_id]


def test_changed_partition_count_stops_the_relay(store: Store) -> None:
    """The topics are recorded; with other partitions the same key would be sent elsewhere."""
    # given
    with store.relaying():
        wait_for(lambda: len(store.rows(channel.topics)) == 2, "the topics to be recorded")
    recorded = {(row["topic"], row["partitions"]) for row in store.rows(channel.topics)}
    assert recorded == {(store.settings.topic(topic), PARTITIONS) for topic in (ASYNC_CUSTOMERS, RETAIL_TRANSACTIONS)}
    with store.channel.engine.begin() as connection:
        connection.execute(update(channel.topics).values(partitions=PARTITIONS + 1))
    # then
    with pytest.raises(TopicChanged, match=f"{PARTITIONS} partitions"):
        relay.run(HOUSTON, store.settings, Event())


def test_transactions_are_sent_to_their_topic_in_order_keyed_by_channel(store: Store) -> None:
    """Orders, sales and ends of day are in one partition in their order; customers' events go to the other topic."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    made = [record_order(store.channel, lines=[TEA], customer_id=ada.customer_id).transaction_id]
    made += [record_sale(store.channel, lines=[TEA]).transaction_id for _ in range(10)]
    made += [close_day(store.channel)[0].end_of_day_id]
    # when
    with store.relaying():
        store.wait_until_sent()
    # then
    messages = store.topic(RETAIL_TRANSACTIONS)
    rows = {row["id"]: row for row in store.rows(channel.outbox)}
    assert event_ids(messages) == made
    assert len({message.partition() for message in messages}) == 1
    for message, transaction_id in zip(messages, made, strict=True):
        headers = dict(message.headers() or [])
        assert (message.key(), message.value()) == (HOUSTON.encode(), rows[transaction_id]["payload"])
        assert headers == {"id": transaction_id.encode(), "type": rows[transaction_id]["type"].encode()}
    assert [rows[transaction_id]["type"] for transaction_id in made] == [
        "OrderPlaced",
        *["CashAndCarrySold"] * 10,
        "DayClosed",
    ]
    [customer_event] = store.topic()
    assert customer_event.key() == ada.customer_id.encode()


def test_unanswered_rows_are_sent_again_to_a_recreated_topic(store: Store) -> None:
    """Those of the topic's own type, at once; never rows with a reply."""
    # given
    create_customer(store.channel, last_name="Lovelace")
    lost, settled, rejected = (record_sale(store.channel, lines=[TEA]).transaction_id for _ in range(3))
    with store.relaying():
        store.wait_until_sent()
    store.reply(settled, "synchronized")
    store.reject(rejected)
    is_topic = channel.topics.c.topic == store.settings.topic(RETAIL_TRANSACTIONS)
    with store.channel.engine.begin() as connection:
        connection.execute(update(channel.topics).where(is_topic).values(topic_id="deleted"))
    # when
    for _ in range(2):
        with store.relaying():
            wait_for(lambda: "deleted" not in {row["topic_id"] for row in store.rows(channel.topics)}, "the new topic")
            store.wait_until_sent()
    # then
    assert event_ids(store.topic(RETAIL_TRANSACTIONS)) == [lost, settled, rejected, lost]
    assert len(store.topic()) == 1
    assert len(store.rows(channel.topics)) == 2


def test_too_large_sale_is_rejected_and_blocks_no_other(store: Store) -> None:
    """It is shown as rejected, with the reason, and the next sale is sent."""
    # given
    huge, other = (record_sale(store.channel, lines=[TEA]).transaction_id for _ in range(2))
    with store.channel.engine.begin() as connection:
        too_large = update(channel.outbox).values(payload=b"x" * 1_100_000)
        connection.execute(too_large.where(channel.outbox.c.id == huge))
    # when
    with store.relaying():
        store.wait_until_sent()
        wait_for(lambda: show_transaction(store.channel, huge).status == "rejected", "the rejection")
    # then
    assert event_ids(store.topic(RETAIL_TRANSACTIONS)) == [other]
    assert [reason.code for reason in show_transaction(store.channel, huge).reasons] == ["too_large"]
    assert channel_events_of(store) == [("rejected", "sale", huge, ["too_large"])]
    # when
    assert resend_transaction(store.channel, huge).status == "pending"
    with store.relaying():
        store.wait_until_sent()
    # then
    assert event_ids(store.topic(RETAIL_TRANSACTIONS)) == [other, huge]


def test_record_rejected_by_the_broker_holds_back_its_key(store: Store) -> None:
    """No later sale of the channel is marked sent while an earlier one is not; a customer's event is."""
    # given
    create_customer(store.channel, last_name="Lovelace")
    for _ in range(2):
        record_sale(store.channel, lines=[TEA])
    topic = store.settings.topic(RETAIL_TRANSACTIONS)
    admin = admin_client(store.settings)
    alter = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[_limit("100")])
    for altered in admin.incremental_alter_configs([alter]).values():
        altered.result()
    # when
    with RelayProducer(store.settings, HOUSTON) as producer, autocommit(store) as connection:
        assert producer.connect(Event())
        producer.send(OutboxQueue(connection).read(100, 1_000_000).rows, Event())
        acknowledged = producer.acknowledged(Event())
        # then
        [event, *_] = store.rows(channel.outbox)
        assert acknowledged == [event["sequence"]]
        with pytest.raises(DeliveryFailed):
            producer.check()


def _limit(size: str) -> ConfigEntry:
    return ConfigEntry("max.message.bytes", size, incremental_operation=AlterConfigOpType.SET)


def autocommit(store: Store) -> Connection:
    """A connection on which each statement is a transaction."""
    return store.channel.engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def test_old_settled_sales_are_pruned(store: Store) -> None:
    """The row is deleted, the sale stays. Sales without a final reply keep their rows, should that reply be lost."""
    # given
    settled, pending, waiting, blocked = (record_sale(store.channel, lines=[TEA]).transaction_id for _ in range(4))
    for transaction_id, status in ((settled, "synchronized"), (waiting, "waiting"), (blocked, "blocked")):
        store.reply(transaction_id, "synchronized")
        is_this = channel.transactions.c.transaction_id == transaction_id
        with store.channel.engine.begin() as connection:
            connection.execute(update(channel.transactions).where(is_this).values(status=status))
    # when
    with store.channel.engine.begin() as connection:
        assert list(maintenance.prune(connection, datetime.now(UTC) + timedelta(days=1)))
    # then
    assert [row["id"] for row in store.rows(channel.outbox)] == [pending, waiting, blocked]
    assert show_transaction(store.channel, settled).transaction_id == settled


def test_reading_costs_the_same_at_the_end_of_a_backlog(new_database: NewDatabase) -> None:
    """Also while a backup holds a snapshot, for which PostgreSQL keeps deleted entries."""
    parts, part_rows = 60, 1_000
    url = new_database()
    channel_tables(url)
    with (
        opened(url) as engine,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as backup,
    ):
        # given
        connection.execute(_FILL_OUTBOX, {"rows": parts * part_rows})
        connection.execute(text("INSERT INTO outbox_queue SELECT sequence FROM outbox"))
        backup.execute(text("SELECT count(*) FROM outbox_queue"))
        queue = OutboxQueue(connection)
        # when
        costs = []
        for _ in range(parts):
            before = _blocks_of_queue(connection)
            queued = queue.read(part_rows, 10**9)
            costs.append(_blocks_of_queue(connection) - before)
            queue.delete([row.sequence for row in queued.rows])
        # then
        assert queue.read(part_rows, 10**9).rows == []
        first, last = (sorted(part)[len(part) // 2] for part in (costs[5:20], costs[-15:]))
        assert 0 < last < 1.5 * first


_FILL_OUTBOX: Final = text(
    """
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at)
    SELECT gen_random_uuid(), 'customer', gen_random_uuid(), 'CustomerCreated', '', now() FROM generate_series(1, :rows)
    """
)


def _blocks_of_queue(connection: Connection) -> int:
    """The blocks of the queue and its index that PostgreSQL has looked at so far."""
    connection.execute(text("SELECT pg_stat_force_next_flush()"))
    query = "SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read FROM pg_statio_user_tables"
    return int(connection.scalar(text(query + " WHERE relname = 'outbox_queue'")) or 0)
