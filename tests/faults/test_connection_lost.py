"""Scenario 9 of the fault plan: the network between a store, or headquarters, and the broker is cut, frozen, slow.

The broker of this module advertises the address of a proxy to one side, and its own to the other.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tenten import local
from tenten.local.ports import free_port
from tenten.producers import Item, NewAddress, OpenChannel, close_day, create_customer, record_order, record_sale
from tenten.schemas.tables import channel
from tests.conftest import NewDatabase
from tests.faults.checker import violations
from tests.faults.connection_proxy import ConnectionProxy, State, proxied_connection
from tests.faults.evidence import gather
from tests.faults.settled import wait_until_settled
from tests.faults.traffic import Store
from tests.flow_scene import HOUSTON, PARTS, Flow, rows
from tests.sales import Till, reply_with_status, send, wait_until
from tests.scenes import SETTING, set_scene
from tests.services import directory_for_server
from tests.waiting import wait_for

TEA: Final = Item(sku="TEA", quantity=Decimal(3), price=Decimal("1.115"))
CUSTOMERS: Final = 10
ORDERS: Final = 5
LOST: Final[tuple[State, ...]] = ("cut", "frozen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The addresses of a broker for headquarters and for a store."""

    inside: str
    outside: str


@pytest.fixture(scope="module")
def broker() -> Iterator[tuple[ConnectionProxy, Addresses]]:
    """A broker, and the proxy through which stores reach it."""
    inside, outside = free_port(), free_port()
    properties = {
        "inter.broker.listener.name": "INSIDE",
        "advertised.listeners": f"INSIDE://127.0.0.1:{inside},PLAINTEXT://127.0.0.1:{outside}",
    }
    with directory_for_server("proxied") as directory:
        try:
            listeners = {"INSIDE": f"PLAINTEXT://127.0.0.1:{inside}"}
            kafka = local.start_kafka(directory, properties=properties, listeners=listeners)
            with proxied_connection(outside, kafka.port) as proxy:
                yield proxy, Addresses(inside=f"127.0.0.1:{inside}", outside=f"127.0.0.1:{outside}")
        finally:
            local.stop_kafka(directory, grace_seconds=0)


@pytest.fixture
def connection(broker: tuple[ConnectionProxy, Addresses]) -> tuple[ConnectionProxy, Addresses]:
    """The proxy, in the state `intact`, and the addresses of the broker."""
    broker[0].become("intact")
    return broker


def through_proxy(flow: Flow, outside: str) -> Flow:
    """The same, with channels that reach the broker at this address, the proxy's."""
    kafka = {**flow.settings.kafka, "bootstrap.servers": outside}
    return Flow(scene=flow.scene, settings=flow.settings.model_copy(update={"kafka": kafka}))


def sell(houston: OpenChannel) -> None:
    """Sell to new customers, and without a customer."""
    for number in range(CUSTOMERS):
        address = NewAddress(street=f"{number} Main Street", city="Houston", country="US")
        ada = create_customer(houston, first_name="Ada", last_name=f"Lee {number}", add_addresses=[address])
        where = ada.state.addresses[0].address_id
        record_order(houston, lines=[TEA], customer_id=ada.customer_id, deliver_to=where)
        record_sale(houston, lines=[TEA], customer_id=ada.customer_id)
        record_sale(houston, lines=[TEA])


def unsent(houston: OpenChannel) -> int:
    """The number of rows that the relay has not sent yet."""
    return len(rows(houston, channel.outbox_queue))


def is_settled(houston: OpenChannel) -> bool:
    """Whether all events are settled, and the channel has the final status of each."""
    statuses = Counter(row["status"] for row in rows(houston, channel.transactions))
    closed = Counter(row["status"] for row in rows(houston, channel.end_of_days))
    pending = [row for row in rows(houston, channel.customers) if row["account_number"] is None]
    return statuses.keys() == {"synchronized"} and closed.keys() <= {"posted"} and not pending


