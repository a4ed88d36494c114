"""The API for tills of a store whose connection is down, on both databases: everything works, and nothing is lost."""

import signal
import stat
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.cli import HOUSTON, LEGAL_ENTITY, Tenten
from tests.acceptance.till import Till, problem_of, serving_till
from tests.conftest import NewDatabase

ADA: Final = {"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com"}
LINE: Final = {"sku": "CUP", "quantity": 2, "price": "4.50"}
NOWHERE: Final = '[kafka]\n"bootstrap.servers" = "127.0.0.1:1"\n'


@pytest.fixture(params=["postgresql", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, new_database: NewDatabase) -> Tenten:
    """A store on each of the two databases, whose broker does not answer."""
    houston = HOUSTON
    if request.param == "postgresql":
        houston = houston.replace("sqlite:///houston.db", new_database("channel"))
    (tmp_path / "tenten.toml").write_text(NOWHERE + LEGAL_ENTITY + houston)
    tenten = Tenten(directory=tmp_path)
    tenten.ok("database", "upgrade", "channel", "houston")
    return tenten


def test_store_without_a_connection_creates_sells_and_closes(store: Tenten) -> None:
    """A pending customer, an order, a sale with exact amounts, a card and an end of day, each found again in pages."""
    with serving_till(store) as till:
        # when
        key = str(uuid4())
        ada = till.post("/v1/customers", ADA | {"operator": "emma"}, 202, **{"Idempotency-Key": key})
        order = till.post("/v1/orders", {"lines": [LINE], "customer_id": key})
        # As a JSON number that no binary number equals.
        body = b'{"lines": [{"sku": "TEA", "quantity": 3, "price": 123456789012.345}], "operator": "emma"}'
        sale = till.client.post("/v1/sales", content=body, headers={"Content-Type": "application/json"}).json()
        card = till.post(f"/v1/customers/{key}/cards", {"card_number": "lc-1001", "keep": True}, 202)
        day = till.post(f"/v1/days/{sale['business_date']}/close", None, 200, **{"Tenten-Operator": "Zoë".encode()})
        # then
        assert (ada["customer_id"], ada["status"], ada["account_number"]) == (key, "pending", None)
        assert (order["customer_id"], order["total"], order["status"]) == (key, "9.00", "pending")
        assert Decimal(sale["total"]) == Decimal("370370367037.04")
        assert (sale["lines"][0]["price"], sale["operator"]) == ("123456789012.345", "emma")
        assert (card["card_number"], card["status"]) == ("LC-1001", "kept")
        (end,) = day["ends_of_day"]
        assert (end["transactions"], end["operator"]) == (1, "Zoë")
        assert till.get(f"/v1/days/{sale['business_date']}") == day
        assert till.get(f"/v1/orders/{order['transaction_id']}") == order
        problem_of(till.client.get(f"/v1/sales/{order['transaction_id']}"), 404)
        assert till.get("/v1/orders", customer_id=key, status="pending")["transactions"] == [order]
        assert till.get("/v1/orders", customer_id=str(uuid4()))["transactions"] == []
        problem_of(till.client.get("/v1/nothing"), 404)
        problem_of(wrong_method := till.client.put("/v1/customers"), 405)
        assert wrong_method.headers["Allow"] == "GET, HEAD, POST"
        assert till.get("/v1/days")["ends_of_day"] == [end]
        assert_in_pages(till)


def assert_in_pages(till: Till) -> None:
    """Lists and searches are complete and without repeats, page by page."""
    created = [till.post("/v1/customers", ADA | {"first_name": f"Ada{n}"}, 202)["customer_id"] for n in range(4)]
    sold = [till.post("/v1/sales", {"lines": [LINE]})["transaction_id"] for _ in range(4)]
    for path, name, key in (
        ("/v1/customers", "customers", "customer_id"),
        ("/v1/sales", "transactions", "transaction_id"),
    ):
        for query in ({}, {"q": "lovelace"}) if name == "customers" else ({},):
            ids = list[str]()
            cursor: dict[str, str] = {}
            while True:
                page = till.get(path, limit=2, **query, **cursor)
                ids += [entry[key] for entry in page[name]]
                if page["next_cursor"] is None:
                    break
                cursor = {"cursor": page["next_cursor"]}
            assert len(ids) == len(set(ids)) == 5
            assert set(ids) >= set(created if name == "customers" else sold)


def test_edit_of_a_customer_that_was_changed_meanwhile_is_refused(store: Tenten) -> None:
    """An edit names what the clerk has seen by its ETag; with another content a repeat is a conflict."""
    with serving_till(store) as till:
        # given
        created = till.client.post("/v1/customers", json=ADA)
        path, seen = created.headers["Location"], created.headers["ETag"]
        keyed = {"If-Match": seen, "Idempotency-Key": str(uuid4())}
        # when
        edited = till.client.patch(path, json={"phone": "713 555 0123"}, headers=keyed)
        repeated = till.client.patch(path, json={"phone": "713 555 0123"}, headers=keyed)
        other = till.client.patch(path, json={"phone": "713 555 0199"}, headers=keyed)
        late = till.client.patch(path, json={"last_name": "Byron"}, headers={"If-Match": seen})
        removed = till.client.patch(path, json={"phone": None}, headers={"If-Match": f'"x", {edited.headers["ETag"]}'})
        # then
        assert (edited.status_code, edited.json()["phone"]) == (200, "+17135550123")
        assert repeated.json() == edited.json()
        problem_of(other, 409)
        problem_of(late, 412)
        assert (removed.json()["phone"], removed.json()["last_name"]) == (None, "Lovelace")
        assert till.client.get(path).headers["ETag"] == removed.headers["ETag"] != edited.headers["ETag"]


@pytest.mark.parametrize("point", ["customers.before_commit", "customers.after_commit"])
def test_key_belongs_to_its_first_content_across_a_crash(store: Tenten, point: str) -> None:
    """The process dies before or after the commit of a customer: a repeat makes one customer, and the key with another
    content makes none.
    """
    # given
    key, other_key = str(uuid4()), str(uuid4())
    headers, other = {"Idempotency-Key": key}, {"Idempotency-Key": other_key}
    with serving_till(store, TENTEN_FAILPOINT=point) as till:
        with pytest.raises(httpx.HTTPError):
            till.client.post("/v1/customers", json=ADA, headers=headers)
        assert till.process.wait(60) == -signal.SIGKILL
    with serving_till(store) as till:
        is_written = point == "customers.after_commit"
        assert till.client.get(f"/v1/customers/{key}").status_code == (200 if is_written else 404)
        if is_written:
            # when
            problem_of(till.client.post("/v1/customers", json=ADA | {"first_name": "Eve"}, headers=headers), 409)
        repeated = [till.client.post("/v1/customers", json=ADA, headers=headers) for _ in range(2)]
        # then
        assert [answer.status_code for answer in repeated] == [202, 202]
        problem_of(till.client.post("/v1/customers", json=ADA | {"first_name": "Eve"}, headers=headers), 409)
        problem_of(till.client.post("/v1/sales", json={"lines": [LINE]}, headers=headers), 409)
        sold = [till.client.post("/v1/sales", json={"lines": [LINE]}, headers=other).json() for _ in range(2)]
        assert sold[0] == sold[1]
        problem_of(till.client.post("/v1/sales", json={"lines": [LINE, LINE]}, headers=other), 409)
        assert [entry["first_name"] for entry in till.get("/v1/customers")["customers"]] == ["Ada"]
        assert len(till.get("/v1/sales")["transactions"]) == 1


def test_refusals_name_the_field_as_the_caller_named_it(store: Tenten) -> None:
    """Every broken rule and every unknown field is named by its place in the document; nothing is written."""
    with serving_till(store) as till:
        # when
        broken = {
            "last_name": "x" * 101,
            "email": "nobody",
            "add_addresses": [{"street": "1 Main St", "country": "Atlantis"}],
            "add_contacts": [{"kind": "phone", "value": "12"}],
        }
        refused = [
            till.client.post("/v1/customers", json=broken),
            till.client.post("/v1/customers", json={"first_nam": "Ada", "address": {"streat": "1"}}),
            till.client.post("/v1/sales", json={"lines": [LINE, LINE | {"quantity": 0}], "currency": "XXZ"}),
            till.client.post("/v1/orders", json={"lines": [LINE | {"price": "a lot"}]}),
            till.client.post("/v1/orders", json={"lines": [LINE], "customer_id": str(uuid4())}),
            till.client.post("/v1/customers", json=ADA, headers={"Idempotency-Key": "1"}),
            till.client.post("/v1/customers", json=ADA, headers={"Tenten-Operator": "e" * 65}),
            till.client.post("/v1/sales", json={"lines": [LINE], "business_date": "9999-12-31"}),
            till.client.post("/v1/days/0001-01-01/close"),
        ]
        # then
        assert [fields_of(answer) for answer in refused] == [
            {"last_name", "email", "add_addresses[0].country", "add_contacts[0].value"},
            {"first_nam", "address.streat"},
            {"lines[1].quantity", "currency"},
            {"lines[0].price"},
            {"customer_id"},
            {"Idempotency-Key"},
            {"Tenten-Operator"},
            {"business_date"},
            {"business_date"},
        ]
        for text in (b"{", b'{"last_name": NaN}', b"\xff", b'{"a":' * 2_000):
            problem_of(
                till.client.post("/v1/customers", content=text, headers={"Content-Type": "application/json"}), 400
            )
        assert till.get("/v1/customers")["customers"] == []


def fields_of(answer: httpx.Response) -> set[str]:
    """The fields that a refusal names."""
    return {error["field"] for error in problem_of(answer, 422)["errors"]}


def test_requests_without_the_token_or_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    """401 without the token, whose file is private; 413 for large bodies, also without a length; 429 beyond the rate,
    which health is not counted in; no CORS but for the origins of the settings.
    """
    # given
    origins = '[http]\nrequests_per_second_max = 10\norigins = ["https://till.example.com"]\n'
    (tmp_path / "tenten.toml").write_text(NOWHERE + origins + LEGAL_ENTITY + HOUSTON)
    tenten = Tenten(directory=tmp_path)
    tenten.ok("database", "upgrade", "channel", "houston")
    file = tmp_path / "elsewhere.token"
    with serving_till(tenten, "houston", "--token-file", str(file)) as till:
        token = file.read_text().strip()
        authorization = {"Authorization": f"Bearer {token}"}
        # then
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert not (tmp_path / "api.token").exists()
        anonymous = httpx.get(f"{till.client.base_url}/v1/customers")
        assert problem_of(anonymous, 401)
        assert anonymous.headers["WWW-Authenticate"] == "Bearer"
        wrong = till.client.get("/v1/customers", headers={"Authorization": "Bearer wrong"})
        assert problem_of(wrong, 401)
        assert "invalid_token" in wrong.headers["WWW-Authenticate"]
        till.client.headers.update(authorization)
        assert till.get("/v1/customers") == {"customers": [], "next_cursor": None}
        allow = {"Access-Control-Request-Method": "POST"}
        for origin, allowed in (
            ("https://till.example.com", "https://till.example.com"),
            ("https://evil.example", None),
        ):
            asked = till.client.options("/v1/customers", headers={"Origin": origin, **allow})
            assert asked.headers.get("Access-Control-Allow-Origin") == allowed
        large = b"x" * 1_100_000
        json = {"Content-Type": "application/json"}
        problem_of(till.client.post("/v1/customers", content=large, headers=json), 413)
        problem_of(till.client.post("/v1/customers", content=iter([large, b"y"]), headers=json), 413)
        limited = next(
            answer for answer in iter(lambda: till.client.get("/v1/days"), None) if answer.status_code == 429
        )
        assert problem_of(limited, 429)
        assert limited.headers["Retry-After"] == "1"
        assert {till.client.get("/livez").status_code for _ in range(40)} == {200}


def test_description_has_an_example_of_every_operation(store: Tenten) -> None:
    """OpenAPI 3.1 without the token: each operation has an example of its answer and, where it takes one, of its body;
    no header allows other web pages.
    """
    with serving_till(store) as till:
        # when
        answer = httpx.get(f"{till.client.base_url}/openapi.json", headers={"Origin": "https://till.example.com"})
    # then
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    assert "Access-Control-Allow-Origin" not in answer.headers
    operations: dict[str, Mapping[str, Any]] = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    assert {"create_customer", "find_customers", "record_sale", "close_day", "follow_events"} <= operations.keys()
    for name, operation in operations.items():
        answers = [part for status, part in operation["responses"].items() if status in ("200", "201")]
        assert all("example" in content for part in answers for content in part["content"].values()), name
        refusals = {status: part for status, part in operation["responses"].items() if int(status) >= 400}
        assert {
            status: str(content["example"]["status"])
            for status, part in refusals.items()
            for content in part["content"].values()
        } == dict(zip(refusals, refusals, strict=True)), name
        assert "Retry-After" in refusals["503"]["headers"]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema = content["schema"]
            names = (
                [schema["$ref"]] if "$ref" in schema else [part["$ref"] for part in schema["anyOf"] if "$ref" in part]
            )
            referred = document["components"]["schemas"][names[0].rpartition("/")[2]]
            assert referred.get("examples"), name
