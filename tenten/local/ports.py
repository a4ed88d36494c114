"""Ports on 127.0.0.1."""

import random
import socket
import time

from tenten.local.failures import LocalServiceFailure

# Below the range of ports for outgoing connections on Linux and macOS: otherwise a client that retries a server that is
# down may be given that server's port, and connect to itself.
_PORTS = range(20_000, 32_000)
_PORT_CHOICES_MAX = 1_000


def free_port() -> int:
    """A port that no program listens on now; another program may take it before the caller does.

    Raises: LocalServiceFailure.
    """
    for _ in range(_PORT_CHOICES_MAX):
        port = random.choice(_PORTS)
        if is_free(port):
            return port
    raise LocalServiceFailure(f"no free port on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop}")


def comes_free(port: int, seconds: float = 2.0) -> bool:
    """Whether a port is free or becomes free in time, as a killed process may keep it for a moment."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_free(port):
            return True
        time.sleep(0.1)
    return False


def is_free(port: int) -> bool:
    """Whether a server could listen on the port. Binds it for an instant, so do not call this while a server starts."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Java does: ignore connections of an ended server that the system still remembers.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def is_listening(port: int) -> bool:
    """Whether a program accepts connections on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
