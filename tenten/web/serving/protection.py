"""What every request passes before the application sees it: the Host header, the size of the body, the answer's
headers.

The Host header must be a name of this server, or an IP address. Otherwise a page of another site could reach a loopback
server under a name of its own that resolves to 127.0.0.1 (DNS rebinding), and a browser would let it read the answers.
No page can do that with an address, by which Prometheus and the probes of Kubernetes come.
"""

import ipaddress
import json
from collections.abc import Iterable, MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenten.web.serving.problems import PROBLEM, problem

BODY_BYTES_MAX: Final = 1_048_576

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
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
    """ASGI middleware: refuses foreign hosts and large bodies, and adds headers of security to each answer."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        """`hosts`: names and addresses by which this server is reached, without ports, in lower case."""
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in (b"host", b"content-length")}
        name = _host_name(headers.get(b"host", b"").decode("latin-1"))
        if name not in self._hosts and not _is_ip_address(name):
            await _refuse(send, 421, "This server has another name: see `hosts` of [http] in tenten.toml.")
        elif int(headers.get(b"content-length", b"0")) > BODY_BYTES_MAX:
            await _refuse(send, 413, f"The body has more than {BODY_BYTES_MAX} bytes.")
        else:
            await self._app(scope, _limited(receive), _with_headers(send))


class BodyTooLarge(Exception):
    """A body without a length has more than `BODY_BYTES_MAX` bytes."""


def _limited(receive: Receive) -> Receive:
    """Receives at most so many bytes. Raises: `BodyTooLarge`."""
    left = BODY_BYTES_MAX

    async def receive_limited() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
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


async def _refuse(send: Send, status: int, detail: str) -> None:
    body = json.dumps(problem(status, detail)).encode()
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
