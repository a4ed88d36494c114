"""The pages of everything that runs on this machine, for `tenten up` and the demonstration.

Each has a port of its own on 127.0.0.1, the same at each start if it is free. A port is reserved with a lock file: it
is bound only when its process has started, and another `tenten up` must not choose it meanwhile.
"""

import os
import socket
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from filelock import FileLock, Timeout

from tenten.runtime.errors import AddressRefused
from tenten.runtime.settings import Settings
from tenten.web.serving.address import HttpAddress
from tenten.web.serving.tokens import access_token, api_token, operator_token_file

_HOST: Final = "127.0.0.1"
_DASHBOARD_PORT: Final = 8700
_STORE_PORT: Final = 8710
_PORTS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPages:
    """Where headquarters' dashboard and the screens of stores are served."""

    dashboard: HttpAddress
    stores: Mapping[str, HttpAddress]
    """By channel."""

    def link_to_dashboard(self, settings: Settings) -> str:
        """A link with which anybody can sign in as an operator. Raises: `SettingsError`."""
        return _link(settings, self.dashboard, access_token(operator_token_file(settings)))

    def link_to_store(self, settings: Settings, channel: str) -> str:
        """A link with which anybody can sign in at the screen of this channel. Raises: `SettingsError`."""
        return _link(settings, self.stores[channel], api_token(settings, channel))


def _link(settings: Settings, address: HttpAddress, token: str) -> str:
    scheme = "http" if settings.http.certificate is None else "https"
    return f"{scheme}://{address}/login?{urlencode({'token': token})}"


def can_serve_pages() -> bool:
    """Whether the extra `web` is installed."""
    return find_spec("fastapi") is not None and find_spec("uvicorn") is not None


def reserve_pages(channels: Iterable[str], ends: ExitStack) -> LocalPages:
    """Addresses for the dashboard and these channels, reserved until `ends`. Raises: `AddressRefused`."""
    return LocalPages(
        dashboard=reserve_address(_DASHBOARD_PORT, ends),
        stores={name: reserve_address(_STORE_PORT, ends) for name in channels},
    )


def reserve_address(port: int, ends: ExitStack) -> HttpAddress:
    """The address with this port, or the next one that is free, reserved until `ends`. Raises: `AddressRefused`."""
    for candidate in range(port, port + _PORTS_MAX):
        lock = FileLock(_lock_file(candidate))
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        if _is_free(candidate):
            ends.callback(lock.release)
            return HttpAddress(_HOST, candidate)
        lock.release()
    raise AddressRefused(f"no port from {port} to {port + _PORTS_MAX - 1} is free on {_HOST} for a page")


def _lock_file(port: int) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"tenten-{user}-port-{port}.lock"


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True
