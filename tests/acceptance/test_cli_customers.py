"""What a clerk does at a till that is on its own."""

import sqlite3
from typing import Any

import pytest

from tests.acceptance.cli import Tenten

ADA = ("--first-name", "Ada", "--last-name", "Lovelace", "--email", "Ada@Example.com", "--phone", "713 555 0100")


def create(store: Tenten, *words: str) -> str:
    """The id of a new customer."""
    return str(store.ok("customer", "create", "houston", "--json", *words).json["customer_id"])


def test_created_customer_is_pending_and_printed_as_one_json_document(store: Tenten) -> None:
    """Without any line to headquarters a customer is created, and the answer has exactly the documented shape."""
    # given, when
    ended = store.ok("customer", "create", "houston", *ADA, "--city", "Houston", "--json")
    # then
    assert ended.json == {
        "customer_id": ended.json["customer_id"],
        "account_number": None,
        "status": "pending",
        "reasons": [],
    }
    assert ended.err == ""


def test_clerk_sees_pending_sync_in_place_of_a_number(store: Tenten) -> None:
    """Until the account number is there people read Pending sync."""
    ended = store.ok("customer", "create", "houston", "--first-name", "Ada")
    assert ended.out.startswith("Pending sync  Ada")


def test_refused_customer_comes_with_every_reason_and_is_not_written(store: Tenten) -> None:
    """Two rules broken are two reasons, exit code 1, and nobody is found afterwards."""
    # when
    ended = store.run("customer", "create", "houston", "--first-name", "Eve", "--email", "x", "--phone", "1", "--json")
    # then
    assert ended.code == 1
    assert ended.json["customer_id"] is None
    assert ended.json["account_number"] is None
    assert ended.json["status"] == "rejected"
    assert {reason["code"] for reason in ended.json["reasons"]} == {"invalid_email", "invalid_phone"}
    assert store.ok("customer", "search", "houston", "eve", "--json").json == []


def test_refusal_is_readable_without_json(store: Tenten) -> None:
    """The reasons go to stderr, one line each, without a traceback."""
    ended = store.run("customer", "create", "houston", "--email", "nonsense", "--first-name", "Eve")
    assert (ended.code, ended.out) == (1, "")
    assert "e-mail" in ended.err
    assert "Traceback" not in ended.err


def test_sync_without_a_line_leaves_the_customer_pending(store: Tenten) -> None:
    """When the time is up the customer simply is pending, and the exit code is 0."""
    ended = store.ok("customer", "create", "houston", "--first-name", "Ada", "--sync", "0.2", "--json")
    assert ended.json["status"] == "pending"


def test_same_customer_id_twice_makes_one_customer(store: Tenten) -> None:
    """A till that has to repeat its call gives an id of its own."""
    # given
    chosen = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
    # when
    first, second = (create(store, "--first-name", "Ada", "--customer-id", chosen) for _ in range(2))
    # then
    assert first == second == chosen
    assert len(store.ok("customer", "search", "houston", "ada", "--json").json) == 1


def test_edit_changes_only_what_is_said(store: Tenten) -> None:
    """An edit of one field leaves the others, and adds what is to be added."""
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
    assert sorted(one["value"] for one in edited["contacts"] if one["kind"] == "PHONE") == [
        "+17135550100",
        "+17135550199",
    ]
    assert sorted((one["purpose"], one["street"]) for one in edited["addresses"]) == [
        ("DELIVERY", "2 Side St"),
        ("HOME", "1 Main St"),
    ]
    assert edited["attributes"] == [{"name": "size", "text": "38"}]
    assert (edited["status"], edited["reasons"]) == ("pending", [])
    assert store.ok("customer", "show", "houston", ada, "--json").json == edited


def test_refused_edit_changes_nothing(store: Tenten) -> None:
    """An edit that breaks a rule names it, and the customer stays as it was."""
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
def test_edit_that_makes_no_sense_is_a_usage_error(store: Tenten, words: tuple[str, ...]) -> None:
    """An unknown field, a field without a value, an unknown choice, or nothing at all: exit code 2."""
    ended = store.run("customer", "edit", "houston", "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f", *words)
    assert (ended.code, ended.out) == (2, "")


@pytest.mark.parametrize("customer_id", ["0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f", "nobody"])
def test_unknown_customer_is_one_sentence(store: Tenten, customer_id: str) -> None:
    """Showing whom nobody knows fails with a sentence that names the id."""
    ended = store.run("customer", "show", "houston", customer_id)
    assert (ended.code, ended.out) == (1, "")
    assert customer_id in ended.err
    assert len(ended.err.splitlines()) == 1


def test_search_finds_by_name_phone_and_email(store: Tenten) -> None:
    """What a clerk knows of a customer finds it, and text on stdout is a table with it."""
    # given
    ada = create(store, *ADA)
    # when, then
    for text in ("love", "ada lovelace", "(713) 555-0100", "Ada@example.com"):
        assert [one["customer_id"] for one in store.ok("customer", "search", "houston", text, "--json").json] == [ada]
    assert "Ada Lovelace" in store.ok("customer", "search", "houston", "ada").out


def test_rejected_customer_is_shown_and_discarded_only_with_yes(store: Tenten) -> None:
    """What headquarters has rejected is shown with its reasons; giving it up takes --yes, and then nobody remains."""
    # given
    ada = create(store, *ADA)
    with sqlite3.connect(store.directory / "houston.db") as database:
        reasons = '[{"field": "last_name", "code": "too_strange", "text": "No."}]'
        database.execute("UPDATE outbox SET sent_at = created_at, outcome = 'rejected', reasons = ?", (reasons,))
    database.close()
    # when
    shown = store.ok("customer", "show", "houston", ada, "--json").json
    hesitating = store.run("customer", "discard", "houston", ada)
    discarded = store.ok("customer", "discard", "houston", ada, "--yes", "--json")
    # then
    assert (shown["status"], [one["code"] for one in shown["reasons"]]) == ("rejected", ["too_strange"])
    assert hesitating.code == 2
    assert discarded.json is None
    assert store.run("customer", "show", "houston", ada).code == 1


def lines_of(result: Any) -> list[int]:
    """The numbers of the refused lines."""
    return [refused["line"] for refused in result["refused"]]


def test_import_counts_what_became_of_each_line_and_repeats_harmlessly(store: Tenten) -> None:
    """Good lines are created, bad ones refused by number with exit code 1; the same file again creates nobody."""
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


def test_import_takes_columns_and_encoding_as_said(store: Tenten) -> None:
    """A file of another program is read with --map and --encoding, and every line taken means exit code 0."""
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


def test_import_of_no_file_or_no_such_field_fails_before_anything_is_written(store: Tenten) -> None:
    """A file that is not there is a usage error; a mapping to nothing known is refused with the fields there are."""
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
