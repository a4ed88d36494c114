"""What a server does with requests of any kind, before an application decides anything: limits, errors, its end."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import httpx
import pytest
from fastapi import FastAPI, Request
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from structlog.testing import capture_logs

from tenten.web.events.feed import EventFeed
from tenten.web.events.streams import EventStreams
from tenten.web.serving import protection
from tenten.web.serving.address import HttpAddress, address_of, listen
from tenten.web.serving.problems import Problem, answer_with_problems
from tenten.web.serving.protection import Protection
from tenten.web.serving.server import serving
from tests.producer_scene import Store
from tests.waiting import wait_for

SECONDS = 60.0


@contextmanager
def served(app: FastAPI, ending: Event | None = None) -> Iterator[str]:
    """The address of a server with this application."""
    answer_with_problems(app)
    listener = listen(HttpAddress("127.0.0.1", 0))
    address = str(address_of(listener))
    with serving(Protection(app, {"127.0.0.1"}), listener, None, ending or Event()):
        yield address


def port_of(address: str) -> int:
    """The port of an address."""
    return int(address.rpartition(":")[2])


def test_body_that_comes_slowly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends half of its body and then nothing is answered 408, and its connection ends."""
    # given
    monkeypatch.setattr(protection, "BODY_SECONDS_MAX", 0.2)
    app = FastAPI()

    @app.post("/")
    async def take(request: Request) -> int:
        return len(await request.body())

    with served(app) as address, socket.create_connection(("127.0.0.1", port_of(address)), SECONDS) as client:
        # when
        client.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nhalf")
        answer = b""
        while part := client.recv(65_536):
            answer += part
    # then
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 408


def test_bug_is_answered_and_logged_without_its_text() -> None:
    """An error of the program is a 500, an error of the database that passes a 503; neither shows or logs values."""
    # given
    app = FastAPI()

    @app.get("/bug")
    async def bug() -> None:
        raise ValueError("Ada Lovelace")

    @app.get("/away")
    def away() -> None:
        raise NoConnectionFree("Ada Lovelace")

    with served(app) as address, capture_logs() as logs:
        # when
        answers = [httpx.get(f"http://{address}/{path}", timeout=SECONDS) for path in ("bug", "away")]
    # then
    assert [answer.status_code for answer in answers] == [500, 503]
    assert answers[1].headers["Retry-After"] == "1"
    assert all("Lovelace" not in answer.text for answer in answers)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["http_request_failed"]


def test_streams_of_events_are_few_and_end_with_the_server(store: Store) -> None:
    """One client too many is answered 503, until another has gone; the end of the server ends all streams."""
    # given
    ending, app = Event(), FastAPI()
    streams = EventStreams(EventFeed(store.channel.engine, "houston", ending), streams_max=2)

    @app.get("/events")
    async def events() -> object:
        return streams.response(None)

    with served(app, ending) as address:
        url = f"http://{address}/events"
        with httpx.stream("GET", url, timeout=SECONDS) as first:
            lines = first.iter_lines()
            assert next(lines) == ": events"
            with httpx.stream("GET", url, timeout=SECONDS) as second:
                others = second.iter_lines()
                assert next(others) == ": events"
                # when
                refused = httpx.get(url, timeout=SECONDS)
                # then
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            wait_for(lambda: is_let_in(url), "the end of the second stream")
            ending.set()
            # Without an end this would wait for ever.
            assert "id" in "".join(lines)


def is_let_in(url: str) -> bool:
    """Whether another client may follow the events."""
    with httpx.stream("GET", url, timeout=SECONDS) as answer:
        return answer.status_code == 200


def test_streams_that_begin_at_the_same_moment_are_counted(store: Store) -> None:
    """None is let in and then left without events: those before it count, whether they have begun or not."""
    # given
    streams = EventStreams(EventFeed(store.channel.engine, "houston", Event()), streams_max=2)
    # when
    waiting = [streams.response(None), streams.response(None)]
    # then
    with pytest.raises(Problem) as refused:
        streams.response(None)
    assert (refused.value.status_code, len(waiting)) == (503, 2)
