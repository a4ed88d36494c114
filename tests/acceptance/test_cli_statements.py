"""Transactions and statements at headquarters, as commands show them."""

from datetime import timedelta

import psycopg

from tests.acceptance.cli import Tenten
from tests.statement_rows import DAY, insert_line, insert_listed, insert_statement, insert_transaction

MISSING = {"field": "7", "code": "missing", "text": "Listed by the store but not received by headquarters."}


def test_statements_are_listed_newest_first_and_filtered(ready_company: Tenten, headquarters_url: str) -> None:
    """All statements by default; --channel, --status and --limit restrict them."""
    company = ready_company
    # given
    insert_statement(headquarters_url, "posted", number=1, ago=timedelta(hours=3))
    blocked = insert_statement(headquarters_url, "blocked", number=2, ago=timedelta(hours=1), reasons=[MISSING])
    insert_statement(headquarters_url, "posted", channel="seattle", ago=timedelta(hours=2))
    late = insert_transaction(headquarters_url, "waiting")
    insert_listed(headquarters_url, blocked, late)

    def listed(*words: str) -> list[tuple[str, int, str]]:
        found = company.ok("statement", "list", "--json", *words).json
        return [(statement["channel_id"], statement["number"], statement["status"]) for statement in found]

    # when
    every = listed()
    [first] = company.ok("statement", "list", "--limit", "1", "--json").json
    shown = company.ok("statement", "list", "--status", "blocked").out
    wrong = company.run("statement", "list", "--status", "lost")
    # then
    assert every == [("houston", 2, "blocked"), ("seattle", 1, "posted"), ("houston", 1, "posted")]
    assert listed("--channel", "houston") == [every[0], every[2]]
    assert listed("--channel", "houston", "--status", "posted") == [every[2]]
    assert (first["number"], first["business_date"], first["listed_count"]) == (2, DAY, 1)
    assert first["reasons"] == [MISSING]
    assert "missing" in shown
    assert "seattle" not in shown
    assert wrong.code == 2
    assert "waiting, blocked, rejected, posted" in wrong.err


def test_list_of_statements_may_be_empty(ready_company: Tenten) -> None:
    """Before the first end of day the list is empty; showing a statement fails with exit code 1 and a sentence."""
    assert ready_company.ok("statement", "list", "--json").json == []
    assert ready_company.ok("statement", "list").out == ""
    missing = ready_company.run("statement", "show", "houston", DAY)
    assert (missing.code, missing.out) == (1, "")
    assert f"houston has no statement of {DAY}" in missing.err


def test_statement_is_shown_with_everything_that_it_lists(ready_company: Tenten, headquarters_url: str) -> None:
    """Status, totals and each transaction: posted, missing, or an earlier statement's. Default: the newest."""
    company = ready_company
    # given
    amounts = [{"currency": "USD", "payment_method": "cash", "amount": "12.5"}]
    totals = {"transactions": 1, "amounts": amounts}
    sold = insert_transaction(headquarters_url, "synchronized", account_number="C-00000001")
    first = insert_statement(headquarters_url, "posted", number=1, totals=totals, operator="Zoë")
    insert_listed(headquarters_url, first, sold)
    insert_line(headquarters_url, first, sold, "C-00000001", "12.50")
    second = insert_statement(headquarters_url, "blocked", number=2, reasons=[MISSING])
    insert_listed(headquarters_url, second, sold, posted_by_this_statement=False)
    insert_listed(headquarters_url, second, first)
    # when
    posted = company.ok("statement", "show", "houston", DAY, "--number", "1", "--json").json
    newest = company.ok("statement", "show", "houston", DAY, "--json").json
    text = company.ok("statement", "show", "houston", DAY, "--number", "1").out
    blocked_text = company.ok("statement", "show", "houston", DAY).out
    # then
    assert {name: posted[name] for name in ("channel_id", "business_date", "number", "kind", "status")} == {
        "channel_id": "houston",
        "business_date": DAY,
        "number": 1,
        "kind": "end_of_day",
        "status": "posted",
    }
    assert (posted["statement_id"], posted["reasons"], posted["totals"]) == (str(first), [], totals)
    assert posted["control_totals"] == amounts
    assert (posted["operator"], newest["operator"]) == ("Zoë", None)
    assert posted["listed"] == [
        {
            "transaction_id": str(sold),
            "owned": True,
            "status": "synchronized",
            "account_number": "C-00000001",
            "currency": "USD",
            "total": "12.5",
            "posted": True,
        }
    ]
    assert (newest["number"], newest["status"], newest["reasons"]) == (2, "blocked", [MISSING])
    listed = {sale["transaction_id"]: (sale["status"], sale["owned"], sale["posted"]) for sale in newest["listed"]}
    assert listed == {str(sold): ("synchronized", False, False), str(first): (None, True, False)}
    assert "12.50 USD cash" in text
    assert str(sold) in text
    assert MISSING["text"] in blocked_text


