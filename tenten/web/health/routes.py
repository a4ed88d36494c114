"""`/livez`, `/readyz` and `/metrics`.

`/livez` asks neither broker nor database: a supervisor that restarts whatever does not answer would otherwise restart
every store in an outage. `/readyz` says whether the process can serve, and what is wrong. It and `/metrics` do their
work once a second at most, for however many ask, and in one thread: anybody may ask.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.responses import JSONResponse, Response

from tenten.web.health.shared import Shared

Check = Callable[[], str | None]
"""A sentence on what is wrong, without personal data; None when all is well. May block for a few seconds."""


def health_routes(process: str, checks: Sequence[tuple[str, Check]], registry: CollectorRegistry) -> APIRouter:
    """The routes of the process with this name; `checks` by the name of what they check."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, Any]:
        """Answer that the process runs."""
        return {"status": "ok", "process": process}

    def find_problems() -> dict[str, str]:
        return {name: sentence for name, check in checks if (sentence := check()) is not None}

    found = Shared(find_problems)
    encoded: dict[str, Shared[bytes]] = {}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether the process can serve: 200, or 503 with what is wrong."""
        problems = await found.value()
        status = "ok" if not problems else "unavailable"
        document = {"status": status, "process": process, "problems": problems}
        return JSONResponse(document, 503 if problems else 200)

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        """The metrics, for Prometheus; no secret and no personal data."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # By format, of which there are few.
        shared = encoded.setdefault(content_type, Shared(partial(encode, registry)))
        return Response(await shared.value(), media_type=content_type)

    return router
