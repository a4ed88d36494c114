"""What a clerk does with loyalty cards at a till that is on its own, and what a channel's mode of creation means."""

import sqlite3

from tests.acceptance.cli import Tenten

CARD = "LC-1001"


def create(store: Tenten, *words: str) -> str:
    """The id of a new customer."""
    return str(store.ok("customer", "create", "houston", "--json", "--first-name", "Ada", *words).json["customer_id"])


def give_number(store: Tenten, customer_id: str) -> None:
    """What settlement does when headquarters has answered."""
    with sqlite3.connect(store.directory / "houston.db") as database:
        database.execute("UPDATE customers SET account_number = 'C-00000001' WHERE customer_id = ?", [customer_id])
        database.execute("UPDATE outbox SET settled_at = created_at, outcome = 'synchronized', version = 1")
    database.close()


def test_pending_customer_gets_no_card(store: Tenten) -> None:
    """Exit code 1, and the reason as one JSON document or a readable line."""
    # given
    ada = create(store)
    # when
    ended = store.run("loyalty", "issue", "houston", ada, "lc-1001", "--json")
    told = store.run("loyalty", "issue", "houston", ada, CARD)
    # then
    assert ended.code == told.code == 1
    assert (ended.json["card_number"], ended.json["customer_id"], ended.json["status"]) == (CARD, ada, "refused")
    assert [(reason["field"], reason["code"]) for reason in ended.json["reasons"]] == [("loyalty_card", "pending")]
    assert "no account number yet" in told.err


def test_kept_card_is_shown_and_issued_when_the_number_is_there(store: Tenten) -> None:
    """Exit code 0 for a kept card, with why it is kept; asked again with the number there, it is issued."""
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
    assert [one["customer_id"] for one in store.ok("customer", "search", "houston", CARD, "--json").json] == [ada]


def test_card_that_nobody_has_is_one_sentence(store: Tenten) -> None:
    """Exit code 1, no traceback."""
    ended = store.run("loyalty", "show", "houston", CARD, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "has this card" in ended.err
    assert "Traceback" not in ended.err


def test_channel_in_sync_mode_leaves_the_customer_pending_without_a_line(store: Tenten) -> None:
    """Without --sync the channel's own mode counts: it waits, and then the customer simply is pending."""
    # given
    toml = store.directory / "tenten.toml"
    settings = toml.read_text(encoding="utf-8")
    toml.write_text(settings.replace("[channels.houston]", '[channels.houston]\ncreation = "sync"\nsync_seconds = 0.2'))
    # when
    ended = store.ok("customer", "create", "houston", "--first-name", "Ada", "--json")
    # then
    assert ended.json["status"] == "pending"
