"""How many requests a process answers: a token bucket for all of its clients together."""

import math
import time
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from tenten.web.serving.refusals import refuse

_BURST_SECONDS: Final = 2
"""A bucket that is full has the requests of so many seconds."""

UNLIMITED: Final = frozenset(("/livez", "/readyz", "/metrics"))
"""A supervisor must not take a busy process for a dead one."""


class RateLimit:
    """ASGI middleware: answers 429 to requests that are too many."""

    def __init__(self, app: ASGIApp, per_second_max: int) -> None:
        self._app = app
        self._per_second = per_second_max
        self._tokens = self._tokens_max = float(per_second_max * _BURST_SECONDS)
        self._filled_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "http" and scope["path"] not in UNLIMITED and (seconds := self._seconds_to_wait()) > 0:
            headers = [(b"retry-after", str(math.ceil(seconds)).encode())]
            await refuse(send, 429, f"More than {self._per_second} requests a second.", headers)
        else:
            await self._app(scope, receive, send)

    def _seconds_to_wait(self) -> float:
        """Take a token; 0, or without one the time until the next."""
        now = time.monotonic()
        self._tokens = min(self._tokens_max, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        return 0.0
