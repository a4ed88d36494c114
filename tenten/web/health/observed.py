"""Counts the requests of an application and their time, by route as declared; hands on the trace of the caller."""

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenten.runtime.counting import count, observe
from tenten.runtime.tracing import HEADER, traced_by

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNKNOWN: Final = "unknown"


class Observed:
    """ASGI middleware: counts each request when its response has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with traced_by(dict(scope["headers"]).get(HEADER.encode())):
                await self._app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else _UNKNOWN
            route = str(getattr(scope.get("route"), "path", _UNKNOWN))
            count("tenten_http_requests_total", 1, method, route, str(status))
            observe("tenten_http_request_seconds", time.monotonic() - began, method, route)
