"""The relay: from the outbox of a channel to its two topics, on PostgreSQL and SQLite, with a real broker."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread

import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from sqlalchemy import Connection, insert, select, text, update

from tenten.avro.wire import contract, encode
from tenten.kafka.topics_admin import admin_client
from tenten.producers import (
    CustomerStatus,
    Item,
    close_day,
    create_customer,
    edit_customer,
    outbox,
    record_order,
    record_sale,
    resend_transaction,
    show_customer,
    show_transaction,
)
from tenten.producers.relay import maintenance as chores
from tenten.producers.relay import run as relay
from tenten.producers.relay.producer import DeliveryFailed, Line
from tenten.runtime.errors import KafkaRefused, LockHeld, TopicChanged
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Attribute, to_avro
from tenten.schemas.tables import channel
from tenten.schemas.topics import ASYNC_CUSTOMERS, RETAIL_TRANSACTIONS
from tests.forked import run_to_failpoint
from tests.producer_scene import HOUSTON, Store, decoded, event_ids, set_store, wait_until
from tests.settings_file import PARTITIONS

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
TEA = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))


@pytest.fixture(params=["postgresql", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, bootstrap_servers: str, prefix: str) -> Iterator[Store]:
    """A channel on each of the two databases, with topics of its own."""
    url = (
        request.getfixturevalue("new_database")("channel") if request.param == "postgresql" else "sqlite:///houston.db"
    )
    with set_store(tmp_path, url, bootstrap_servers=bootstrap_servers, prefix=prefix) as made:
        yield made


def test_every_row_is_sent_once_keyed_by_its_customer(store: Store) -> None:
    """Records carry the payload byte for byte, the id and the type; the rows are marked with time and topic."""
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
    assert len({row["sent_topic_id"] for row in rows.values()} - {None, ""}) == 1
    assert all(row["settled_at"] is None for row in rows.values())


def test_the_events_of_a_customer_stay_in_their_order(store: Store) -> None:
    """Edits of several customers in turn arrive, customer by customer, as they were made."""
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


def test_an_idle_relay_wakes_at_once(store: Store) -> None:
    """A new row is on its way within a fraction of a second, not at the next round of some schedule."""
    create_customer(store.channel, last_name="First")
    with store.relaying():
        store.wait_until_sent()
        took = []
        for number in range(10):
            # given
            time.sleep(0.05)
            began = time.monotonic()
            # when
            create_customer(store.channel, last_name=f"Lovelace {number}")
            store.wait_until_sent()
            took.append(time.monotonic() - began)
    # then
    assert sorted(took)[len(took) // 2] < 0.5


def test_a_lower_number_that_is_committed_later_is_sent_too(store: Store) -> None:
    """A slow transaction draws its number first and commits last; nobody has gone past it for good."""
    if store.channel.engine.dialect.name == "sqlite":
        # One writer at a time: the row with the lower number is there first. It is put there late by hand.
        first = create_customer(store.channel, last_name="Slow")
        [late] = store.rows(channel.outbox)
        with store.channel.engine.begin() as connection:
            connection.execute(text("DELETE FROM outbox"))
        with store.relaying():
            create_customer(store.channel, last_name="Quick")
            store.wait_until_sent()
            with store.channel.engine.begin() as connection:
                connection.execute(insert(channel.outbox).values(late))
            store.wait_until_sent()
    else:
        with store.relaying(), store.channel.engine.connect() as slow:
            # given
            first = create_customer(store.channel, last_name="Slow")
            store.wait_until_sent()
            [row] = store.rows(channel.outbox)
            sequence = slow.scalar(text("SELECT nextval(pg_get_serial_sequence('outbox', 'sequence'))"))
            values = {**row, "sequence": sequence, "id": first.customer_id, "sent_at": None, "sent_topic_id": None}
            slow.execute(insert(channel.outbox).values(values))
            # when
            create_customer(store.channel, last_name="Quick")
            store.wait_until_sent()
            slow.execute(text("SELECT pg_notify('tenten_outbox', '')"))
            slow.commit()
            # then
            store.wait_until_sent()
    assert sorted(event_ids(store.topic())) == sorted(row["id"] for row in store.rows(channel.outbox))
    assert {row["aggregateid"] for row in store.rows(channel.outbox)} >= {first.customer_id}


def test_a_second_relay_of_the_channel_is_refused(store: Store) -> None:
    """Two would bring a customer's events out of order."""
    create_customer(store.channel, last_name="Lovelace")
    with store.relaying():
        store.wait_until_sent()
        with pytest.raises(LockHeld):
            relay.run(HOUSTON, store.settings, Event())


