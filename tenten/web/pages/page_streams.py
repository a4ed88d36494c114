"""The event streams of open pages: a few for each session, and none for one that has ended."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, TypeVar

from starlette.responses import JSONResponse, Response

from tenten.web.serving.problems import PROBLEM, problem

STREAMS_MAX: Final = 20
"""Of a session at the same time: a page that nobody looks at holds none."""

T = TypeVar("T")


class PageStreams:
    """The streams of one server. Only its event loop uses it."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def refusal(self, session: str) -> Response | None:
        """The answer to a further stream of this session, if it has as many as it may; the browser tries again."""
        if self._open[session] < STREAMS_MAX:
            return None
        text = f"This session follows {STREAMS_MAX} pages already: close some of them."
        return JSONResponse(problem(429, text), 429, headers={"Retry-After": "5"}, media_type=PROBLEM)

    async def follow(
        self, session: str, is_signed_in: Callable[[], bool], events: AsyncGenerator[T]
    ) -> AsyncGenerator[T]:
        """The events, counted as a stream of this session. Ends with the first one after the session has ended."""
        if self.refusal(session) is not None:
            # So many have begun at the same moment.
            return
        self._open[session] += 1
        try:
            async with aclosing(events):
                async for event in events:
                    if not is_signed_in():
                        return
                    yield event
        finally:
            self._open[session] -= 1
            if not self._open[session]:
                del self._open[session]