def test_transactions_are_listed_and_shown(ready_company: Tenten, headquarters_url: str) -> None:
    """Newest first, filtered by channel or status; an unknown id is exit code 1 with a sentence."""
    company = ready_company
    # given
    old = insert_transaction(headquarters_url, "blocked", waited=timedelta(hours=1), operator="Zoë")
    new = insert_transaction(headquarters_url, "synchronized", channel="seattle", account_number="C-00000007")
    # when
    listed = company.ok("transactions", "list", "--json").json
    blocked = company.ok("transactions", "list", "--status", "blocked", "--json").json
    shown = company.ok("transactions", "show", str(new), "--json").json
    text = company.ok("transactions", "show", str(old)).out
    missing = company.run("transactions", "show", "nothing")
    # then
    assert [transaction["transaction_id"] for transaction in listed] == [str(new), str(old)]
    assert [transaction["transaction_id"] for transaction in blocked] == [str(old)]
    assert company.ok("transactions", "list", "--channel", "dallas", "--json").json == []
    assert (shown["status"], shown["account_number"], shown["repeats"]) == ("synchronized", "C-00000007", 0)
    assert [transaction["operator"] for transaction in (*listed, shown)] == [None, "Zoë", None]
    assert "blocked" in text
    assert "Zoë" in text
    assert (missing.code, missing.out) == (1, "")
    assert company.run("transactions", "list", "--status", "lost").code == 2


def test_invalid_date_or_number_of_a_statement_is_a_usage_error(ready_company: Tenten) -> None:
    """An invalid date is refused before it reaches the database."""
    for words in (("houston", "yesterday"), ("houston", DAY, "--number", "0"), ("houston",)):
        ended = ready_company.run("statement", "show", *words)
        assert (ended.code, ended.out) == (2, "")


def test_transaction_that_waits_for_too_long_is_unhealthy(ready_company: Tenten, headquarters_url: str) -> None:
    """Status and doctor exit with 3 and advice; within the limit both are healthy."""
    company = ready_company
    # given
    for status in ("waiting", "blocked", "blocked", "rejected", "synchronized"):
        insert_transaction(headquarters_url, status, channel="seattle", waited=timedelta(hours=2))
    insert_transaction(headquarters_url, "waiting")
    insert_statement(headquarters_url, "waiting")
    # when
    unhealthy = company.run("status", "--json")
    as_text = company.run("status")
    advised = company.run("doctor")
    lags = company.ok("lag", "--json").json
    file = company.directory / "tenten.toml"
    file.write_text(file.read_text().replace("[headquarters]", "[headquarters]\nwaiting_seconds_max = 100000"))
    healthy = company.run("status", "--json").json["headquarters"]["transactions"]
    # then
    assert unhealthy.code == as_text.code == advised.code == 3
    found = unhealthy.json["headquarters"]["transactions"]
    names = ("waiting", "blocked", "rejected", "open_statements", "lag")
    assert {name: found[name] for name in names} == dict(zip(names, (2, 2, 1, 1, 0), strict=True))
    assert found["oldest_waiting_seconds"] >= 7200
    assert "a transaction of seattle" in found["problem"]
    assert "waiting_seconds_max" in as_text.out
    assert "FAIL transactions: a transaction of seattle" in advised.out
    assert healthy["problem"] is None
    assert "ok   transactions: 2 wait for their customers" in company.run("doctor").out
    groups = {(lag["group"].rpartition("-")[2], lag["topic"].partition("-")[2]) for lag in lags}
    assert ("transactions", "retail-transactions") in groups


def test_doctor_fails_when_sales_order_numbers_run_out(ready_company: Tenten, headquarters_url: str) -> None:
    """The check of a sequence fails before an order has no number."""
    # given
    assert "sales orders, numbers are left in each" in ready_company.run("doctor").out
    with psycopg.connect(headquarters_url) as connection:
        connection.execute("UPDATE sales_order_sequences SET next = 99999999 WHERE legal_entity = 'usrt'")
    # when
    ended = ready_company.run("doctor")
    # then
    assert ended.code == 3
    assert "FAIL number sequences: usrt has 1 sales order numbers left" in ended.out
