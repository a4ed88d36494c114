"""A store's process that serves the API for tills, and its clients."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx

from tests.acceptance.cli import Tenten
from tests.acceptance.served import ANSWER_SECONDS, address_in
from tests.forked import ForkedProcess, ended_with_block, fork
from tests.waiting import DEADLINE_SECONDS, wait_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Till:
    """A running store, and a client that has its token."""

    client: httpx.Client
    process: ForkedProcess
    log: Path

    def post(self, path: str, document: object, status: int = 201, **headers: str | bytes) -> Any:
        """Send a document; the answer, which must have this status."""
        encoded = [(name.encode(), v if isinstance(v, bytes) else v.encode()) for name, v in headers.items()]
        answer = self.client.post(path, json=document, headers=encoded)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str, **query: Any) -> Any:
        """The document at this path."""
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stream(self, last_event_id: str | None = None) -> "EventReader":
        """A reader of the events."""
        return EventReader(self.client, last_event_id)


@contextmanager
def serving_till(tenten: Tenten, channel: str = "houston", *options: str, **environment: str) -> Iterator[Till]:
    """Run a store with its API at a free port during the block; kill it at the end."""
    log = tenten.directory / f"{channel}-{uuid4()}.log"
    words = ("channel", "run", channel, "--http", "127.0.0.1:0", *options)
    started = fork(words, directory=tenten.directory, log=log, environment=tenten.environment_with(environment))
    with ended_with_block(started) as process:
        wait_for(lambda: address_in(log) is not None or process.poll() is not None, f"an address in {log}")
        token = (tenten.directory / "api.token").read_text().strip() if not options else ""
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://{address_in(log)}", timeout=ANSWER_SECONDS, headers=headers) as client:
            yield Till(client=client, process=process, log=log)


def problem_of(answer: httpx.Response, status: int) -> Mapping[str, Any]:
    """The problem document of an answer, which must have this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    return document


@dataclass(frozen=True, slots=True, kw_only=True)
class SentEvent:
    """A server-sent event."""

    id: str
    type: str
    data: dict[str, Any]


class EventReader:
    """Reads a stream of events in a thread until it ends."""

    def __init__(self, client: httpx.Client, last_event_id: str | None) -> None:
        self.begun: Queue[str | None] = Queue()
        """The id from which the stream begins; None if it ended before."""
        self._events: Queue[SentEvent | None] = Queue()
        headers = {**client.headers, **({} if last_event_id is None else {"Last-Event-ID": last_event_id})}
        self._thread = Thread(target=self._read, args=(str(client.base_url), headers), daemon=True)
        self._thread.start()

    def next(self) -> SentEvent:
        """The next event. Fails at the end of the stream, and if there is none in time."""
        try:
            event = self._events.get(timeout=DEADLINE_SECONDS)
        except Empty:
            raise AssertionError("no event has come") from None
        assert event is not None, "the stream has ended"
        return event

    def until(self, kind: str, **data: Any) -> SentEvent:
        """The next event of this type with these values; others are passed."""
        while True:
            event = self.next()
            if event.type == kind and data.items() <= event.data.items():
                return event

    def has_ended(self) -> bool:
        """Whether the stream has ended."""
        return not self._thread.is_alive()

    def _read(self, base_url: str, headers: Mapping[str, str]) -> None:
        fields: dict[str, str] = {}
        try:
            with httpx.stream("GET", f"{base_url}/v1/events", headers=headers, timeout=ANSWER_SECONDS) as answer:
                assert answer.status_code == 200
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if line:
                        fields[name] = value
                        continue
                    self._take(fields)
                    fields = {}
        except httpx.HTTPError:
            pass  # the store has ended
        finally:
            self.begun.put(None)
            self._events.put(None)

    def _take(self, fields: Mapping[str, str]) -> None:
        if "id" in fields:
            self.begun.put(fields["id"])
        if "data" in fields:
            self._events.put(SentEvent(id=fields["id"], type=fields["event"], data=json.loads(fields["data"])))
