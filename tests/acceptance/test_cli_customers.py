"""Customers at a till without a connection to headquarters."""

import sqlite3
from typing import Any

import pytest

from tenten.rules.reference import reference
from tests.acceptance.cli import Tenten

ADA = ("--first-name", "Ada", "--last-name", "Lovelace", "--email", "Ada@Example.com", "--phone", "713 555 0100")


def create(store: Tenten, *words: str) -> str:
    """The id of a new customer."""
    return str(store.ok("customer", "create", "houston", "--json", *words).json["customer_id"])


def test_created_customer_is_pending_and_printed_as_one_json_document(store: Tenten) -> None:
    """A customer is created without headquarters; the output has exactly the documented fields."""
    # given, when
    ended = store.ok("customer", "create", "houston", *ADA, "--city", "Houston", "--json")
    # then
    assert ended.json == {
        "customer_id": ended.json["customer_id"],
        "account_number": None,
        "reference": reference(ended.json["customer_id"]),
        "status": "pending",
        "reasons": [],
    }
    assert ended.err == ""


def test_clerk_sees_pending_sync_in_place_of_a_number(store: Tenten) -> None:
    """Without an account number the text output shows `Pending sync`."""
    ended = store.ok("customer", "create", "houston", "--first-name", "Ada")
    assert ended.out.startswith("Pending sync  Ada")


def test_rejected_customer_is_not_written_and_every_reason_is_printed(store: Tenten) -> None:
    """Two broken rules are two reasons; the exit code is 1, and no customer is written."""
    # when
    ended = store.run("customer", "create", "houston", "--first-name", "Eve", "--email", "x", "--phone", "1", "--json")
    # then
    assert ended.code == 1
    assert ended.json["customer_id"] is None
    assert ended.json["account_number"] is None
    assert ended.json["status"] == "rejected"
    assert {reason["code"] for reason in ended.json["reasons"]} == {"invalid_email", "invalid_phone"}
    assert store.ok("customer", "search", "houston", "eve", "--json").json == []


def test_rejection_is_readable_without_json(store: Tenten) -> None:
    """The reasons are printed to stderr, one line each, without a traceback."""
    ended = store.run("customer", "create", "houston", "--email", "nonsense", "--first-name", "Eve")
    assert (ended.code, ended.out) == (1, "")
    assert "e-mail" in ended.err
    assert "Traceback" not in ended.err


def test_sync_create_without_headquarters_leaves_the_customer_pending(store: Tenten) -> None:
    """After the timeout the customer is pending, and the exit code is 0."""
    ended = store.ok("customer", "create", "houston", "--first-name", "Ada", "--sync", "0.2", "--json")
    assert ended.json["status"] == "pending"


def test_create_with_a_customer_id_is_idempotent(store: Tenten) -> None:
    """A till that passes the same `--customer-id` again creates no second customer."""
    # given
    chosen = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
    # when
    first, second = (create(store, "--first-name", "Ada", "--customer-id", chosen) for _ in range(2))
    # then
    assert first == second == chosen
    assert len(store.ok("customer", "search", "houston", "ada", "--json").json) == 1


def test_edit_changes_only_the_given_fields(store: Tenten) -> None:
    """An edit leaves other fields unchanged; `--add-phone` and `--add-address` add to the lists."""
    # given
    ada = create(store, *ADA, "--street", "1 Main St", "--city", "Houston")
    # when
    edited = store.ok(
        *("customer", "edit", "houston", ada, "--json", "--set", "last_name=King", "--set", "attributes/size=38"),
        *("--add-phone", "713 555 0199", "--add-address", "purpose=DELIVERY; street=2 Side St; city=Austin"),
    ).json
    # then
    assert (edited["first_name"], edited["last_name"]) == ("Ada", "King")
    assert (edited["email"], edited["phone"]) == ("Ada@example.com", "+17135550100")
    assert sorted(contact["value"] for contact in edited["contacts"] if contact["kind"] == "PHONE") == [
        "+17135550100",
        "+17135550199",
    ]
    assert sorted((address["purpose"], address["street"]) for address in edited["addresses"]) == [
        ("DELIVERY", "2 Side St"),
        ("HOME", "1 Main St"),
    ]
    assert edited["attributes"] == [{"name": "size", "text": "38"}]
    assert (edited["status"], edited["reasons"]) == ("pending", [])
    assert store.ok("customer", "show", "houston", ada, "--json").json == edited


def test_rejected_edit_changes_nothing(store: Tenten) -> None:
    """An edit that breaks a rule is rejected with its reason, and the customer is unchanged."""
    # given
    ada = create(store, *ADA)
    # when
    ended = store.run("customer", "edit", "houston", ada, "--set", "email=nonsense", "--json")
    # then
    assert ended.code == 1
    assert (ended.json["customer_id"], ended.json["status"]) == (ada, "rejected")
    assert [reason["code"] for reason in ended.json["reasons"]] == ["invalid_email"]
    assert store.ok("customer", "show", "houston", ada, "--json").json["email"] == "Ada@example.com"


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "shoe_size=38"),
        ("--set", "last_name"),
        ("--set", "customer_type=ROBOT"),
        ("--add-address", "planet=Mars"),
        (),
    ],
)
def test_invalid_edit_is_a_usage_error(store: Tenten, words: tuple[str, ...]) -> None:
    """An unknown field, a field without a value, an invalid choice, or no field: exit code 2."""
    ended = store.run("customer", "edit", "houston", "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f", *words)
    assert (ended.code, ended.out) == (2, "")


