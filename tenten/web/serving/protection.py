"""What every request passes before the application sees it: where it comes from, the size of the body and the time
that it takes, the answer's headers.

The Host header must be a name of this server, or an IP address. Otherwise a page of another site could reach a loopback
server under a name of its own that resolves to 127.0.0.1 (DNS rebinding), and a browser would let it read the answers.
No page can do that with an address, by which Prometheus and the probes of Kubernetes come.

A browser says in `Sec-Fetch-Site` that a page of another site makes a request. Only a link from there is followed, and
what the settings allow: such a page can read no answer, but could sign a person out, or keep the server busy.

A body in parts (multipart) is refused unread. No form needs it, and its sender names the encoding of each part: with
some of them a few hundred kilobytes take seconds to decode.
"""

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog import get_logger

from tenten.web.serving.refusals import refuse

log = get_logger(__name__)

BODY_BYTES_MAX: Final = 1_048_576

BODY_SECONDS_MAX: Final = 10.0
"""A body that has not arrived by then is refused: a slow client must not keep a connection."""

DISCARDED_BYTES_MAX: Final = 16 * BODY_BYTES_MAX
DISCARD_SECONDS_MAX: Final = 5.0
"""How much of a body that is refused is read, and for how long."""

_CLOSE: Final = ((b"connection", b"close"),)

_READ: Final = frozenset(
    (b"host", b"content-length", b"content-type", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"expect")
)

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Pages and answers show personal data. What may be kept says so itself.
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            b"font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
)


class Protection:
    """ASGI middleware: refuses foreign hosts and pages and large bodies, and adds headers of security to answers."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], origins: Iterable[str] = ()) -> None:
        """`hosts`: names and addresses by which this server is reached, without ports, in lower case; `origins`: of the
        foreign pages that may make requests.
        """
        self._app = app
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in _READ}
        name = _host_name(headers.get(b"host", b"").decode("latin-1"))
        send = _with_headers(send)
        if name not in self._hosts and not _is_ip_address(name):
            await refuse(send, 421, "This server has another name: see `hosts` of [http] in tenten.toml.")
        elif self._is_of_foreign_page(scope, headers):
            await refuse(send, 403, "Pages of other sites may not use this server.", _CLOSE)
        elif headers.get(b"content-type", b"").lstrip().lower().startswith(b"multipart/"):
            await _discard(receive, headers)
            await refuse(send, 415, "A body in parts (multipart) is not read.", _CLOSE)
        elif int(headers.get(b"content-length", b"0")) > BODY_BYTES_MAX:
            await _discard(receive, headers)
            await refuse(send, 413, f"The body has more than {BODY_BYTES_MAX} bytes.", _CLOSE)
        else:
            await self._answer(scope, receive, send)

    def _is_of_foreign_page(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        if headers.get(b"sec-fetch-site") != b"cross-site" or headers.get(b"origin") in self._origins:
            return False
        return scope["method"] != "GET" or headers.get(b"sec-fetch-mode") != b"navigate"

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. An error that the application has answered and raised again is not raised any more: the
        server would log it with its text.
        """
        is_answered = False

        async def noted(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._app(scope, _limited(receive), noted)
        except Exception:
            if not is_answered:
                log.exception("http_request_failed", path=_route(scope))
                await refuse(send, 500, "The request failed; the log of the process says why.")


class BodyTooLarge(HTTPException):
    """A body without a length has more than `BODY_BYTES_MAX` bytes."""

    def __init__(self) -> None:
        super().__init__(413, f"The body has more than {BODY_BYTES_MAX} bytes.", {"Connection": "close"})


class BodyTooSlow(HTTPException):
    """The body did not arrive in time."""

    def __init__(self) -> None:
        super().__init__(408, "The body did not arrive in time.", {"Connection": "close"})


async def _discard(receive: Receive, headers: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
    """Read a body that is refused, within limits: closed before, the connection would be reset, and the client could
    not read why.
    """
    if b"expect" in headers:
        # It waits for a sign to send the body, and gets the refusal.
        return
    left = DISCARDED_BYTES_MAX
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS_MAX):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _limited(receive: Receive) -> Receive:
    """Receives at most so many bytes, in a limited time. Raises: `BodyTooLarge`, `BodyTooSlow`."""
    left, is_complete, deadline = BODY_BYTES_MAX, False, 0.0

    async def receive_limited() -> Message:
        nonlocal left, is_complete, deadline
        if is_complete:
            # The end of the connection, for which an endless answer waits.
            return await receive()
        now = asyncio.get_running_loop().time()
        deadline = deadline or now + BODY_SECONDS_MAX
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow from None
        is_complete = not message.get("more_body", False)
        left -= len(message.get("body", b""))
        if left < 0:
            if not is_complete:
                await _discard(receive)
            raise BodyTooLarge
        return message

    return receive_limited


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in present)]
        await send(message)

    return send_with_headers


def _host_name(host: str) -> str:
    """The host of a Host header, without port and brackets."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
    return name.removeprefix("[").removesuffix("]").lower()


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _route(scope: Scope) -> str:
    """The path as declared, without ids."""
    return str(getattr(scope.get("route"), "path", "?"))
