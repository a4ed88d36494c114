"""Where a process serves HTTP: host and port."""

import ipaddress
import socket
import sys
from dataclasses import dataclass
from typing import Final

from tenten.runtime.errors import AddressRefused

_BACKLOG: Final = 128


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """A host and a port."""

    host: str
    port: int
    """0: any free one."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        """As in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def http_address(text: str) -> HttpAddress:
    """The address in `HOST:PORT`; an IPv6 address is in brackets. Raises: `ValueError`, a clause for people.

    >>> http_address("[::1]:8710").host
    '::1'
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not an address: write HOST:PORT, for example 127.0.0.1:8710")
    return HttpAddress(host.removeprefix("[").removesuffix("]"), int(port))


def listen(address: HttpAddress) -> socket.socket:
    """A socket that listens there, before any work begins. Raises: `AddressRefused`."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio sends small packets at once only where the protocol is named; otherwise answers wait 40 ms for a packet of
    # the client.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        _keep_for_us(listener)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressRefused(f"cannot serve HTTP at {address} ({error.strerror}): choose another --http") from error
    return listener


def _keep_for_us(listener: socket.socket) -> None:
    """Let the port be used again soon, but by nobody else meanwhile."""
    if sys.platform == "win32":
        # There SO_REUSEADDR would let any program take the port, and the access tokens of requests with it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def address_of(listener: socket.socket) -> HttpAddress:
    """The address at which the socket listens."""
    host, port = listener.getsockname()[:2]
    return HttpAddress(host, port)
