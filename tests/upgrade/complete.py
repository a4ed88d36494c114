"""When an upgraded company is complete: everything settled, numbered once, and the same everywhere."""

from collections.abc import Collection, Mapping
from typing import Final

from tests.upgrade.world import World, rows

SHOWN: Final = ("account_number", "version", "title", "first_name", "last_name", "known_as", "tax_number")


def is_complete(world: World) -> bool:
    """Whether every event is settled, every end of day posted, and every store as headquarters."""
    return all(
        not store.resync_requests()
        and not store.unsettled()
        and {row["status"] for row in store.transactions().values()} <= {"synchronized"}
        and set(store.ends_of_day()) <= {"posted"}
        and _shown(store.customers()) == _at_headquarters(world)
        for store in world.every_store
    )


def assert_nothing_lost(world: World, *, customers: Collection[str], numbers: Mapping[str, str]) -> None:
    """Exactly these customers exist, erased ones too, with one number each and no gap; `numbers` were given before."""
    at_headquarters = world.customers()
    assert at_headquarters.keys() == set(customers)
    given = {customer_id: row["account_number"] for customer_id, row in at_headquarters.items()}
    assert sorted(given.values()) == [f"C-{number:08}" for number in range(1, len(given) + 1)]
    assert {customer_id: given[customer_id] for customer_id in numbers} == numbers
    for store in world.every_store:
        assert _shown(store.customers()) == _at_headquarters(world), store.name


def assert_all_sold(world: World) -> None:
    """Each order is one sales order, without a gap, each sale in one posted statement; the stores know it."""
    recorded = {key: row for store in world.every_store for key, row in store.transactions().items()}
    assert world.sold().keys() == recorded.keys()
    orders = {key: row["sales_order"] for key, row in recorded.items() if row["kind"] == "order"}
    at_headquarters = rows(world.headquarters, "SELECT transaction_id, sales_order FROM sales_orders")
    assert {str(row["transaction_id"]): row["sales_order"] for row in at_headquarters} == orders
    assert sorted(orders.values()) == [f"SO-{number:08}" for number in range(1, len(orders) + 1)]
    posted = rows(
        world.headquarters,
        "SELECT transaction_id FROM statement_lines JOIN statements USING (statement_id) WHERE status = 'posted'",
    )
    sales = recorded.keys() - orders.keys()
    assert sorted(str(row["transaction_id"]) for row in posted) == sorted(sales)


def _at_headquarters(world: World) -> dict[str, list[object]]:
    return _shown({key: row for key, row in world.customers().items() if row["erased_at"] is None})


def _shown(customers: Mapping[str, Mapping[str, object]]) -> dict[str, list[object]]:
    return {customer_id: [row[name] for name in SHOWN] for customer_id, row in customers.items()}
