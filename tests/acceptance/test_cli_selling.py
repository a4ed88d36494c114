"""Orders, cash-and-carry sales and end of day at a till without a connection to headquarters."""

from typing import Any

from tenten.rules.reference import reference
from tests.acceptance.cli import Tenten


def customer(store: Tenten) -> dict[str, Any]:
    """A new customer with one address."""
    words = ("--first-name", "Ada", "--last-name", "Lovelace", "--street", "1 Main Street", "--city", "Houston")
    created = store.ok("customer", "create", "houston", *words, "--json").json
    shown: dict[str, Any] = store.ok("customer", "show", "houston", created["customer_id"], "--json").json
    return shown


def test_an_order_is_recorded_listed_and_shown(store: Tenten) -> None:
    """One JSON document with the documented fields; money with the digits of its currency."""
    # given
    ada = customer(store)
    # when
    created = store.ok(
        *("order", "create", "houston", "--customer", ada["customer_id"], "--deliver-to", ada["primary_address"]),
        *("--line", "TEA:2:4.50", "--line", "TIN:large:1:0.335", "--charge", "FREIGHT:5", "--tax", "TX:0.74"),
        *("--payment", "CARD:10", "--delivery-mode", "courier", "--date", "2026-03-31", "--json"),
        *("--attribute", "gift=yes"),
    ).json
    # then
    expected = {
        "transaction_id": created["transaction_id"],
        "reference": reference(created["transaction_id"]),
        "status": "pending",
        "sales_order": None,
        "reasons": [],
        "kind": "order",
        "business_date": "2026-03-31",
        "customer_id": ada["customer_id"],
        "customer": {"account_number": None, "display_name": "Ada Lovelace"},
        "currency": "USD",
        "total": "15.08",
        "lines": [
            {"sku": "TEA", "quantity": "2", "price": "4.50", "amount": "9.00"},
            {"sku": "TIN:large", "quantity": "1", "price": "0.335", "amount": "0.34"},
        ],
        "charges": [{"code": "FREIGHT", "amount": "5.00"}],
        "taxes": [{"code": "TX", "amount": "0.74"}],
        "payments": [{"method": "CARD", "amount": "10.00"}],
        "delivery_mode": "courier",
        "delivery_address": {
            "address_id": ada["primary_address"],
            "name": "",
            "street": "1 Main Street",
            "city": "Houston",
            "county": "",
            "state": "",
            "postal_code": "",
            "country": "US",
        },
        "attributes": [{"name": "gift", "text": "yes"}],
        "end_of_day_id": None,
        "operator": None,
        "occurred_at": created["occurred_at"],
        "updated_at": created["updated_at"],
    }
    assert created == expected
    assert store.ok("order", "show", "houston", created["transaction_id"], "--json").json == expected
    assert store.ok("order", "list", "houston", "--json").json == [expected]
    assert store.ok("order", "resend", "houston", created["transaction_id"], "--json").json == expected
    assert store.ok("sale", "list", "houston", "--json").json == []


def test_texts_have_number_and_name_of_the_customer_and_no_guid(store: Tenten) -> None:
    """A pending customer is shown as `Pending sync`."""
    # given
    ada = customer(store)
    # when
    created = store.ok("order", "create", "houston", "--customer", ada["customer_id"], "--line", "TEA:2:4.50").out
    shown = store.ok("order", "show", "houston", created.split()[-1]).out
    listed = store.ok("order", "list", "houston").out
    # then
    for out in (created, shown, listed):
        assert "Pending sync Ada Lovelace" in out
        assert "9.00 USD" in out
        assert ada["customer_id"] not in out


def test_sales_and_returns_are_closed_with_their_day(store: Tenten) -> None:
    """Without payments a sale is paid in cash; closing a day again lists the sales recorded since."""
    # given
    date = ("--date", "2026-03-31")
    store.ok("sale", "create", "houston", "--line", "TEA:2:4.50", "--payment", "CARD:5", "--payment", "CASH:4", *date)
    returned = store.ok("sale", "create", "houston", "--line", "CUP:-1:12", *date, "--json").json
    # when
    [end] = store.ok("day", "close", "houston", *date, "--json").json
    # then
    assert (returned["kind"], returned["total"]) == ("cash_and_carry", "-12.00")
    assert returned["payments"] == [{"method": "CASH", "amount": "-12.00"}]
    assert end == {
        "end_of_day_id": end["end_of_day_id"],
        "business_date": "2026-03-31",
        "status": "pending",
        "transactions": 2,
        "control_totals": [
            {"currency": "USD", "payment_method": "CARD", "amount": "5.00"},
            {"currency": "USD", "payment_method": "CASH", "amount": "-8.00"},
        ],
        "reasons": [],
        "operator": None,
        "closed_at": end["closed_at"],
        "updated_at": end["updated_at"],
    }
    shown = store.ok("sale", "show", "houston", returned["transaction_id"], "--json").json
    assert shown["end_of_day_id"] == end["end_of_day_id"]
    assert store.ok("day", "close", "houston", *date, "--json").json == [end]
    # when
    store.ok("sale", "create", "houston", "--line", "TEA:1:4.50", *date)
    [late] = store.ok("day", "close", "houston", *date, "--json").json
    # then
    assert late["transactions"] == 1
    assert store.ok("day", "show", "houston", *date, "--json").json == [late, end]
    assert store.ok("day", "list", "houston", "--json").json == [late, end]
    assert store.ok("day", "resend", "houston", end["end_of_day_id"], "--json").json == [end]
    assert "CARD 5.00 USD" in store.ok("day", "show", "houston", *date).out


def test_repeated_transaction_id_records_nothing(store: Tenten) -> None:
    """A call without an answer can be repeated."""
    # given
    words = ("sale", "create", "houston", "--line", "TEA:2:4.50", "--json", "--transaction-id")
    own = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
    # then
    assert store.ok(*words, own).json == store.ok(*words, own).json
    assert len(store.ok("sale", "list", "houston", "--json").json) == 1


def test_order_that_breaks_rules_is_refused_with_every_reason(store: Tenten) -> None:
    """Exit code 1, and nothing is recorded; without --json the reasons are lines on stderr."""
    # given
    words = ("order", "create", "houston", "--line", "TEA:-2:4.50", "--currency", "US")
    # when
    refused, as_text = store.run(*words, "--json"), store.run(*words)
    # then
    assert (refused.code, as_text.code, as_text.out) == (1, 1, "")
    assert {name: refused.json[name] for name in ("transaction_id", "status", "sales_order")} == {
        "transaction_id": None,
        "status": "rejected",
        "sales_order": None,
    }
    assert {reason["field"] for reason in refused.json["reasons"]} == {"currency", "lines[0].quantity"}
    assert "lines[0].quantity" in as_text.err
    assert "Traceback" not in as_text.err
    assert store.ok("order", "list", "houston", "--json").json == []


def test_invalid_option_value_is_a_usage_error(store: Tenten) -> None:
    """Exit code 2; the message shows the expected form."""
    for words in (
        ("sale", "create", "houston", "--line", "TEA:2"),
        ("sale", "create", "houston", "--line", "TEA:two:4.50"),
        ("sale", "create", "houston", "--line", "TEA:2:NaN"),
        ("sale", "create", "houston", "--line", "TEA:2:4.50", "--payment", "CARD"),
        ("sale", "create", "houston"),
        ("day", "close", "houston", "--date", "31.3.2026"),
    ):
        ended = store.run(*words)
        assert (ended.code, ended.out) == (2, ""), words
        assert "Traceback" not in ended.err
