"""HEAD wherever GET is."""

from starlette.types import ASGIApp, Receive, Scope, Send

_ENDLESS = "/events"


class HeadAsGet:
    """ASGI middleware: answers HEAD as GET; the server leaves the body out. Not where an answer has no end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and not scope["path"].endswith(_ENDLESS):
            # A copy: by its own the server knows that it sends no body.
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
