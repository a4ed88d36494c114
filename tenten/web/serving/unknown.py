"""Answers every request that routes do not: of any method."""

from typing import Final

from fastapi import APIRouter
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from tenten.web.serving.problems import Problem

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Unknown:
    """ASGI application behind these routes: 405 where the address has other methods, 404 elsewhere."""

    def __init__(self, router: APIRouter) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises: `Problem`."""
        known = {**scope, "path_params": {}}
        allowed = [
            method
            for method in _METHODS
            if any(
                # HEAD is answered wherever GET is.
                route.matches({**known, "method": "GET" if method == "HEAD" else method})[0] is Match.FULL
                for route in self._router.routes
            )
        ]
        if allowed:
            raise Problem(405, "This address has other methods.", headers={"Allow": ", ".join(allowed)})
        raise Problem(404, "There is nothing at this address.")
