"""Server-sent events: an endless response for each of a limited number of readers."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tenten.sql.channel_events import ChannelEvent, Subject
from tenten.web.events.feed import EventBatch, EventFeed
from tenten.web.serving.problems import Problem

STREAMS_MAX: Final = 64
"""Readers of a process at the same time; more are answered 503."""

RESET: Final = "reset"
"""The event that says that events are missing: the client must read again what it shows."""

_PING_SECONDS: Final = 15
_SEND_SECONDS_MAX: Final = 30.0
"""A client that takes nothing for so long is disconnected."""

_RETRY_MILLISECONDS: Final = 1_000
_ID_MAX: Final = 2**63 - 1

_KEYS: Final = {
    Subject.CUSTOMER: ("customer_id", "account_number"),
    Subject.ORDER: ("transaction_id", "sales_order"),
    Subject.SALE: ("transaction_id", "sales_order"),
    Subject.END_OF_DAY: ("end_of_day_id", None),
}
"""By subject: the names of its id and its number."""

Render = Callable[[ChannelEvent], str]

_Sent: Final = partial(ServerSentEvent, sep="\n")


def event_json(event: ChannelEvent) -> dict[str, Any]:
    """The event as one flat object: `customer_id` and `account_number`, `transaction_id` and `sales_order`, or
    `end_of_day_id`, depending on its subject.
    """
    key, number = _KEYS[event.subject]
    return {
        "type": event.type.value,
        "subject": event.subject.value,
        key: event.subject_id,
        **({} if number is None else {number: event.number}),
        "codes": list(event.codes),
        "at": event.at.isoformat(),
    }


def last_event_id(request: Request) -> int | None:
    """The sequence in the header `Last-Event-ID`; None without it. One that is not a number means: before all events.

    Any unknown sequence leads to a reset.
    """
    text = request.headers.get("last-event-id")
    if text is None:
        return None
    return min(int(text), _ID_MAX) if text.isascii() and text.isdecimal() and len(text) < 40 else -1


class EventStreams:
    """The streams of one process."""

    def __init__(self, feed: EventFeed, streams_max: int = STREAMS_MAX) -> None:
        self._feed = feed
        self._streams_max = streams_max
        self._streams = 0

    def response(self, after: int | None, render: Render | None = None) -> EventSourceResponse:
        """Stream the events after this sequence, or from now on. `render`: an event as the client wants it; default:
        `event_json`.

        Raises: `Problem` 503, while too many clients follow.
        """
        if self._streams >= self._streams_max:
            raise Problem(503, f"{self._streams} clients follow the events already.", headers={"Retry-After": "5"})
        # From now on: of many that come at the same moment, none may begin before the others are counted.
        self._streams += 1
        return _Stream(
            self._events(after, render or _as_text),
            on_end=self._forget,
            ping=_PING_SECONDS,
            sep="\n",
            send_timeout=_SEND_SECONDS_MAX,
        )

    def _forget(self) -> None:
        self._streams -= 1

    async def _events(self, after: int | None, render: Render) -> AsyncGenerator[ServerSentEvent]:
        yield _Sent(comment="events", retry=_RETRY_MILLISECONDS)
        async with aclosing(self._feed.follow(after)) as batches:
            async for batch in batches:
                for sent in _as_sent(batch, render):
                    yield sent


class _Stream(EventSourceResponse):
    """A response that says when it has ended."""

    def __init__(self, content: AsyncGenerator[ServerSentEvent], *, on_end: Callable[[], None], **options: Any) -> None:
        super().__init__(content, **options)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the end."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def _as_sent(batch: EventBatch, render: Render) -> list[ServerSentEvent]:
    """The batch as messages; one without events moves the client's position."""
    if batch.is_reset:
        return [_Sent(event=RESET, id=str(batch.last_sequence), data="{}")]
    if not batch.events:
        return [_Sent(id=str(batch.last_sequence), comment="begin")]
    return [_Sent(id=str(event.sequence), event=event.type.value, data=render(event)) for event in batch.events]


def _as_text(event: ChannelEvent) -> str:
    return json.dumps(event_json(event), separators=(",", ":"))