def test_a_topic_that_does_not_exist_is_said_at_the_start(store: Store) -> None:
    """The message says what to run; waiting would not help."""
    elsewhere = store.settings.model_copy(update={"prefix": store.settings.prefix + "nowhere-"})
    with pytest.raises(KafkaRefused, match="tenten topics apply"):
        relay.run(HOUSTON, elsewhere, Event())


def test_without_a_broker_the_relay_waits_and_ends_when_told_to(store: Store) -> None:
    """Nothing is marked, nothing is lost, and a shutdown is not held up."""
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
    assert store.rows(channel.outbox)[0]["sent_at"] is None


def without_broker(settings: Settings) -> Settings:
    """The same settings with an address at which nobody answers."""
    return settings.model_copy(update={"kafka": {"bootstrap.servers": "127.0.0.1:1"}})


def test_rows_without_an_answer_are_sent_again_after_an_hour(store: Store) -> None:
    """And at once when their topic is gone; never those that have an answer, or wait for the clerk."""
    # given
    states = ["unanswered", "another topic", "recent", "settled", "rejected"]
    for state in states:
        create_customer(store.channel, last_name=state)
    with store.relaying():
        store.wait_until_sent()
    ids = [row["id"] for row in store.rows(channel.outbox)]
    topic_ids = {"customer": store.rows(channel.outbox)[0]["sent_topic_id"]}
    store.answer(ids[3], "synchronized", version=1)
    store.reject(ids[4])
    with store.channel.engine.begin() as connection:
        changed = update(channel.outbox).values(sent_at=LONG_AGO)
        connection.execute(changed.where(channel.outbox.c.id.in_([ids[0], ids[3], ids[4]])))
        gone = update(channel.outbox).values(sent_topic_id="gone")
        connection.execute(gone.where(channel.outbox.c.id.in_([ids[1], ids[3], ids[4]])))
    # when
    with store.channel.engine.begin() as connection:
        chores.send_again(connection, datetime.now(UTC) - timedelta(hours=1), topic_ids)
    with store.relaying():
        store.wait_until_sent()
    # then
    sent = event_ids(store.topic())
    assert {one: sent.count(one) for one in ids} == dict(zip(ids, [2, 2, 1, 1, 1], strict=True))


def test_what_is_settled_or_rejected_is_not_sent(store: Store) -> None:
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
        wait_until(lambda: sum(row["sent_at"] is not None for row in store.rows(channel.outbox)) == 2, "both others")
    # then
    assert sorted(event_ids(store.topic())) == sorted(ids[1:])


def test_an_event_too_large_for_the_topic_is_rejected_and_holds_up_nobody(store: Store) -> None:
    """The clerk sees why, as with any rejection, and the others go their way."""
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
        wait_until(lambda: show_customer(store.channel, huge.customer_id).status == "rejected", "the rejection")
        wait_until(lambda: store.rows(channel.outbox)[1]["sent_at"] is not None, "the other one")
    # then
    seen = show_customer(store.channel, huge.customer_id)
    assert (seen.status, [reason.code for reason in seen.reasons]) == (CustomerStatus.REJECTED, ["too_large"])
    assert [decoded(message.value()).customer_id for message in store.topic()] == [other.customer_id]


