"""The API for tills with headquarters: numbers arrive, and events are streamed and survive restarts."""

import time
from contextlib import ExitStack
from uuid import uuid4

from tests.acceptance.cli import Tenten, end
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
