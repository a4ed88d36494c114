"""The relay of a store that has joined signs its records: on PostgreSQL and SQLite, with a real broker."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from tenten.identity.keys import KeyPair, kid, new_key_pair, record_key, record_mac
from tenten.identity.store_identity import write_identity
from tenten.producers import Item, create_customer, record_order, record_sale
from tenten.producers.relay.channel_report import ChannelReport
from tenten.schemas.messages import ChannelSettings, LegalEntitySettings
from tenten.schemas.tables import channel
from tenten.schemas.topics import CHANNEL_STATUS, RETAIL_TRANSACTIONS
from tenten.sql import channel_settings
from tenten.sql.channel_settings import RecordPosition, store_channel_settings
from tenten.status.databases import read_channel
from tests.producer_scene import HOUSTON, Store, decoded_transaction, event_ids, set_store
from tests.waiting import wait_for

HEADQUARTERS = new_key_pair()
TEA = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))


@pytest.fixture
def store(channel_url: str, tmp_path: Path, bootstrap_servers: str, prefix: str) -> Iterator[Store]:
    """A channel on each of the two databases, with topics of its own."""
    with set_store(tmp_path, channel_url, bootstrap_servers=bootstrap_servers, prefix=prefix) as scene:
        yield scene


def join(store: Store) -> KeyPair:
    """Give the store a new key pair, as joining does."""
    pair = new_key_pair()
    with store.channel.engine.begin() as connection:
        write_identity(connection, pair, HEADQUARTERS.public_key, datetime.now(UTC))
    return pair


def headers(message: Message) -> dict[str, bytes]:
    """The headers of a record by name."""
    return dict(message.headers() or [])  # type: ignore[arg-type]  # the values are bytes


def assert_signed(message: Message, topic: str, pair: KeyPair) -> None:
    """Headquarters derives the same code, with its own private key."""
    key = record_key(HEADQUARTERS.private_key, pair.public_key)
    assert headers(message)["kid"] == kid(pair.public_key).encode()
    assert headers(message)["mac"] == record_mac(key, topic, message.key() or b"", message.value() or b"")


def test_store_that_has_joined_signs_every_record_and_the_event_inside_a_transaction(store: Store) -> None:
    """Also those whose rows are older than its key; the logical topic is the one without prefix."""
    # given
    customer = create_customer(store.channel, last_name="Lovelace")
    record_order(store.channel, customer_id=customer.customer_id, lines=[TEA])
    record_sale(store.channel, lines=[TEA])
    pair = join(store)
    # when
    with store.relaying():
        store.wait_until_sent()
    # then
    [event] = store.topic()
    assert_signed(event, "async-customers", pair)
    order, sale = store.topic(RETAIL_TRANSACTIONS)
    for message in (order, sale):
        assert_signed(message, "retail-transactions", pair)
    embedded = decoded_transaction(order.value())
    assert embedded.customer_event is not None
    key = record_key(HEADQUARTERS.private_key, pair.public_key)
    expected = record_mac(key, "async-customers", customer.customer_id.encode(), embedded.customer_event)
    assert headers(order)["customer-event-mac"] == expected == headers(event)["mac"]
    assert "customer-event-mac" not in headers(sale)


def test_running_relay_notices_a_new_key_and_sends_unsettled_rows_again(store: Store) -> None:
    """Rows that headquarters has settled are not sent again. A new key while the relay is stopped counts as well."""
    # given
    first, second = (create_customer(store.channel, last_name=name) for name in ("Lovelace", "Hopper"))
    with store.relaying():
        store.wait_until_sent()
        assert [headers(message).get("kid") for message in store.topic()] == [None, None]
        store.synchronize(first.customer_id, "C1")
        # when
        pair = join(store)
        # then
        wait_for(lambda: len(store.topic()) == 3, "the unsettled row to be sent again")
        create_customer(store.channel, last_name="Lamarr")
        store.wait_until_sent()
        wait_for(lambda: len(store.topic(CHANNEL_STATUS)) == 2, "another heartbeat, at once")
    before, after = store.topic(CHANNEL_STATUS)
    assert "kid" not in headers(before)
    assert_signed(after, "channel-status", pair)
    *_, again, new = sorted(store.topic(), key=lambda message: message.timestamp())
    assert_signed(again, "async-customers", pair)
    assert_signed(new, "async-customers", pair)
    [unsettled, _] = [row["id"] for row in store.rows(channel.outbox) if row["settled_at"] is None]
    assert event_ids([again]) == [unsettled]
    assert again.key() == second.customer_id.encode()
    # when
    pair = join(store)
    with store.relaying():
        # then
        wait_for(lambda: len(store.topic()) == 6, "both unsettled rows to be sent again")
        store.wait_until_sent()
    newest = sorted(store.topic(), key=lambda message: message.timestamp())[-2:]
    for message in newest:
        assert_signed(message, "async-customers", pair)
    # when: nothing has changed
    with store.relaying():
        create_customer(store.channel, last_name="Curie")
        store.wait_until_sent()
    assert len(store.topic()) == 7


def test_suspended_store_sends_nothing_and_then_all_that_is_unsettled(store: Store) -> None:
    """It learns of both through its settings. What headquarters did not answer meanwhile is sent again, also after a
    suspension that was over before the relay looked.
    """
    # given
    create_customer(store.channel, last_name="Lovelace")
    with store.relaying():
        store.wait_until_sent()
        # when
        publish(store, suspended="stolen")
        wait_for(lambda: is_refused(store), "the relay to notice it")
        create_customer(store.channel, last_name="Hopper")
        wait_for(lambda: len(store.unsent_ids()) == 1, "the row")
    with store.relaying():
        wait_for(lambda: is_refused(store), "the next relay")
        # then
        assert len(store.topic()) == 1
        # when
        publish(store)
        # then
        wait_for(lambda: len(store.topic()) == 3, "both rows")
        store.wait_until_sent()
        # when
        publish(store, acceptance_changed_at=datetime.now(UTC))
        # then
        wait_for(lambda: len(store.topic()) == 5, "both rows, once more")
        store.wait_until_sent()


def test_store_whose_key_headquarters_does_not_accept_sends_nothing_and_reports_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restore of headquarters' database, until the key is valid again. Not where nobody checks keys."""
    # given
    monkeypatch.setattr(channel_settings, "KEY_GRACE", timedelta())
    pair = join(store)
    own, other = kid(pair.public_key), kid(new_key_pair().public_key)
    publish(store, kid=other)
    create_customer(store.channel, last_name="Lovelace")
    with store.relaying():
        # then
        store.wait_until_sent()
        assert problems(store) == {}
        # when
        publish(store, kid=other, checks_keys=True)
        wait_for(lambda: is_refused(store), "the relay to notice it")
        create_customer(store.channel, last_name="Hopper")
        # then
        assert "tenten channel rotate-key houston" in problems(store)["key_not_accepted"]
        publish(store, checks_keys=True)
        assert "tenten channel enroll houston" in problems(store)["key_not_accepted"]
        assert read_channel(store.settings, HOUSTON).problems == problems(store)
        assert len(store.topic()) == 1
        # when
        publish(store, kid=own, checks_keys=True)
        # then
        wait_for(lambda: len(store.topic()) == 3, "both rows")
        assert problems(store) == {}
    # a key that arrives before the settings that name it is no problem yet
    monkeypatch.undo()
    join(store)
    assert problems(store) == {}


def is_refused(store: Store) -> bool:
    """Whether the relay has noticed that headquarters accepts no record."""
    return any(row["is_refused"] for row in store.rows(channel.relay_state))


def problems(store: Store) -> dict[str, str]:
    """The problems of the next heartbeat."""
    with store.channel.reading() as connection:
        heartbeat = ChannelReport(store.settings, HOUSTON).read(connection)
    return {problem.code: problem.text for problem in heartbeat.problems}


def publish(store: Store, **fields: Any) -> None:
    """Store settings as the channel's process does when headquarters has published them."""
    settings = ChannelSettings(
        channel_id=HOUSTON,
        version=1,
        published_at=datetime.now(UTC),
        legal_entity=LegalEntitySettings(name="usrt", country="US", currency="USD", language="en-US"),
        **fields,
    )
    with store.channel.engine.begin() as connection:
        store_channel_settings(connection, settings, RecordPosition("topic", 0), datetime.now(UTC))
