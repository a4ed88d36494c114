"""Release 0.1.0 is killed at its work; then headquarters and stores are upgraded with everything stopped."""

import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.acceptance.cli import end
from tests.conftest import NewDatabase
from tests.forked import ForkedProcess
from tests.upgrade.complete import assert_all_sold, assert_nothing_lost, is_complete
from tests.upgrade.world import Store, World, advisory_lock, company

ERASE_AND_TOUCH: Final = """
import sys
from datetime import UTC, datetime

import uuid_utils
from commerce.kafka import producer_configuration
from commerce.settings import load_settings
from confluent_kafka import Producer
from schemas.records import HEADQUARTERS, CustomerEvent, EventKind, to_avro
from schemas.topics import ASYNC_CUSTOMERS
from schemas.wire import contract, encode

settings = load_settings()
producer = Producer(producer_configuration(settings))
for customer_id, kind in zip(sys.argv[1:], (EventKind.ERASED, EventKind.TOUCHED), strict=True):
    event = CustomerEvent(
        customer_id=customer_id,
        event_id=str(uuid_utils.uuid7()),
        channel_id=HEADQUARTERS,
        kind=kind,
        occurred_at=datetime.now(UTC),
    )
    producer.produce(settings.topic(ASYNC_CUSTOMERS), encode(contract("CustomerEvent"), to_avro(event)), customer_id)
assert producer.flush(30) == 0
"""

LINE: Final = ("--line", "TEA:2:4.50")
MORNING: Final = {"Gonçalves": "houston", "Groß": "seattle"}
"""Customers that are settled everywhere before anything is killed."""


@dataclass(slots=True)
class Left:
    """What release 0.1.0 has left."""

    customers: dict[str, str] = field(default_factory=dict)
    """Customer ids by last name."""
    numbers: dict[str, str] = field(default_factory=dict)
    """The account numbers that it has given, by customer id."""


def test_work_that_a_killed_release_left_is_finished_after_the_upgrade(
    tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase
) -> None:
    """Nothing is lost, each customer has one number, numbers given before stand, and a new field arrives everywhere."""
    world = company(tmp_path, bootstrap_servers, prefix, new_database, {"houston": "sqlite", "seattle": "postgresql"})
    # given
    left = _left_by_killed_release(world)
    # when
    world.new.ok("topics", "apply")
    world.new.ok("database", "upgrade", "all")
    assert all(store.resync_requests() for store in world.every_store)
    with ExitStack() as stack:
        running = [
            stack.enter_context(world.new.running(*words))
            for words in (
                ("headquarters", "run"),
                ("transactions", "run"),
                ("channel", "run", "houston"),
                ("channel", "run", "seattle"),
            )
        ]
        nickname = ("customer", "edit", "seattle", left.customers["Gonçalves"], "--set", "known_as=Jô")
        world.new.ok(*nickname)
        created = world.new.ok(
            "customer", "create", "houston", "--first-name", "Ada", "--known-as", "Countess", "--json"
        )
        for store in world.every_store:
            world.new.ok("customer", "edit", store.name, left.customers[f"Rejected {store.name}"], "--set", "title=Dr.")
        world.wait_until(lambda: is_complete(world), "everything is settled, and the same everywhere")
        assert [end(process) for process in running] == [0] * len(running)
    # then
    assert_nothing_lost(world, customers=[*left.customers.values(), created.json["customer_id"]], numbers=left.numbers)
    assert_all_sold(world)
    for store in world.every_store:
        erased = left.customers["Erased"]
        assert erased not in store.customers()
        (found,) = world.new.ok("customer", "search", store.name, "goncalves", "--json").json
        assert (found["known_as"], found["title"], found["tax_number"]) == ("Jô", "Prof.", "77")
        assert len(world.new.ok("customer", "search", store.name, "gross", "--json").json) == 1
        card = world.new.ok("loyalty", "show", store.name, f"CARD-{store.name}", "--json").json
        assert (card["status"], card["customer_id"]) == ("issued", left.customers[f"Offline {store.name}"])
    verified = world.new.ok("headquarters", "verify", "--json").json
    assert verified == {"customers": len(left.customers), "missing": [], "surplus": [], "different": []}


def _left_by_killed_release(world: World) -> Left:
    """Let release 0.1.0 work until each of its processes is killed, with work of every kind half done."""
    left = Left()
    world.old.together(
        [
            ("topics", "apply"),
            ("database", "upgrade", "headquarters"),
            *(("database", "upgrade", "channel", store.name) for store in world.every_store),
        ]
    )
    with ExitStack() as stack:
        transactions = stack.enter_context(world.old.running("transactions", "run"))
        channels = [stack.enter_context(world.old.running("channel", "run", store.name)) for store in world.every_store]
        _rejections(world, left)
        with world.old.running("headquarters", "run") as headquarters:
            _complete_day(world, left)
            _kill(*channels)
            _unread_replies(world, left, transactions)
            end(headquarters)
    _killed_between_commits(world, left)
    world.old.program(ERASE_AND_TOUCH, left.customers["Erased"], left.customers["Gonçalves"])
    _unsent_changes(world, left)
    left.numbers = {key: row["account_number"] for key, row in world.customers().items()}
    for store in world.every_store:
        unsettled = store.unsettled()
        assert any(row["sent_at"] is None for row in unsettled)
        assert any(row["sent_at"] is not None and row["outcome"] is None for row in unsettled)
        assert any(row["outcome"] == "rejected" for row in unsettled)
    return left


