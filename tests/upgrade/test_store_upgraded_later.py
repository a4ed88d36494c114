"""Stores of release 0.1.0 go on working while headquarters and another store have been upgraded already."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.acceptance.cli import end
from tests.conftest import NewDatabase
from tests.forked import ForkedProcess
from tests.upgrade.complete import assert_all_sold, assert_nothing_lost, is_complete
from tests.upgrade.world import Store, World, company

LATER: Final = ("austin", "boston")
"""Stores that are upgraded after headquarters."""

LINE: Final = ("--line", "TEA:2:4.50")


def test_store_that_runs_the_release_before_loses_nothing_and_catches_up(
    tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase
) -> None:
    """Its customers are numbered, its sales posted; after its own upgrade it has the fields that it could not read."""
    stores = {"austin": "sqlite", "boston": "postgresql", "dallas": "sqlite"}
    world = company(tmp_path, bootstrap_servers, prefix, new_database, stores)
    customers: list[str] = []
    with ExitStack() as stack:
        # given
        before = _settled_by_release(world, customers, stack)
        numbers = {key: row["account_number"] for key, row in world.customers().items()}
        world.new.ok("topics", "apply")
        world.new.ok("database", "upgrade", "headquarters")
        world.new.ok("database", "upgrade", "channel", "dallas")
        running = _start(world, stack, ("headquarters", "run"), ("transactions", "run"), ("channel", "run", "dallas"))
        # when
        known = customers[0]
        world.new.ok("customer", "edit", "dallas", known, "--set", "known_as=Jô")
        ada = world.new.ok(
            "customer", "create", "dallas", "--first-name", "Ada", "--known-as", "Countess", "--json"
        ).json
        customers.append(ada["customer_id"])
        _work(world, customers, edited=known, title="Dr.")
        # It may have stopped at something new; nothing is lost then.
        world.wait_until(
            lambda: all(
                process.poll() is not None or _is_current(world, world.stores[name], customers)
                for name, process in before.items()
            ),
            "stores of the release before are current, or have stopped",
        )
        for process in before.values():
            process.kill()
        _work(world, customers, edited=known, title="Prof.")
        world.old.together([("day", "close", name) for name in LATER])
        # then
        for name in LATER:
            world.new.ok("database", "upgrade", "channel", name)
            assert world.stores[name].resync_requests()
        running += _start(world, stack, *(("channel", "run", name) for name in LATER))
        world.wait_until(lambda: is_complete(world), "everything is settled, and the same everywhere")
        assert [end(process) for process in running] == [0] * len(running)
    assert_nothing_lost(world, customers=customers, numbers=numbers)
    assert_all_sold(world)
    for store in world.every_store:
        found = store.customers()
        assert [found[key]["known_as"] for key in (known, ada["customer_id"])] == ["Jô", "Countess"]
        assert found[known]["title"] == "Prof."


def _settled_by_release(world: World, customers: list[str], stack: ExitStack) -> dict[str, ForkedProcess]:
    """A customer of each store, settled by release 0.1.0; the processes of the stores that are upgraded later."""
    world.old.together(
        [
            ("topics", "apply"),
            ("database", "upgrade", "headquarters"),
            *(("database", "upgrade", "channel", name) for name in world.stores),
        ]
    )
    later = {name: stack.enter_context(world.old.running("channel", "run", name)) for name in LATER}
    with ExitStack() as stopped:
        words = (("headquarters", "run"), ("transactions", "run"), ("channel", "run", "dallas"))
        running = [stopped.enter_context(world.old.running(*each)) for each in words]
        _create(world, customers, world.stores)
        world.wait_until_stores(
            lambda store: len(store.customers()) == len(customers) and not store.unsettled(), "everything is settled"
        )
        assert [end(process) for process in running] == [0] * len(running)
    return later


def _work(world: World, customers: list[str], *, edited: str, title: str) -> None:
    """A customer, an order and a sale in each store of release 0.1.0, and an edit of the same customer in all."""
    created = _create(world, customers, LATER)
    world.old.together(
        [
            words
            for name, customer_id in zip(LATER, created, strict=True)
            for words in (
                ("customer", "edit", name, edited, "--set", f"title={title}"),
                ("order", "create", name, "--customer", customer_id, *LINE),
                ("sale", "create", name, "--customer", customer_id, *LINE),
            )
        ]
    )


def _create(world: World, customers: list[str], stores: Iterable[str]) -> list[str]:
    names = ("--first-name", "João", "--last-name", "Gonçalves")
    made = world.old.together([("customer", "create", name, *names, "--json") for name in stores])
    customers += [each["customer_id"] for each in made]
    return [each["customer_id"] for each in made]


def _start(world: World, stack: ExitStack, *commands: Sequence[str]) -> list[ForkedProcess]:
    return [stack.enter_context(world.new.running(*words)) for words in commands]


def _is_current(world: World, store: Store, customers: Collection[str]) -> bool:
    """Whether headquarters has everything of the store, and the store every customer of headquarters."""
    judged = world.logged().keys() | world.sold().keys()
    return {str(row["id"]) for row in store.unsettled()} <= judged and store.customers().keys() == set(customers)
