"""The server of a store while its database cannot be written, and with many clients at once."""

import json
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import update

from tenten.consumers.channel.overlay import erase_customers
from tenten.schemas.tables.channel import customers, end_of_days
from tenten.web.apps import Served, channel_app
from tenten.web.serving import writers
from tenten.web.serving.address import HttpAddress, address_of, listen
from tenten.web.serving.server import serving
from tests.producer_scene import Store, set_store
from tests.waiting import wait_for

SECONDS = 60.0
ADA = {"first_name": "Ada"}


@contextmanager
def serving_store(store: Store, directory: Path) -> Iterator[httpx.Client]:
    """Serve all that a store serves; a client that has its token."""
    listener, ending = listen(HttpAddress("127.0.0.1", 0)), Event()
    token = directory / "till.token"
    served = Served(settings=store.settings, address=address_of(listener), ending=ending, token_file=token)
    with serving(channel_app(served, "houston", store.channel.engine), listener, None, ending):
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        limits = httpx.Limits(max_connections=None)
        url = f"http://{served.address}"
        with httpx.Client(base_url=url, headers=headers, timeout=SECONDS, limits=limits) as client:
            yield client


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store on SQLite, which has one lock for all writers."""
    with set_store(tmp_path, "sqlite:///houston.db") as opened:
        yield opened


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Another program keeps the write lock during the block."""
    other = sqlite3.connect(str(store.channel.engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_waiting_writers_stop_no_reader(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many requests wait for a locked database, it is read, also through the screen, and health and
    metrics answer; writers that are too many are refused at once, the others write when the lock is free.
    """
    # given
    monkeypatch.setattr(writers, "SECONDS_MAX", SECONDS)
    count = writers.WRITERS_MAX + writers.WAITING_MAX
    with serving_store(store, tmp_path) as client, ThreadPoolExecutor(count + 5) as many:
        token = client.headers["Authorization"].removeprefix("Bearer ")
        with locked(store):
            # when
            sent = [many.submit(client.post, "/v1/customers", json=ADA) for _ in range(count + 5)]
            refused = first_done(sent, 5)
            # then
            for path in ("/v1/customers", "/readyz", "/metrics", "/login"):
                assert client.get(path).status_code == 200
            signed_in = client.post("/login", data={"token": token}, headers={"Accept": "text/html"})
            assert signed_in.status_code == 303
            assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
            assert {answer.result().status_code for answer in refused} == {503}
            assert {answer.result().headers["Retry-After"] for answer in refused} == {"1"}
        assert sorted(answer.result().status_code for answer in sent) == [202] * count + [503] * 5


def first_done(sent: list[Future[httpx.Response]], count: int) -> list[Future[httpx.Response]]:
    """Those that are answered first."""
    wait_for(lambda: sum(answer.done() for answer in sent) == count, "the refusals")
    return [answer for answer in sent if answer.done()]


def test_write_gives_up_before_a_till_does(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits for a place and for the lock have one end: till and clerk are answered 503, and nothing is written."""
    # given
    monkeypatch.setattr(writers, "SECONDS_MAX", 0.2)
    with serving_store(store, tmp_path) as client:
        client.post("/login", data={"token": client.headers["Authorization"].removeprefix("Bearer ")})
        page = client.get("/customers/new").text
        (form_key,) = set(re.findall('name="form_key" value="([^"]+)"', page))
        form = {"form_key": form_key, "first_name": "Eve"}
        with locked(store):
            # when
            # As patient as a till: it must not repeat what still waits.
            sale = {"lines": [{"sku": "CUP", "quantity": 1, "price": "4.50"}]}
            answers = [
                client.post(path, json=body, timeout=9) for path, body in (("/v1/customers", ADA), ("/v1/sales", sale))
            ]
            shown = client.post("/customers", data=form, headers={"Accept": "text/html"}, timeout=9)
        # then
        assert (shown.status_code, "The database of this store does not answer." in shown.text) == (503, True)
        assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(503, "1")] * 2
        assert client.get("/v1/customers").json()["customers"] == []
        assert client.post("/v1/sales", json=sale).status_code == 201
        assert client.post("/customers", data=form).status_code == 303
        (eve,) = client.get("/v1/customers").json()["customers"]
        assert eve["first_name"] == "Eve"


LINE = {"sku": "CUP", "quantity": 1, "price": "4.50"}


def reasons_of(answer: httpx.Response) -> list[tuple[str, str, str]]:
    """Field, code and text of each reason of a refusal."""
    assert answer.status_code == 422, answer.text
    return [(error["field"], error["code"], error["text"]) for error in answer.json()["errors"]]


def test_refusals_are_sentences_about_what_was_sent(store: Store, tmp_path: Path) -> None:
    """Each names the field, the header or the query parameter of the request, once, with a code of the catalogue."""
    with serving_store(store, tmp_path) as client:
        ada = client.post("/v1/customers", json=ADA).json()["customer_id"]
        client.post("/v1/customers", json=ADA)
        cursor = client.get("/v1/customers", params={"q": "ada", "limit": 1}).json()["next_cursor"]
        # when
        refused = {
            "header": client.post("/v1/customers", json=ADA, headers={"Tenten-Operator": "e" * 65}),
            "body": client.post("/v1/customers", json=ADA | {"operator": "e" * 65}),
            "card": client.post(f"/v1/customers/{ada}/cards", json={"card_number": "?"}),
            "attribute": client.post("/v1/customers", json={"attributes": {"l": [1]}}),
            "missing": client.post("/v1/sales", json={"lines": [{"sku": "CUP", "quantity": 1}]}),
            "many": client.post("/v1/sales", json={"lines": [LINE] * 1_001}),
            "amount": client.post("/v1/sales", json={"lines": [LINE | {"price": "a lot"}]}),
            "month": client.get("/v1/days/2026-13-01"),
            "guid": client.get("/v1/customers/abc"),
            "object": client.post("/v1/customers", json=[]),
            "kind": client.post("/v1/customers", json={"add_contacts": [{"kind": "fax", "value": "1"}]}),
            "limit": client.get("/v1/sales", params={"limit": 0}),
            "misspelt": client.get("/v1/sales", params={"busines_date": "2026-03-02"}),
            "twice": client.get("/v1/sales?limit=1&limit=2"),
            "cursor": client.get("/v1/customers", params={"q": "eve", "cursor": cursor}),
            "bell": client.post(
                "/v1/customers", json={"first_name": "A\x07", "address": {"city": "a\nb", "street": "a\nb"}}
            ),
            "nothing": client.post("/v1/customers", json={"first_name": "\u200b", "last_name": "Lovelace"}),
            "break": client.post("/v1/sales", json={"lines": [LINE | {"sku": "a\nb"}]}),
            "phone": client.post("/v1/customers", json=ADA | {"phone": "1"}),
            "old": client.post("/v1/sales", json={"lines": [LINE], "business_date": "0001-01-01"}),
        }
        # then
        found = {name: reasons_of(answer) for name, answer in refused.items()}
        assert {name: [reason[:2] for reason in reasons] for name, reasons in found.items()} == {
            "header": [("Tenten-Operator", "too_long")],
            "body": [("operator", "too_long")],
            "card": [("card_number", "card_number")],
            "attribute": [("attributes.l", "malformed")],
            "missing": [("lines[0].price", "required")],
            "many": [("lines", "too_many")],
            "amount": [("lines[0].price", "malformed")],
            "month": [("business_date", "malformed")],
            "guid": [("customer_id", "malformed")],
            "object": [("body", "malformed")],
            "kind": [("add_contacts[0].kind", "malformed")],
            "limit": [("limit", "malformed")],
            "misspelt": [("busines_date", "unknown_field")],
            "twice": [("limit", "duplicate")],
            "cursor": [("cursor", "malformed")],
            "bell": [("first_name", "control_character"), ("address.city", "control_character")],
            "nothing": [("first_name", "invisible")],
            "break": [("lines[0].sku", "control_character")],
            "phone": [("phone", "invalid_phone")],
            "old": [("business_date", "out_of_range")],
        }
        texts = [text for reasons in found.values() for _, _, text in reasons]
        assert not [text for text in texts if "alue error" in text or "nput" in text or not text.endswith(".")]
        assert {answer.json()["title"] for answer in refused.values()} == {"Unprocessable Content"}
        assert client.get("/v1/customers", params={"q": " ada", "cursor": cursor}).status_code == 200
        # What a store has already is no obstacle.
        with store.channel.engine.begin() as connection:
            connection.execute(update(customers).values(first_name="A\x07"))
        assert client.patch(f"/v1/customers/{ada}", json={"last_name": "Lovelace"}).status_code == 200
        for content_type in (None, "application/x-www-form-urlencoded"):
            headers = {} if content_type is None else {"Content-Type": content_type}
            unread = client.post("/v1/customers", content=b'{"first_name": "Ada"}', headers=headers)
            assert (unread.status_code, unread.json()["detail"]) == (415, "Send Content-Type: application/json.")
        long = client.post("/v1/sales", content=b'{"lines": 1e999}', headers={"Content-Type": "application/json"})
        assert (long.status_code, "number is too long" in long.json()["detail"]) == (400, True)


def test_requests_of_tills_and_load_balancers_follow_http(store: Store, tmp_path: Path) -> None:
    """HEAD wherever GET is, the whole customer whatever the till has, a preferred time with `respond-async`."""
    with serving_store(store, tmp_path) as client:
        # given
        created = client.post("/v1/customers", json=ADA, headers={"Prefer": "respond-async, wait=0"})
        path, tag = created.headers["Location"], created.headers["ETag"]
        # when
        heads = [client.head(path) for path in ("/livez", "/readyz", "/metrics", path, "/v1/customers")]
        # then
        assert created.headers["Preference-Applied"] == "wait=0"
        assert [(head.status_code, head.content) for head in heads] == [(200, b"")] * 5
        assert client.head("/v1/events").status_code == 405
        store.synchronize(created.json()["customer_id"], "C-00000007")
        # The tag is that of the fields a clerk edits: it must not hide the number.
        numbered = client.get(path, headers={"If-None-Match": tag})
        assert (numbered.status_code, numbered.json()["account_number"]) == (200, "C-00000007")
        posted = client.post("/livez")
        assert (posted.status_code, posted.headers["Allow"]) == (405, "GET, HEAD")
        elsewhere = client.get("/v2/customers")
        assert (elsewhere.status_code, elsewhere.json()["detail"]) == (404, "There is nothing at this address.")


def test_refusal_of_a_large_body_can_be_read(store: Store, tmp_path: Path) -> None:
    """Also by a client that reads only when it has sent everything, with and without the length: otherwise a till would
    take it for a lost answer, and repeat for ever.
    """
    with serving_store(store, tmp_path) as client:
        for body in (b" " * (8 << 20), iter([b" " * (2 << 20)] * 4)):
            connection = HTTPConnection(str(client.base_url.netloc.decode()), timeout=SECONDS)
            headers = {"Authorization": client.headers["Authorization"], "Content-Type": "application/json"}
            # when
            connection.request("POST", "/v1/customers", body, headers, encode_chunked=True)
            answer = connection.getresponse()
            # then
            assert (answer.status, json.load(answer)["title"]) == (413, "Content Too Large")
            connection.close()


def test_rejected_day_is_sent_again(store: Store, tmp_path: Path) -> None:
    """And shown as pending; a date without a rejected end of day is unchanged."""
    with serving_store(store, tmp_path) as client:
        # given
        day = client.post("/v1/days/2026-03-02/close").json()
        rejected = {"status": "rejected", "reasons": [{"field": "", "code": "unreadable_event", "text": "Not read."}]}
        with store.channel.engine.begin() as connection:
            connection.execute(update(end_of_days).values(rejected))
        assert client.get("/v1/days/2026-03-02").json()["ends_of_day"][0]["status"] == "rejected"
        # when
        sent = client.post("/v1/days/2026-03-02/resend").json()
        again = client.post("/v1/days/2026-03-02/resend").json()
        # then
        assert [end["status"] for end in sent["ends_of_day"]] == ["pending"]
        assert sent == again
        assert sent["ends_of_day"][0]["end_of_day_id"] == day["ends_of_day"][0]["end_of_day_id"]
        assert client.post("/v1/days/2026-03-03/resend").json()["ends_of_day"] == []


def test_repeated_creation_of_an_erased_customer_says_so(store: Store, tmp_path: Path) -> None:
    """The key is that of a customer who was erased: the till must not take it for another content."""
    with serving_store(store, tmp_path) as client:
        # given
        key = {"Idempotency-Key": str(uuid4())}
        created = client.post("/v1/customers", json=ADA, headers=key).json()["customer_id"]
        with store.channel.engine.begin() as connection:
            erase_customers(connection, [created], "houston", datetime.now(UTC))
        # when
        repeated = client.post("/v1/customers", json=ADA, headers=key)
        other = client.post("/v1/customers", json={"first_name": "Eve"}, headers=key)
        # then
        for answer in (repeated, other):
            detail = "The customer of this idempotency key was erased: nothing was written."
            assert (answer.status_code, answer.json()["detail"]) == (409, detail)