@pytest.mark.parametrize("point", ["relay.after_select", "relay.after_produce", "relay.after_ack", "relay.after_mark"])
def test_a_killed_relay_loses_nothing_and_keeps_the_order(store: Store, point: str) -> None:
    """SIGKILL at any point, then another relay: every event arrives, repeats allowed, each customer's in order."""
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
        assert [one for one in first_arrivals if one in mine] == mine


def test_unsent_rows_are_bounded_in_number_and_in_bytes(store: Store) -> None:
    """A batch never takes more memory than it may, but always one row; what is on its way is left out exactly."""
    # given
    for number in range(6):
        create_customer(store.channel, last_name=f"Lovelace {number}")
    # when
    with store.channel.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        every = outbox.unsent(connection, 100, 1_000_000)
        few = outbox.unsent(connection, 2, 1_000_000)
        small = outbox.unsent(connection, 100, 1)
        others = outbox.unsent(connection, 100, 1_000_000, [every[1].sequence, every[2].sequence, every[4].sequence])
        # then
        assert [row.sequence for row in every] == list(connection.scalars(select(channel.outbox.c.sequence)))
    assert few == every[:2]
    assert small == every[:1]
    assert others == [every[0], every[3], every[5]]
    assert [decoded(row.payload).event_id for row in every] == [row.event_id for row in every]


def test_old_settled_rows_are_pruned_and_those_still_shown_are_kept(store: Store) -> None:
    """A row goes once it is old and the snapshot with its version has come."""
    # given
    shown, pending, old = (create_customer(store.channel, last_name=name) for name in ("Shown", "Pending", "Old"))
    store.synchronize(old.customer_id, "C-00000001")
    store.answer(store.rows(channel.outbox)[0]["id"], "synchronized", version=1)
    # when
    with store.channel.engine.begin() as connection:
        chores.prune(connection, datetime.now(UTC) + timedelta(days=1))
    # then
    assert [row["aggregateid"] for row in store.rows(channel.outbox)] == [shown.customer_id, pending.customer_id]


def test_the_topics_are_noted_and_another_partition_count_stops_the_relay(store: Store) -> None:
    """With other partitions the same key would go elsewhere."""
    # given
    with store.relaying():
        wait_until(lambda: len(store.rows(channel.topics)) == 2, "the topics to be noted")
    noted = {(row["topic"], row["partitions"]) for row in store.rows(channel.topics)}
    assert noted == {(store.settings.topic(topic), PARTITIONS) for topic in (ASYNC_CUSTOMERS, RETAIL_TRANSACTIONS)}
    with store.channel.engine.begin() as connection:
        connection.execute(update(channel.topics).values(partitions=PARTITIONS + 1))
    # then
    with pytest.raises(TopicChanged, match=f"{PARTITIONS} partitions"):
        relay.run(HOUSTON, store.settings, Event())


def test_sales_go_to_their_own_topic_in_order_keyed_by_the_channel(store: Store) -> None:
    """Orders, cash-and-carry and ends of day stand in one partition as they were made; customers go their own way."""
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
    assert [rows[one]["type"] for one in made] == ["OrderPlaced", *["CashAndCarrySold"] * 10, "DayClosed"]
    [customer_event] = store.topic()
    assert customer_event.key() == ada.customer_id.encode()
    topic_of = {row["topic_id"]: row["topic"] for row in store.rows(channel.topics)}
    assert {(row["aggregatetype"], topic_of[row["sent_topic_id"]]) for row in rows.values()} == {
        ("customer", store.settings.topic(ASYNC_CUSTOMERS)),
        ("retail_transaction", store.settings.topic(RETAIL_TRANSACTIONS)),
    }