@pytest.mark.parametrize("customer_id", ["0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f", "nobody"])
def test_unknown_customer_is_one_sentence(store: Tenten, customer_id: str) -> None:
    """Showing an unknown customer fails with one sentence that names the id."""
    ended = store.run("customer", "show", "houston", customer_id)
    assert (ended.code, ended.out) == (1, "")
    assert customer_id in ended.err
    assert len(ended.err.splitlines()) == 1


def test_search_finds_by_name_phone_and_email(store: Tenten) -> None:
    """Parts of names, phone numbers and e-mail addresses find the customer; the text output is a table."""
    # given
    ada = create(store, *ADA)
    # when, then
    for text in ("love", "ada lovelace", "(713) 555-0100", "Ada@example.com"):
        found = store.ok("customer", "search", "houston", text, "--json").json
        assert [customer["customer_id"] for customer in found] == [ada]
    assert "Ada Lovelace" in store.ok("customer", "search", "houston", "ada").out


def test_rejected_customer_is_shown_and_discarded_only_with_yes(store: Tenten) -> None:
    """A customer that headquarters rejected is shown with the reasons; `--yes` discards it."""
    # given
    ada = create(store, *ADA)
    with sqlite3.connect(store.directory / "houston.db") as database:
        reasons = '[{"field": "last_name", "code": "too_strange", "text": "No."}]'
        database.execute("UPDATE outbox SET outcome = 'rejected', reasons = ?", (reasons,))
    database.close()
    # when
    shown = store.ok("customer", "show", "houston", ada, "--json").json
    without_yes = store.run("customer", "discard", "houston", ada)
    discarded = store.ok("customer", "discard", "houston", ada, "--yes", "--json")
    # then
    assert (shown["status"], [reason["code"] for reason in shown["reasons"]]) == ("rejected", ["too_strange"])
    assert without_yes.code == 2
    assert discarded.json is None
    assert store.run("customer", "show", "houston", ada).code == 1


def test_held_customer_is_shown_with_what_headquarters_waits_for(store: Tenten) -> None:
    """The status is `held`; the text says that the store need not do anything."""
    # given
    ada = create(store, *ADA)
    with sqlite3.connect(store.directory / "houston.db") as database:
        reasons = '[{"field": "channel_id", "code": "unknown_channel", "text": "Headquarters has no channel yet."}]'
        database.execute("UPDATE outbox SET outcome = 'held', reasons = ?", (reasons,))
    database.close()
    # when
    shown = store.ok("customer", "show", "houston", ada, "--json").json
    text = store.ok("customer", "show", "houston", ada)
    # then
    assert (shown["status"], [reason["code"] for reason in shown["reasons"]]) == ("held", ["unknown_channel"])
    assert "Waiting for headquarters" in text.err
    assert "Headquarters has no channel yet." in text.err


def lines_of(result: Any) -> list[int]:
    """The numbers of the rejected lines."""
    return [refused["line"] for refused in result["refused"]]


def test_import_counts_lines_by_outcome_and_is_idempotent(store: Tenten) -> None:
    """Valid lines are created; invalid lines are listed by number, exit code 1. A second import creates no customer."""
    # given
    file = store.directory / "customers.csv"
    file.write_text(
        "CustomerKey,FirstName,LastName,EmailAddress\n1,Ada,King,ada@example.com\n2,Bob,Bar,nonsense\n3,Cy,Coe,\n"
    )
    # when
    first = store.run("customer", "import", "houston", "customers.csv", "--key", "CustomerKey", "--json")
    second = store.run("customer", "import", "houston", "customers.csv", "--key", "CustomerKey", "--json")
    # then
    assert (first.code, second.code) == (1, 1)
    assert {name: first.json[name] for name in ("read", "created", "repeated")} == {
        "read": 3,
        "created": 2,
        "repeated": 0,
    }
    assert {name: second.json[name] for name in ("read", "created", "repeated")} == {
        "read": 3,
        "created": 0,
        "repeated": 2,
    }
    assert lines_of(first.json) == lines_of(second.json) == [3]
    assert first.json["refused"][0]["reasons"][0]["code"] == "invalid_email"


def test_import_maps_columns_and_decodes(store: Tenten) -> None:
    """A file of another program is read with --map and --encoding; exit code 0 if every line is accepted."""
    # given
    (store.directory / "kunden.csv").write_bytes("Rufname;Zuname\nJürgen;Groß\n".encode("cp1252"))
    # when
    ended = store.run(
        *("customer", "import", "houston", "kunden.csv", "--encoding", "cp1252"),
        *("--map", "Rufname=first_name", "--map", "Zuname=last_name"),
    )
    # then
    assert ended.code == 0, ended
    assert "1 created" in ended.out
    assert store.ok("customer", "search", "houston", "groß", "--json").json[0]["first_name"] == "Jürgen"


def test_import_of_a_missing_file_or_to_an_unknown_field_writes_nothing(store: Tenten) -> None:
    """A missing file is a usage error; a mapping to an unknown field is refused with the list of fields."""
    # given
    (store.directory / "customers.csv").write_text("Name\nAda\n")
    # when
    missing = store.run("customer", "import", "houston", "nowhere.csv")
    unknown = store.run("customer", "import", "houston", "customers.csv", "--map", "Name=nickname")
    # then
    assert missing.code == 2
    assert unknown.code == 1
    assert "first_name" in unknown.err


def test_database_that_was_never_upgraded_is_refused_with_advice(store: Tenten) -> None:
    """Exit code 1 and the command to run, without a traceback."""
    (store.directory / "houston.db").unlink()
    ended = store.run("customer", "create", "houston", "--first-name", "Ada")
    assert ended.code == 1
    assert "tenten database upgrade channel" in ended.err
    assert "Traceback" not in ended.err
