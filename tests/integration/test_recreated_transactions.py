"""The topic `retail-transactions` is deleted and created again while headquarters and stores work."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tenten.consumers.headquarters import watch
from tenten.kafka.topics_admin import apply_topics, topic_exists
from tenten.producers import (
    Item,
    OpenChannel,
    close_day,
    create_customer,
    list_days,
    list_transactions,
    record_order,
    record_sale,
)
from tenten.producers.relay import maintenance
from tenten.schemas.tables import channel
from tenten.schemas.topics import RETAIL_TRANSACTIONS
from tests.conftest import NewDatabase
from tests.flow_scene import DALLAS, PARTS, Flow, rows, set_flow
from tests.restores import delete_topic, recreate
from tests.sales import Till, reply_with_status, send, status
from tests.scenes import Scene
from tests.waiting import wait_for

TEA: Final = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))

BEGINS_TO_READ: Final = """
    SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE relation = 'positions'::regclass AND NOT granted AND query ~ '^INSERT INTO positions'
"""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and relays look at their topics every few seconds."""
    monkeypatch.setattr(watch, "WATCH_SECONDS", 5.0)
    monkeypatch.setattr(maintenance, "MAINTENANCE_SECONDS", 2)
    monkeypatch.setattr(maintenance, "_FIRST_MAINTENANCE_SECONDS", 1)


@pytest.fixture
def flow(tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase) -> Flow:
    """Headquarters, and the channels houston and dallas."""
    return set_flow(tmp_path, bootstrap_servers, prefix, new_database, "sqlite")


def sell(*stores: OpenChannel) -> None:
    """An order of a new customer, and a sale, in each store."""
    for store in stores:
        customer = create_customer(store, last_name="Lovelace")
        record_order(store, lines=[TEA], customer_id=customer.customer_id)
        record_sale(store, lines=[TEA])


def is_sent(*stores: OpenChannel) -> bool:
    """Whether the broker has everything."""
    return not any(rows(store, channel.outbox_queue) for store in stores)


@contextmanager
def reading_held_up(scene: Scene) -> Iterator[None]:
    """No worker of headquarters begins to read during the block, or stores a batch."""
    with psycopg.connect(scene.url) as connection:
        connection.execute("LOCK TABLE positions IN EXCLUSIVE MODE")
        yield


def test_everything_is_settled_after_the_topic_was_recreated_under_running_workers(flow: Flow) -> None:
    """What headquarters had read, what was lost with the topic, and what was recorded while there was no topic: each
    order becomes one sales order, and each sale is posted once.
    """
    scene, topic = flow.scene, flow.settings.topic(RETAIL_TRANSACTIONS)
    with (
        flow.opened() as houston,
        flow.opened(DALLAS) as dallas,
        scene.headquarters(),
        flow.running(*PARTS),
        flow.running(*PARTS, channel=DALLAS),
        ExitStack() as stack,
    ):
        # given
        stores = (houston, dallas)
        with scene.transactions():
            sell(*stores)
            wait_for(lambda: all(map(is_settled, stores)), "the first sales")
        with reading_held_up(scene):
            stack.enter_context(scene.transactions())
            wait_for(lambda: bool(scene.query(BEGINS_TO_READ)), "a worker that is about to read")
            sell(*stores)
            wait_for(lambda: is_sent(*stores), "records that headquarters has not read")
            # when
            delete_topic(flow.settings, RETAIL_TRANSACTIONS)
            sell(*stores)
            apply_topics(flow.settings)
            wait_for(lambda: topic_exists(flow.settings, topic), "the new topic")
        sell(*stores)
        for store in stores:
            close_day(store)
        # then
        wait_for(lambda: all(map(is_settled, stores)), "everything", check=lambda: check_workers(scene))
        orders = [view for store in stores for view in list_transactions(store, limit=100) if view.sales_order]
    assert len({order.sales_order for order in orders}) == len(orders) == 8
    assert len(scene.query("SELECT * FROM sales_orders")) == 8
    assert len(scene.query("SELECT * FROM statement_lines")) == 8


def check_workers(scene: Scene) -> None:
    """Raise if a worker of headquarters has failed."""
    for worker in scene.workers:
        worker.check()


def is_settled(store: OpenChannel) -> bool:
    """Whether headquarters has a final answer for all that the store has recorded."""
    statuses = {view.status for view in list_transactions(store, limit=100)} | {day.status for day in list_days(store)}
    is_final = statuses <= {"synchronized", "posted"}
    return is_final and is_sent(store) and all(row["settled_at"] for row in rows(store, channel.outbox))


def test_correction_with_the_offset_of_the_rejected_record_is_no_repeat(scene: Scene) -> None:
    """A store sends a rejected order again, and in the new topic it is the first record, as it was in the old one."""
    # given
    till = Till(channel_id="houston")
    right = till.order()
    wrong = right | {"total": right["total"] + 1}

    # when
    with scene.transactions():
        send(scene, wrong)
        reply_with_status(scene, wrong, "rejected")
        before = status(scene, wrong)
        recreate(scene.settings, RETAIL_TRANSACTIONS)
        send(scene, right)
        reply = reply_with_status(scene, right, "synchronized")

    # then
    after = status(scene, right)
    assert (after["partition"], after["offset"]) == (before["partition"], before["offset"])
    assert reply["sequence"] > 1
