"""Events of a channel: written with what they tell of, read in the order of the commits, deleted after a while."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from threading import Event
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, insert

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.settlement.settle import settle
from tenten.producers import close_day, create_customer, edit_customer, record_order, record_sale
from tenten.producers.relay.maintenance import prune_request_keys
from tenten.producers.till.transaction_draft import Item
from tenten.schemas.messages import Outcome, Reply, TransactionReply
from tenten.schemas.tables.channel import request_keys
from tenten.sql import channel_events
from tenten.sql.channel_events import (
    ChannelEvent,
    EventBounds,
    EventType,
    NewEvent,
    Subject,
    event_bounds,
    events_after,
    prune_events,
    write_events,
)
from tenten.sql.engine import consistent_view
from tenten.web.events.feed import EventFeed
from tests.channel_scene import AT, REASON, transaction_reply
from tests.channel_scene import reply as reply_to
from tests.producer_scene import Store
from tests.threads import Worker
from tests.waiting import wait_for

CUP = Item(sku="CUP", quantity=Decimal(1), price=Decimal("4.50"))
WRITERS = 4


def test_replies_become_events_of_what_they_changed(store: Store) -> None:
    """Each reply that changes a customer, an order, a sale or an end of day is an event, in their order, without names;
    a repeated reply is none.
    """
    # given
    ada, bob = (create_customer(store.channel, first_name=name, last_name="Lovelace") for name in ("Ada", "Bob"))
    edit_customer(store.channel, ada.customer_id, phone="713 555 0100")
    order = record_order(store.channel, lines=[CUP], customer_id=ada.customer_id)
    sale = record_sale(store.channel, lines=[CUP])
    (day,) = close_day(store.channel)
    created, other, edited = store.events()
    replies: list[Reply | TransactionReply] = [
        reply_to(created, Outcome.HELD, reasons=(REASON,), judgement=1),
        reply_to(created, account_number="C-00000001", version=1, judgement=2),
        reply_to(edited, account_number="C-00000001", version=2, judgement=1),
        reply_to(other, Outcome.REJECTED, reasons=(REASON,), judgement=1),
        transaction_reply(order.transaction_id, "synchronized", 1, sales_order="SO-00000001"),
        transaction_reply(sale.transaction_id, "blocked", 1, reasons=(REASON,)),
        transaction_reply(day.end_of_day_id, "posted", 1),
    ]
    # when
    for part in ([reply] for reply in (*replies, *replies)):
        _settle(store, part)
    # then
    found = _events(store.channel.engine)
    assert [(event.type, event.subject, event.subject_id, event.number, event.codes) for event in found] == [
        ("held", "customer", ada.customer_id, None, ("too_long",)),
        ("numbered", "customer", ada.customer_id, "C-00000001", ()),
        ("synchronized", "customer", ada.customer_id, "C-00000001", ()),
        ("rejected", "customer", bob.customer_id, None, ("too_long",)),
        ("posted", "order", order.transaction_id, "SO-00000001", ()),
        ("blocked", "sale", sale.transaction_id, None, ("too_long",)),
        ("posted", "end_of_day", day.end_of_day_id, None, ()),
    ]
    assert [event.sequence for event in found] == sorted({event.sequence for event in found})


def test_corrected_customer_is_numbered_once(store: Store) -> None:
    """A customer that was rejected and corrected gets its number with the correction, and one event of it."""
    # given
    ada = create_customer(store.channel, first_name="Ada", last_name="Lovelace")
    (created,) = store.events()
    _settle(store, [reply_to(created, Outcome.REJECTED, reasons=(REASON,), judgement=1)])
    edit_customer(store.channel, ada.customer_id, last_name="Byron")
    corrected = store.events()[-1]
    # when
    superseded = reply_to(created, Outcome.SUPERSEDED, account_number="C-00000007", version=1, judgement=2)
    _settle(store, [superseded, reply_to(corrected, account_number="C-00000007", version=1, judgement=1)])
    # then
    assert [event.type for event in _events(store.channel.engine)] == ["rejected", "numbered", "synchronized"]


def test_reader_misses_no_event_of_concurrent_writers(store: Store) -> None:
    """Four writers commit and roll back at the same time; whoever asks for the events after the last one sees each
    committed event once, in order.
    """
    # given
    engine, committed = store.channel.engine, list[str]()
    seen: list[ChannelEvent] = []

    def read(ended: Event) -> None:
        is_last = False
        while not is_last:
            was_ended = ended.is_set()
            with consistent_view(engine) as connection:
                new = events_after(connection, seen[-1].sequence if seen else 0, 7)
            seen.extend(new)
            is_last = was_ended and not new

    def write(seed: int, _: Event) -> None:
        dice = random.Random(seed)
        for _number in range(25):
            ids = [str(uuid4()) for _ in range(dice.randint(1, 3))]
            with suppress(_RolledBack), engine.begin() as connection:
                write_events(connection, [_numbered(customer_id) for customer_id in ids], datetime.now(UTC))
                # Long enough for another writer to begin, and to commit first where nothing prevents it.
                Event().wait(dice.random() * 0.004)
                if dice.random() < 0.2:
                    raise _RolledBack
                committed.extend(ids)

    # when
    reader, writers = Worker(read), [Worker(partial(write, seed)) for seed in range(WRITERS)]
    for worker in (*writers, reader):
        worker.stop()
        worker.check()
    # then
    assert sorted(event.subject_id for event in seen) == sorted(committed)
    assert [event.sequence for event in seen] == sorted({event.sequence for event in seen})


def test_old_and_surplus_events_are_deleted_and_readers_behind_them_notice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of more than seven days, and those before the newest ones, are deleted; who has not seen all of them is
    told, and so is a reader who has seen more than the database has.
    """
    # given
    engine, now = store.channel.engine, datetime.now(UTC)
    monkeypatch.setattr(channel_events, "EVENTS_MAX", 3)
    monkeypatch.setattr(channel_events, "_PRUNED_ROWS", 2)
    with engine.begin() as connection:
        write_events(connection, [_numbered(str(uuid4()))] * 2, now - timedelta(days=8))
        write_events(connection, [_numbered(str(uuid4()))] * 2, now - timedelta(days=6))
        write_events(connection, [_numbered(str(uuid4()))] * 2, now)
    before = [event.sequence for event in _events(engine)]
    # when
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as autocommitted:
        deleted = [prune_events(autocommitted, now) for _ in range(3)]
    # then
    assert deleted == [2, 1, 0]
    assert [event.sequence for event in _events(engine)] == before[3:]
    bounds = _bounds(engine)
    assert [bounds.has_all_after(sequence) for sequence in before] == [False, False, True, True, True, True]
    assert not bounds.has_all_after(before[-1] + 1)


