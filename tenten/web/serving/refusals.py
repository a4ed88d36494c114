"""Refusals that are answered before an application sees the request."""

import json
from collections.abc import Iterable

from starlette.types import Send

from tenten.web.serving.problems import PROBLEM, problem


async def refuse(send: Send, status: int, detail: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with a problem document."""
    body = json.dumps(problem(status, detail)).encode()
    about = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*about, *headers]})
    await send({"type": "http.response.body", "body": body})
