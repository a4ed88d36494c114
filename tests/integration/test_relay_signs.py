"""The relay of a store that has joined signs its records: on PostgreSQL and SQLite, with a real broker."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from confluent_kafka import Message

from tenten.identity.keys import KeyPair, kid, new_key_pair, record_key, record_mac
from tenten.identity.store_identity import write_identity
from tenten.producers import Item, create_customer, record_order, record_sale
from tenten.schemas.messages import ChannelSettings, LegalEntitySettings
from tenten.schemas.tables import channel
from tenten.schemas.topics import RETAIL_TRANSACTIONS
from tenten.sql.channel_settings import RecordPosition, store_channel_settings
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
    """It learns of both through its settings. What headquarters did not answer meanwhile is sent again."""
    # given
    create_customer(store.channel, last_name="Lovelace")
    with store.relaying():
        store.wait_until_sent()
        # when
        suspend(store, "stolen")
        wait_for(lambda: any(row["is_suspended"] for row in store.rows(channel.relay_state)), "the relay to notice it")
        create_customer(store.channel, last_name="Hopper")
        wait_for(lambda: len(store.unsent_ids()) == 1, "the row")
    with store.relaying():
        wait_for(lambda: any(row["is_suspended"] for row in store.rows(channel.relay_state)), "the next relay")
        # then
        assert len(store.topic()) == 1
        # when
        suspend(store, None)
        # then
        wait_for(lambda: len(store.topic()) == 3, "both rows")
        store.wait_until_sent()


def suspend(store: Store, reason: str | None) -> None:
    """Store settings as the channel's process does when headquarters has suspended the channel, or ended that."""
    settings = ChannelSettings(
        channel_id=HOUSTON,
        version=1,
        published_at=datetime.now(UTC),
        legal_entity=LegalEntitySettings(name="usrt", country="US", currency="USD", language="en-US"),
        suspended=reason,
    )
    with store.channel.engine.begin() as connection:
        store_channel_settings(connection, settings, RecordPosition("topic", 0), datetime.now(UTC))
