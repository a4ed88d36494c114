"""Sessions that have ended, and their streams of events."""

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest
from starlette.requests import Request
from starlette.responses import Response

from tenten.web.pages import sessions as sessions_module
from tenten.web.pages.page_streams import STREAMS_MAX, PageStreams
from tenten.web.pages.sessions import Sessions


def requesting(sessions: Sessions, signed_in: Response) -> Request:
    """A request with the cookie of this answer."""
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    return Request({"type": "http", "headers": [(b"cookie", cookie.encode())]})


def signed_in(sessions: Sessions, secret: str) -> Request:
    """A request of somebody who has just signed in."""
    response = Response()
    sessions.begin(response, "clerk", "Ana", secret)
    return requesting(sessions, response)


def test_only_so_many_ended_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest; a cookie that was made for the same session with another name has ended, too."""
    # given
    monkeypatch.setattr(sessions_module, "ENDED_MAX", 3)
    sessions = Sessions("houston", {"clerk": "right-token-of-a-store"}, secure=False)
    requests = [signed_in(sessions, f"secret-{number}") for number in range(5)]
    renamed = Response()
    sessions.begin(renamed, "clerk", "Ben", "secret-4")
    # when
    for request in requests:
        sessions.end(request, Response())
    # then
    assert [sessions.of(request) is None for request in requests] == [False, False, True, True, True]
    assert sessions.of(requesting(sessions, renamed)) is None


def test_stream_ends_with_its_session_and_leaves_room_for_another() -> None:
    """Nothing that happens after the end of the session is sent."""
    streams = PageStreams()

    async def numbers() -> AsyncGenerator[int]:
        for number in range(10):
            yield number

    async def follow(answers: Iterator[bool]) -> list[int]:
        return [number async for number in streams.follow("ana", lambda: next(answers), numbers())]

    # when, then
    for _ in range(STREAMS_MAX + 1):
        assert asyncio.run(follow(iter([True, True, False]))) == [0, 1]
    assert streams.refusal("ana") is None