def test_store_keeps_selling_offline_and_recovers_automatically(
    tmp_path: Path,
    prefix: str,
    new_database: NewDatabase,
    connection: tuple[ConnectionProxy, Addresses],
) -> None:
    """Customers, sales and ends of day while the network is cut, frozen or slow: later all at headquarters, once."""
    # given
    proxy, addresses = connection
    scene = set_scene(tmp_path, addresses.inside, prefix, new_database("headquarters"))
    flow = through_proxy(Flow(scene=scene, settings=scene.settings), addresses.outside)

    # when
    with scene.headquarters(), scene.transactions(), flow.opened() as houston, flow.running(*PARTS):
        sell(houston)
        wait_for(partial(is_settled, houston), "the sales before to be settled")
        for state in LOST:
            proxy.become(state)
            noticed = proxy.refused + proxy.held
            sell(houston)
            close_day(houston)
            wait_for(lambda noticed=noticed: proxy.refused + proxy.held > noticed + 1, "the store to try")  # type: ignore[misc]
            assert unsent(houston) == 4 * CUSTOMERS + 1
            proxy.become("intact")
            wait_for(partial(is_settled, houston), f"the sales while the network was {state}")
        proxy.become("slow")
        sell(houston)
        close_day(houston)
        wait_for(partial(is_settled, houston), "the sales while the network was slow")
        wait_until_settled(scene, "transactions", "headquarters", released=True)
        sold = {row["transaction_id"]: row["sales_order"] for row in rows(houston, channel.transactions)}

    # then
    evidence = gather(addresses.inside, prefix, scene.url, {HOUSTON: str(flow.settings.channel(HOUSTON).database)})
    assert violations(evidence, scene.journal, SETTING) == []
    sales = evidence.headquarters.sales
    assert proxy.slowed > 0
    assert sales.transactions.keys() == sold.keys()
    booked = {str(order["transaction_id"]): order["sales_order"] for order in sales.orders}
    assert booked == {key: number for key, number in sold.items() if number is not None}
    assert len(sales.statements) == len(LOST) + 1


_SENDING: Final = """
    SELECT pid, xact_start FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND datname = current_database()
      AND (classid::bigint << 32) | objid::bigint = hashtextextended('tenten.answers', 0)
"""
"""The SQL transaction in which replies are being published, if any."""


def test_unacknowledged_replies_delay_no_release(
    tmp_path: Path, prefix: str, new_database: NewDatabase, connection: tuple[ConnectionProxy, Addresses]
) -> None:
    """While headquarters waits for the acknowledgement of a reply, it releases the next order; later all have one."""
    # given
    proxy, addresses = connection
    url = new_database("headquarters")
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
    scene = set_scene(tmp_path / "inside", addresses.inside, prefix, url)
    away = set_scene(tmp_path / "outside", addresses.outside, prefix, url, has_tables=True)
    houston, till = Store(channel_id=HOUSTON, legal_entity="usrt", rng=random.Random(1)), Till(channel_id=HOUSTON)
    events = [houston.create() for _ in range(ORDERS)]
    orders = [till.order(customer_id=event["customer_id"]) for event in events]
    meanwhile = 0

    # when
    with scene.headquarters(), away.transactions():
        send(scene, *orders)
        for order in orders:
            wait_until(scene, order, "waiting")
        wait_until_settled(scene)
        proxy.become("frozen")
        for event, order in zip(events, orders, strict=True):
            sending = scene.query(_SENDING)
            scene.send(event)
            wait_until(scene, order, "synchronized")
            meanwhile += sending != [] and scene.query(_SENDING) == sending
            wait_for(lambda: scene.query(_SENDING) != [], "a reply to be under way")
        proxy.become("intact")
        wait_until_settled(scene, "transactions", "headquarters", released=True)
        for order in orders:
            reply_with_status(scene, order, "synchronized")

    # then
    assert meanwhile > 0