def test_sequences_of_a_restored_database_are_higher_than_all_before(store: Store) -> None:
    """Sequences follow the clock, and rise even where the clock goes back."""
    # given
    engine, later = store.channel.engine, datetime.now(UTC)
    # when
    with engine.begin() as connection:
        write_events(connection, [_numbered(str(uuid4()))] * 3, later)
        write_events(connection, [_numbered(str(uuid4()))], later - timedelta(days=1))
    # then
    first, *_, last = [event.sequence for event in _events(engine)]
    assert first > int(later.timestamp() * 1_000_000) - 1
    assert last == first + 3


def test_idempotency_keys_are_forgotten_after_a_while(store: Store) -> None:
    """Maintenance deletes the keys that were recorded before a time, and no others."""
    # given
    now = datetime.now(UTC)
    rows = [
        {"request_key": str(uuid4()), "digest": "d", "recorded_at": now - timedelta(days=days)} for days in (9, 8, 1)
    ]
    with store.channel.engine.begin() as connection:
        connection.execute(insert(request_keys), rows)
        # when
        deleted = prune_request_keys(connection, now - timedelta(days=7))
    # then
    assert deleted == 2
    assert [row["request_key"] for row in store.rows(request_keys)] == [rows[2]["request_key"]]


def test_feed_gives_every_reader_all_events(store: Store) -> None:
    """Readers that begin now, behind an event, and behind deleted ones get what happens, what they have missed, and a
    reset; all end with the process.
    """
    # given
    engine, ending, now = store.channel.engine, Event(), datetime.now(UTC)
    with engine.begin() as connection:
        write_events(connection, [_numbered(str(uuid4())) for _ in range(1_200)], now)
    old = [event.sequence for event in _events(engine)]
    feed = EventFeed(engine, "houston", ending)
    seen: dict[str, list[int | str]] = {"now": [], "behind": [], "reset": []}

    async def follow(name: str, after: int | None) -> None:
        async with aclosing(feed.follow(after)) as batches:
            async for batch in batches:
                seen[name].extend(["reset"] if batch.is_reset else [event.sequence for event in batch.events])
                seen[name].append("batch") if not batch.events and not batch.is_reset else None

    async def follow_all() -> None:
        await asyncio.gather(follow("now", None), follow("behind", old[99]), follow("reset", old[-1] + 10))

    followers = Worker(lambda _: asyncio.run(follow_all()))
    wait_for(lambda: "batch" in seen["now"] and "reset" in seen["reset"], "the readers")
    # when
    with engine.begin() as connection:
        write_events(connection, [_numbered(str(uuid4()))], datetime.now(UTC))
        _notify(connection)
    (new,) = [event.sequence for event in _events(engine) if event.sequence > old[-1]]
    wait_for(lambda: all(sequences[-1:] == [new] for sequences in seen.values()), "the new event")
    ending.set()
    followers.stop()
    followers.check()
    # then
    assert seen == {"now": ["batch", new], "behind": [*old[100:], new], "reset": ["reset", new]}


class _RolledBack(Exception):
    pass


def _numbered(customer_id: str) -> NewEvent:
    return NewEvent(EventType.NUMBERED, Subject.CUSTOMER, customer_id, "C-00000001")


def _settle(store: Store, replies: Sequence[Reply | TransactionReply]) -> None:
    view = ChannelView.of(store.settings, "houston", store.channel.writers)
    with store.channel.engine.begin() as connection:
        settle(connection, view, [replace(reply, answered_at=AT) for reply in replies], datetime.now(UTC))


def _events(engine: Engine) -> list[ChannelEvent]:
    with consistent_view(engine) as connection:
        return events_after(connection, 0, 10_000)


def _bounds(engine: Engine) -> EventBounds:
    with consistent_view(engine) as connection:
        return event_bounds(connection)


def _notify(connection: Connection) -> None:
    """As settlement does."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_notify('tenten_settled', '')")
