"""Loyalty cards at a till without a connection to headquarters, and the `creation` mode of a channel."""

import sqlite3

from tests.acceptance.cli import Tenten

CARD = "LC-1001"


def create(store: Tenten, *words: str) -> str:
    """The id of a new customer."""
    return str(store.ok("customer", "create", "houston", "--json", "--first-name", "Ada", *words).json["customer_id"])


def give_number(store: Tenten, customer_id: str) -> None:
    """Write the account number, as settlement does."""
    with sqlite3.connect(store.directory / "houston.db") as database:
        database.execute("UPDATE customers SET account_number = 'C-00000001' WHERE customer_id = ?", [customer_id])
        database.execute("UPDATE outbox SET settled_at = created_at, outcome = 'synchronized', version = 1")
    database.close()


def test_pending_customer_gets_no_card(store: Tenten) -> None:
    """Exit code 1, with the reason as one JSON document or a readable line."""
    # given
    ada = create(store)
    # when
    ended = store.run("loyalty", "issue", "houston", ada, "lc-1001", "--json")
    as_text = store.run("loyalty", "issue", "houston", ada, CARD)
    # then
    assert ended.code == as_text.code == 1
    assert (ended.json["card_number"], ended.json["customer_id"], ended.json["status"]) == (CARD, ada, "refused")
    assert [(reason["field"], reason["code"]) for reason in ended.json["reasons"]] == [("loyalty_card", "pending")]
    assert "no account number yet" in as_text.err


def test_reserved_card_is_shown_and_issued_once_the_customer_has_a_number(store: Tenten) -> None:
    """A card reserved with --keep is shown with the reason; once the customer has a number, it is issued."""
    # given
    ada = create(store)
    kept = store.ok("loyalty", "issue", "houston", ada, CARD, "--keep", "--json").json
    assert (kept["status"], [reason["code"] for reason in kept["reasons"]]) == ("kept", ["pending"])
    assert store.ok("loyalty", "show", "houston", CARD, "--json").json == kept
    # when
    give_number(store, ada)
    # then
    issued = {"card_number": CARD, "customer_id": ada, "status": "issued", "reasons": []}
    assert store.ok("loyalty", "issue", "houston", ada, CARD, "--json").json == issued
    assert store.ok("loyalty", "show", "houston", "lc-1001").out.startswith(f"{CARD}  issued  {ada}")
    found = store.ok("customer", "search", "houston", CARD, "--json").json
    assert [customer["customer_id"] for customer in found] == [ada]


def test_unknown_card_is_one_sentence(store: Tenten) -> None:
    """Exit code 1, without a traceback."""
    ended = store.run("loyalty", "show", "houston", CARD, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "has this card" in ended.err
    assert "Traceback" not in ended.err


def test_channel_in_sync_mode_without_headquarters_leaves_the_customer_pending(store: Tenten) -> None:
    """Without --sync the channel's `creation` applies: the command waits, then the customer is pending."""
    # given
    toml = store.directory / "tenten.toml"
    settings = toml.read_text(encoding="utf-8")
    toml.write_text(settings.replace("[channels.houston]", '[channels.houston]\ncreation = "sync"\nsync_seconds = 0.2'))
    # when
    ended = store.ok("customer", "create", "houston", "--first-name", "Ada", "--json")
    # then
    assert ended.json["status"] == "pending"
