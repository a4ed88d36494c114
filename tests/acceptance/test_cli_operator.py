"""`--operator` and TENTEN_OPERATOR: the person who makes a change, from the command line to the event."""

import sqlite3
from pathlib import Path

import pytest

from tenten.avro.wire import WriterSchemas, contract
from tests.acceptance.cli import Tenten

SALE = ("sale", "create", "houston", "--line", "TEA:2:4.50", "--json")


def operators(store: Tenten) -> list[str | None]:
    """The operators of the events in the outbox, oldest first."""
    with sqlite3.connect(store.directory / "houston.db") as database:
        rows = database.execute("SELECT aggregatetype, payload FROM outbox ORDER BY sequence").fetchall()
    database.close()
    contracts = {"customer": contract("CustomerEvent"), "retail_transaction": contract("RetailTransaction")}
    return [WriterSchemas().decode(payload, contracts[kind])["operator"] for kind, payload in rows]


def test_every_command_that_records_an_event_takes_the_operator(store: Tenten) -> None:
    """The event has it, and JSON shows it where the transaction is shown."""
    # given
    (store.directory / "customers.csv").write_text("CustomerKey,LastName\n1,Hopper\n")
    ada = store.ok("customer", "create", "houston", "--first-name", "Ada", "--operator", "c1", "--json").json
    # when
    store.ok("customer", "edit", "houston", ada["customer_id"], "--set", "title=Dr.", "--operator", "c2")
    store.ok("customer", "import", "houston", str(Path("customers.csv")), "--operator", "c3")
    order = store.ok("order", "create", "houston", "--line", "TEA:2:4.50", "--operator", "c4", "--json").json
    sale = store.ok(*SALE, "--operator", "c5").json
    [end] = store.ok("day", "close", "houston", "--operator", "c6", "--json").json
    with sqlite3.connect(store.directory / "houston.db") as database:
        database.execute("UPDATE customers SET account_number = 'C-1'")
    database.close()
    store.ok("loyalty", "issue", "houston", ada["customer_id"], "LC-1001", "--operator", "c7")
    # then
    assert operators(store) == ["c1", "c2", "c3", "c4", "c5", "c6", "c7"]
    assert [order["operator"], sale["operator"], end["operator"]] == ["c4", "c5", "c6"]
    assert "operator       c4\n" in store.ok("order", "show", "houston", order["transaction_id"]).out


def test_option_wins_over_the_environment(store: Tenten) -> None:
    """An empty variable counts as unset."""
    shown = [
        store.run(*SALE, TENTEN_OPERATOR="by environment").json["operator"],
        store.run(*SALE, "--operator", "by option", TENTEN_OPERATOR="by environment").json["operator"],
        store.run(*SALE, TENTEN_OPERATOR="").json["operator"],
    ]
    assert shown == ["by environment", "by option", None]


@pytest.mark.parametrize(
    "words",
    [
        ("customer", "create", "houston", "--first-name", "Ada"),
        ("order", "create", "houston", "--line", "TEA:2:4.50"),
        ("day", "close", "houston"),
        ("loyalty", "issue", "houston", "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f", "LC-1001"),
    ],
)
def test_operator_that_is_too_long_is_refused(store: Tenten, words: tuple[str, ...]) -> None:
    """Exit code 1 with the reason, and nothing is written."""
    ended = store.run(*words, "--operator", "x" * 65)
    assert (ended.code, ended.out) == (1, "")
    assert "operator: At most 64 characters are allowed." in ended.err
    assert operators(store) == []