def _rejections(world: World, left: Left) -> None:
    """Headquarters does not know the stores yet, and rejects the first customer of each."""
    with world.old.running("headquarters", "run", TENTEN_CONFIG="without_stores.toml") as headquarters:
        _create(world, left, _in_each(world, "Rejected"))
        world.wait_until_stores(_has_only_a_rejection, "the rejection")
        end(headquarters)


def _complete_day(world: World, left: Left) -> None:
    """Customers, an edit, orders, sales and an end of day: settled in every store."""
    _create(world, left, {**MORNING, "Erased": "houston"})
    world.old.together(
        [
            ("customer", "edit", "houston", left.customers["Gonçalves"], "--set", "title=Dr."),
            *_sales(left, MORNING),
        ]
    )
    world.old.together([("day", "close", store.name) for store in world.every_store])
    world.wait_until_stores(lambda store: store.ends_of_day() == ["posted"], "the statement")
    world.wait_until_stores(lambda store: len(_numbered(store)) == 3, "every customer")
    world.wait_until_stores(_has_only_a_rejection, "every reply")


def _unread_replies(world: World, left: Left, transactions: ForkedProcess) -> None:
    """The stores only send, so replies stay unread; then headquarters cannot publish those to transactions."""
    with ExitStack() as stack:
        relays = [stack.enter_context(world.old.running("channel", "relay", store.name)) for store in world.every_store]
        world.old.together(_sales(left, MORNING))
        world.wait_until_stores(lambda store: _is_sold(world, store), "orders and sales at headquarters")
        world.wait_until(lambda: world.replies_due() == 0, "replies on their topic")
        with advisory_lock(world.headquarters, "tenten.answers"):
            unread = _in_each(world, "Unread")
            _create(world, left, unread)
            world.old.together(_sales(left, unread))
            world.wait_until_stores(lambda store: _is_sold(world, store), "orders and sales at headquarters")
            world.wait_until_stores(lambda store: all(row["sent_at"] for row in store.unsettled()), "the relay's marks")
            _kill(transactions, *relays)
    assert world.replies_due() > 0


def _killed_between_commits(world: World, left: Left) -> None:
    """A relay is killed before it marks its row as sent, headquarters between its two commits."""
    with (
        world.old.running("headquarters", "run", TENTEN_FAILPOINT="headquarters.after_sql_commit") as headquarters,
        world.old.running("channel", "relay", "houston", TENTEN_FAILPOINT="relay.after_ack") as relay,
    ):
        _create(world, left, {"Between": "houston"})
        assert [process.wait(60) for process in (relay, headquarters)] == [-signal.SIGKILL] * 2
    assert left.customers["Between"] in world.customers()


def _unsent_changes(world: World, left: Left) -> None:
    """Everything is down, and the stores go on."""
    offline = _in_each(world, "Offline")
    _create(world, left, offline)
    world.old.together(
        [
            ("customer", "edit", "houston", left.customers["Gonçalves"], "--set", "title=Prof."),
            ("customer", "edit", "seattle", left.customers["Gonçalves"], "--set", "tax_number=77"),
            *_sales(left, offline),
            *(
                ("loyalty", "issue", store, left.customers[name], f"CARD-{store}", "--keep")
                for name, store in offline.items()
            ),
        ]
    )
    world.old.together([("day", "close", store.name) for store in world.every_store])


def _in_each(world: World, word: str) -> dict[str, str]:
    """The last name of a customer in each store, and the store."""
    return {f"{word} {store}": store for store in world.stores}


def _create(world: World, left: Left, stores: Mapping[str, str]) -> None:
    """Create customers with these last names in these stores."""
    commands = [
        ("customer", "create", store, "--first-name", "João", "--last-name", name, "--json")
        for name, store in stores.items()
    ]
    for name, created in zip(stores, world.old.together(commands), strict=True):
        left.customers[name] = created["customer_id"]


def _sales(left: Left, stores: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Commands that record an order and a sale of each of these customers in these stores."""
    return [
        (kind, "create", store, "--customer", left.customers[name], *LINE)
        for name, store in stores.items()
        for kind in ("order", "sale")
    ]


def _numbered(store: Store) -> list[str]:
    return [key for key, row in store.customers().items() if row["account_number"]]


def _has_only_a_rejection(store: Store) -> bool:
    return [row["outcome"] for row in store.unsettled()] == ["rejected"]


def _is_sold(world: World, store: Store) -> bool:
    """Whether headquarters has released every order and sale of the store."""
    sold = {key for key, row in world.sold().items() if row["status"] == "synchronized"}
    return store.transactions().keys() <= sold


def _kill(*processes: ForkedProcess) -> None:
    for process in processes:
        process.kill()
        process.wait(30)