def test_a_sale_sent_to_a_topic_that_is_gone_is_sent_again_and_customers_are_not(store: Store) -> None:
    """Each row is judged by the topic that it belongs to."""
    # given
    create_customer(store.channel, last_name="Lovelace")
    lost, kept = (record_sale(store.channel, lines=[TEA]).transaction_id for _ in range(2))
    with store.relaying():
        store.wait_until_sent()
    ids = {row["aggregatetype"]: row["sent_topic_id"] for row in store.rows(channel.outbox)}
    with store.channel.engine.begin() as connection:
        gone = update(channel.outbox).values(sent_topic_id="gone")
        connection.execute(gone.where(channel.outbox.c.id == lost))
        # when
        chores.send_again(connection, LONG_AGO, ids)
    with store.relaying():
        store.wait_until_sent()
    # then
    assert event_ids(store.topic(RETAIL_TRANSACTIONS)) == [lost, kept, lost]
    assert len(store.topic()) == 1


def test_a_sale_too_large_for_the_topic_is_rejected_and_holds_up_nobody(store: Store) -> None:
    """The clerk sees it as rejected, with the reason, and the next one goes its way."""
    # given
    huge, other = (record_sale(store.channel, lines=[TEA]).transaction_id for _ in range(2))
    with store.channel.engine.begin() as connection:
        too_large = update(channel.outbox).values(payload=b"x" * 1_100_000)
        connection.execute(too_large.where(channel.outbox.c.id == huge))
    # when
    with store.relaying():
        wait_until(lambda: store.rows(channel.outbox)[1]["sent_at"] is not None, "the other one")
        wait_until(lambda: show_transaction(store.channel, huge).status == "rejected", "the rejection")
    # then
    assert event_ids(store.topic(RETAIL_TRANSACTIONS)) == [other]
    assert [one.code for one in show_transaction(store.channel, huge).reasons] == ["too_large"]
    # when
    assert resend_transaction(store.channel, huge).status == "pending"
    with store.relaying():
        store.wait_until_sent()
    # then
    assert event_ids(store.topic(RETAIL_TRANSACTIONS)) == [other, huge]


def test_what_the_broker_refuses_of_a_key_keeps_back_all_of_that_key(store: Store) -> None:
    """No later sale of the channel is marked sent while an earlier one is not; a customer's event is."""
    # given
    create_customer(store.channel, last_name="Lovelace")
    for _ in range(2):
        record_sale(store.channel, lines=[TEA])
    refused = store.settings.topic(RETAIL_TRANSACTIONS)
    admin = admin_client(store.settings)
    alter = ConfigResource(ConfigResource.Type.TOPIC, refused, incremental_configs=[_limit("100")])
    for altered in admin.incremental_alter_configs([alter]).values():
        altered.result()
    # when
    with Line(store.settings, HOUSTON) as line, autocommit(store) as connection:
        assert line.connect(Event())
        batch = line.send(outbox.unsent(connection, 100, 1_000_000), Event())
        acknowledged = line.acknowledged(batch, Event())
        # then
        [event, *_] = store.rows(channel.outbox)
        assert acknowledged == [event["sequence"]]
        with pytest.raises(DeliveryFailed):
            line.check()


def _limit(size: str) -> ConfigEntry:
    return ConfigEntry("max.message.bytes", size, incremental_operation=AlterConfigOpType.SET)


def autocommit(store: Store) -> Connection:
    """A connection on which each statement is a transaction."""
    return store.channel.engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def test_old_settled_sales_are_pruned(store: Store) -> None:
    """The row goes, the sale stays."""
    # given
    settled, pending = (record_sale(store.channel, lines=[TEA]).transaction_id for _ in range(2))
    store.answer(settled, "synchronized")
    # when
    with store.channel.engine.begin() as connection:
        chores.prune(connection, datetime.now(UTC) + timedelta(days=1))
    # then
    assert [row["id"] for row in store.rows(channel.outbox)] == [pending]
    assert show_transaction(store.channel, settled).transaction_id == settled
