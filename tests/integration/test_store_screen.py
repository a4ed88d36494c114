"""What the screen of a store reads from its database, on PostgreSQL and SQLite."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event

import httpx
from sqlalchemy import Engine, delete, insert, update

from tenten.producers import Item, close_day, create_customer, edit_customer, issue_card, record_order, record_sale
from tenten.producers.till.attention import needing_attention
from tenten.producers.till.loyalty import CardStatus, cards_of
from tenten.producers.till.search import recently_changed
from tenten.producers.till.transaction_views import list_transactions
from tenten.schemas.tables.channel import end_of_days, outbox, outbox_queue, positions, topics, transactions
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.engine import open_database
from tenten.web.apps import Served
from tenten.web.serving.address import HttpAddress
from tenten.web.store_screen.app import store_screen
from tenten.web.store_screen.connection import ConnectionWatch
from tests.producer_scene import Store

TEA = Item(sku="TEA", quantity=Decimal(1), price=Decimal(3))


def test_what_needs_a_clerk_is_listed_until_it_is_corrected(store: Store) -> None:
    """Rejected and held customers, stuck orders and ends of day; a corrected customer is not among them."""
    # given
    ada, bea, cleo, _ = (create_customer(store.channel, first_name=name) for name in ("Ada", "Bea", "Cleo", "Dora"))
    first, second, third, _ = store.events()
    store.reject(first.event_id)
    store.reject(second.event_id)
    store.hold(third.event_id)
    order = record_order(store.channel, lines=[TEA], customer_id=ada.customer_id)
    record_sale(store.channel, lines=[TEA])
    [day] = close_day(store.channel)
    with store.channel.engine.begin() as connection:
        is_order = transactions.c.transaction_id == order.transaction_id
        connection.execute(update(transactions).where(is_order).values(status="blocked"))
        connection.execute(update(end_of_days).values(status="rejected"))
    # when
    edit_customer(store.channel, bea.customer_id, last_name="Corrected")
    attention = needing_attention(store.channel)
    # then
    assert [view.customer_id for view in attention.rejected] == [ada.customer_id]
    assert [view.customer_id for view in attention.held] == [cleo.customer_id]
    assert [view.transaction_id for view in attention.transactions] == [order.transaction_id]
    assert [view.end_of_day_id for view in attention.days] == [day.end_of_day_id]
    assert len(attention) == 4


def test_pages_name_what_is_missing_and_never_show_a_guid(store: Store) -> None:
    """An end of day names each sale that headquarters misses by its reference, with a link to it; a date that was
    closed again has numbers.
    """
    # given
    customer = create_customer(store.channel, first_name="Ada")
    store.reject(store.events()[0].event_id)
    sales = [record_sale(store.channel, lines=[TEA], customer_id=customer.customer_id) for _ in range(2)]
    first, *_ = close_day(store.channel)
    record_sale(store.channel, lines=[TEA])
    close_day(store.channel)
    missing = {"field": sales[0].transaction_id, "code": "missing", "text": "Not received by headquarters."}
    with store.channel.engine.begin() as connection:
        connection.execute(update(end_of_days).values(status="blocked", reasons=[missing]))
        connection.execute(update(transactions).values(status="rejected", reasons=[missing]))
    paths = ["/", "/sales", "/day", "/attention", "/customers/new"]
    paths += [f"/customers/{customer.customer_id}", f"/sales/{sales[0].transaction_id}"]
    # when
    pages = asyncio.run(_pages(store, paths))
    # then
    for page in (pages[2], pages[3]):
        assert f'<a href="/sales/{sales[0].transaction_id}">Sale' in page
        assert "Not received by headquarters." in page
        assert f"{first.business_date} / 2<" in page
        assert f"{first.business_date} / 1" not in page
    shown = [re.sub("<[^>]*>", "", page) for page in pages]
    assert not any(re.search("[0-9a-f]{8}-[0-9a-f]{4}-", page) for page in shown)
    assert all(sales[0].reference in page for page in (*shown[1:4], shown[6]))


async def _pages(store: Store, paths: Sequence[str], engine: Engine | None = None) -> list[str]:
    """What a clerk who has signed in sees at these paths, without a server."""
    token = "0123456789" * 4
    served = Served(settings=store.settings, address=HttpAddress("127.0.0.1", 8710), ending=Event())
    app = store_screen(served, store.channel.name, engine or store.channel.engine, token)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    accept = {"Accept": "text/html"}
    async with httpx.AsyncClient(transport=transport, base_url="http://store", headers=accept, timeout=60) as browser:
        await browser.post("/login", data={"token": token, "name": "Ana"})
        pages = [(await browser.get(path)).text for path in paths]
    served.ending.set()
    return pages


def test_a_database_that_does_not_answer_is_a_page_of_its_own(store: Store, tmp_path: Path) -> None:
    """The sign-in works without it."""
    # given
    away = open_database(f"sqlite:///{tmp_path / 'nowhere' / 'houston.db'}")
    # when
    [page] = asyncio.run(_pages(store, ["/"], away))
    # then
    assert "The database of this store does not answer." in page
    assert "Sign in" not in page


def test_a_customers_own_cards_and_transactions_are_listed(store: Store) -> None:
    """Also a card that another channel has issued; nothing of another customer. Lately changed customers come first."""
    # given
    ada, bea = (create_customer(store.channel, first_name=name) for name in ("Ada", "Bea"))
    issue_card(store.channel, ada.customer_id, "LC-1001", keep=True)
    edit_customer(store.channel, ada.customer_id, attributes={"loyalty_card": "LC-2002"})
    issue_card(store.channel, bea.customer_id, "LC-3003", keep=True)
    order = record_order(store.channel, lines=[TEA], customer_id=ada.customer_id)
    record_order(store.channel, lines=[TEA], customer_id=bea.customer_id)
    # when
    cards = cards_of(store.channel, ada.customer_id)
    listed = list_transactions(store.channel, customer_id=ada.customer_id.upper())
    # then
    assert [(card.card_number, card.status) for card in cards] == [
        ("LC-1001", CardStatus.KEPT),
        ("LC-2002", CardStatus.ISSUED),
    ]
    assert cards[0].reasons
    assert [view.transaction_id for view in listed] == [order.transaction_id]
    assert [view.display_name for view in recently_changed(store.channel)] == ["Ada", "Bea"]


def test_an_unsent_change_shows_that_the_store_is_offline_until_it_is_sent(store: Store) -> None:
    """A new change does not, and a long queue that is being sent does not either."""
    # given
    create_customer(store.channel, first_name="Ada")
    fresh = ConnectionWatch().state(store.channel)
    _made(store, timedelta(minutes=5))
    # when
    cut_off = ConnectionWatch().state(store.channel)
    moving = _while_sending(store)
    with store.channel.engine.begin() as connection:
        connection.execute(delete(outbox_queue))
    # then
    assert fresh.state == "connected"
    assert (cut_off.state, cut_off.unsent) == ("offline", 1)
    assert moving == "connected"
    assert ConnectionWatch().state(store.channel).state == "connected"


def test_a_quiet_store_is_offline_when_it_does_not_reach_the_end_of_the_customers(store: Store) -> None:
    """It is confirmed about once a minute; a store that never was at the end is starting."""
    # given
    watch = ConnectionWatch()
    starting = watch.state(store.channel)
    name = store.settings.topic(CUSTOMERS)
    quiet_since = datetime.now(UTC) - timedelta(minutes=10)
    place = {"topic": name, "topic_id": "A", "partition": 0, "next_offset": 0, "confirmed_at": quiet_since}
    with store.channel.engine.begin() as connection:
        connection.execute(insert(topics).values(topic=name, topic_id="A", partitions=1))
        connection.execute(insert(positions).values(place))
    # when
    watch = ConnectionWatch()
    watch.progress_at = -1_000.0
    watch.read_up_to = 0
    offline = watch.state(store.channel)
    with store.channel.engine.begin() as connection:
        connection.execute(update(positions).values(confirmed_at=datetime.now(UTC)))
    # then
    assert starting.state == "connected"
    assert (offline.state, offline.unsent) == ("offline", 0)
    assert offline.since is not None
    assert abs(offline.since - quiet_since) < timedelta(seconds=1)
    assert ConnectionWatch().state(store.channel).state == "connected"


def _made(store: Store, before: timedelta) -> None:
    """The changes of the outbox were made so long ago."""
    with store.channel.engine.begin() as connection:
        connection.execute(update(outbox).values(created_at=datetime.now(UTC) - before))


def _while_sending(store: Store) -> str:
    """The state while old changes are being sent: the oldest one is another one each time."""
    create_customer(store.channel, first_name="Bea")
    with store.channel.engine.begin() as connection:
        rows = connection.execute(outbox.select().order_by(outbox.c.sequence)).all()
        for number, row in enumerate(rows):
            made = datetime.now(UTC) - timedelta(minutes=5 - number)
            connection.execute(update(outbox).where(outbox.c.sequence == row.sequence).values(created_at=made))
    watch = ConnectionWatch()
    watch.oldest = rows[0].created_at - timedelta(minutes=10)
    return watch.state(store.channel).state
