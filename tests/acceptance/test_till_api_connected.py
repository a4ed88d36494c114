"""The API for tills with headquarters: numbers arrive, and events are streamed and survive restarts."""

import json
import re
import subprocess
import time
from contextlib import ExitStack
from uuid import uuid4

from tests.acceptance.cli import ROOT, SECONDS_MAX, Tenten, end
from tests.acceptance.served import serving
from tests.acceptance.test_till_api import ADA, LINE
from tests.acceptance.till import serving_till
from tests.conftest import NewDatabase
from tests.waiting import DEADLINE_SECONDS


def test_numbers_and_orders_reach_the_till_and_no_event_is_lost(company: Tenten, new_database: NewDatabase) -> None:
    """On both databases: a create waits for its number, a sales order and an end of day are streamed, a stopped store
    ends its streams, and a client that comes back after a restart gets what it has missed.
    """
    # given
    toml = company.directory / "tenten.toml"
    toml.write_text(toml.read_text().replace("sqlite:///seattle.db", new_database("channel")))
    company.ok("topics", "apply")
    company.ok("database", "upgrade", "all")
    with ExitStack() as stack:
        headquarters = stack.enter_context(company.running("headquarters", "run"))
        stack.enter_context(serving(company, "transactions", "run"))
        last = {channel: use_and_stop(company, channel) for channel in ("houston", "seattle")}
        # when
        end(headquarters)
        missed = {channel: create_while_nobody_listens(company, channel) for channel in last}
        stack.enter_context(company.running("headquarters", "run"))
        # then
        for channel, last_id in last.items():
            with serving_till(company, channel) as till:
                numbered = till.stream(last_id).until("numbered")
                assert numbered.data["customer_id"] == missed[channel]
                assert int(numbered.id) > int(last_id)
                shown = till.get(f"/v1/customers/{missed[channel]}")
                assert shown["account_number"] == numbered.data["account_number"]
                assert till.stream(str(int(numbered.id) * 2)).next().type == "reset"


def test_examples_of_a_till_create_sell_and_close(ready_company: Tenten) -> None:
    """The till in shell, in JavaScript and in Java, each as its first comment says: a number, a sales order, a day."""
    # given
    examples = ROOT / "examples" / "till"
    with (
        ready_company.running("headquarters", "run"),
        ready_company.running("transactions", "run"),
        serving_till(ready_company) as till,
    ):
        for program, file in (("sh", "till.sh"), ("node", "till.mjs"), ("java", "Till.java")):
            # when
            token = ready_company.directory / "api.token"
            command = [program, str(examples / file), str(till.client.base_url), str(token)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
            # then
            assert re.fullmatch(r"numbered C-\d{8}\nordered SO-\d{8}\nclosed \d{4}-\d\d-\d\d\n", done.stdout), done
        assert len(till.get("/v1/customers", q="ada lovelace")["customers"]) == 3


def test_commands_of_the_page_about_tills(ready_company: Tenten) -> None:
    """Every command of the page works as it stands: a customer, a sale, a closed day, the events, a refusal."""
    # given
    text = (ROOT / "docs" / "how-to" / "till-api.md").read_text(encoding="utf-8")
    start, *commands = [line.strip() for line in text.splitlines() if line.startswith(("    curl", "    tenten"))]
    assert start == "tenten channel run houston --http 127.0.0.1:8710"
    with ready_company.running("headquarters", "run"), serving_till(ready_company) as till:
        address = str(till.client.base_url).removeprefix("http://").rstrip("/")
        # when
        answers = [typed_in(ready_company, command.replace("127.0.0.1:8710", address)) for command in commands]
    # then
    created, found, edited, sold, closed = map(json.loads, answers[:5])
    assert created["customer_id"] == edited["customer_id"] == found["customers"][0]["customer_id"]
    assert (edited["phone"], sold["total"], closed["ends_of_day"][0]["transactions"]) == ("+17135550123", "9.00", 1)
    assert "event: numbered" in answers[5]
    assert [error["field"] for error in json.loads(answers[6])["errors"]] == ["email"]


def typed_in(tenten: Tenten, command: str) -> str:
    """The output of a command that is typed in the directory of tenten.toml."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=tenten.directory, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    # 28: the stream of events is left after a while.
    assert done.returncode in (0, 28), done
    return done.stdout


def use_and_stop(company: Tenten, channel: str) -> str:
    """Create, sell and close a day in a running store, then stop it; the id of the last event."""
    with serving_till(company, channel) as till:
        stream = till.stream()
        assert stream.begun.get(timeout=DEADLINE_SECONDS)
        key = str(uuid4())
        headers = {"Idempotency-Key": key, "Prefer": "wait=30"}
        ada = till.post("/v1/customers", ADA, 201, **headers)
        assert ada["status"] == "synchronized"
        numbered = stream.next().data
        assert numbered == {
            "type": "numbered",
            "subject": "customer",
            "customer_id": key,
            "account_number": ada["account_number"],
            "codes": [],
            "at": numbered["at"],
        }
        assert till.post("/v1/customers", ADA, 201, **headers)["account_number"] == ada["account_number"]
        order = till.post("/v1/orders", {"lines": [LINE], "customer_id": key})
        posted = stream.until("posted", subject="order", transaction_id=order["transaction_id"])
        assert till.get(f"/v1/orders/{order['transaction_id']}")["sales_order"] == posted.data["sales_order"]
        sale = till.post("/v1/sales", {"lines": [LINE]})
        (day,) = till.post(f"/v1/days/{sale['business_date']}/close", None, 200)["ends_of_day"]
        last = stream.until("posted", subject="end_of_day", end_of_day_id=day["end_of_day_id"])
        began_at = time.monotonic()
        assert end(till.process) == 0
        while not stream.has_ended():
            assert time.monotonic() - began_at < DEADLINE_SECONDS
        return last.id


def create_while_nobody_listens(company: Tenten, channel: str) -> str:
    """Create a customer in a running store that is then killed; its id."""
    with serving_till(company, channel) as till:
        customer: str = till.post("/v1/customers", ADA | {"first_name": "Eve"}, 202)["customer_id"]
        return customer
