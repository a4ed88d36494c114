"""What requests say in headers: idempotency key, preference, precondition, operator; and the ETag of a customer."""

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final
from uuid import UUID

from starlette.requests import Request

from tenten.producers.till.ids import parse_id
from tenten.schemas.messages import Reason
from tenten.web.serving.problems import Problem
from tenten.web.till_api.fields import renamed

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
OPERATOR: Final = "Tenten-Operator"
WAIT_SECONDS_MAX: Final = 30

_WAIT: Final = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?0*(\d{1,3})')
"""The first digits, which say enough: more mean a longer time than any that is waited."""

_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


def idempotency_key(request: Request) -> str | None:
    """The GUID in `Idempotency-Key`, also in quotes; None without it. Raises: `Problem` 422."""
    text = request.headers.get(IDEMPOTENCY_KEY)
    if text is None:
        return None
    key: UUID | None = parse_id(text.strip().strip('"'))
    if key is None:
        reason = Reason(field=IDEMPOTENCY_KEY, code="invalid_id", text="Must be a GUID.")
        raise Problem(422, "The idempotency key is not a GUID.", errors=[reason])
    return str(key)


async def digest_of(request: Request, operation: str) -> str:
    """A text that is equal for requests with the same operation, body and operator."""
    body = await request.json() if await request.body() else None
    content = [operation, request.headers.get(OPERATOR), body]
    return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def wait_seconds(request: Request) -> int | None:
    """How long the client wants to wait for the account number (`Prefer`, RFC 7240); None: as the channel does."""
    preference = ",".join(request.headers.getlist("prefer")).lower()
    found = _WAIT.search(preference)
    if found is not None:
        # Also with `respond-async`: then that is what happens after the time.
        return min(int(found[1]), WAIT_SECONDS_MAX)
    return 0 if "respond-async" in preference else None


def operator(request: Request, in_body: str | None = None) -> str | None:
    """The person who makes the change: of the body, or else of the header, in UTF-8."""
    name = in_body if in_body is not None else request.headers.get(OPERATOR)
    if name is None or in_body is not None:
        return name
    try:
        return name.encode("latin-1").decode()
    except UnicodeDecodeError:
        return name


@contextmanager
def operator_named(request: Request, in_body: str | None = None) -> Generator[None]:
    """Refusals of the block name the header where the operator comes from it. Raises: `InputRejected`."""
    with renamed({"operator": OPERATOR} if in_body is None and OPERATOR in request.headers else {}):
        yield


def expected_tags(request: Request) -> list[str] | None:
    """The tags in `If-Match`, one of which the customer must have; None for any. Weak tags never match."""
    text = request.headers.get("if-match")
    if text is None or text.strip() == "*":
        return None
    return [tag for weak, tag in _TAG.findall(text) if not weak]
