"""An ASGI application that is served in a thread of a worker's process."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from starlette.types import ASGIApp
from structlog import get_logger

from tenten.runtime.errors import SettingsError
from tenten.web.serving.address import address_of
from tenten.web.serving.certificate import Certificate
from tenten.web.serving.connections import LimitedProtocol

log = get_logger(__name__)

THREADS_MAX: Final = 10
"""Threads for requests that block: fewer than a database's pool has connections, so that none has to wait for one."""

_KEEP_ALIVE_SECONDS: Final = 30
_HEADER_BYTES_MAX: Final = 16_384
_DRAIN_SECONDS: Final = 5
"""How long requests that are under way at the end may take."""

_STOP_SECONDS_MAX: Final = 10.0


@contextmanager
def serving(
    app: ASGIApp,
    listener: socket.socket,
    certificate: Certificate | None,
    ending: Event,
    on_failure: Callable[[], None] = lambda: None,
) -> Generator[None]:
    """Serve the application during the block. `ending` is set at its end, so that endless responses end.

    The server shares the process with a worker: when it fails, the worker goes on, the log says so, and `on_failure` is
    called. Raises: `SettingsError` for a certificate that cannot be used.
    """
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # The address of the connection counts, never one that a header names: anybody can write that.
        proxy_headers=False,
        date_header=True,
        lifespan="off",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        h11_max_incomplete_event_size=_HEADER_BYTES_MAX,
        ssl_certfile=None if certificate is None else str(certificate.certificate),
        ssl_keyfile=None if certificate is None else str(certificate.key),
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        listener.close()
        text = f"certificate and key of [http]: {error}; name two PEM files that belong together"
        raise SettingsError(text) from error
    server = uvicorn.Server(config)
    thread = Thread(target=_serve, args=(server, listener, on_failure), name="http", daemon=True)
    thread.start()
    log.info("http_started", address=str(address_of(listener)), tls=certificate is not None)
    try:
        yield
    finally:
        ending.set()
        server.should_exit = True
        thread.join(_STOP_SECONDS_MAX)
        listener.close()


def _serve(server: uvicorn.Server, listener: socket.socket, on_failure: Callable[[], None]) -> None:
    # Its own log has texts of errors, which may be personal data.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).disabled = True
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_served(server, listener))
    except Exception:
        log.exception("http_failed")
        # Clients would wait in its queue for ever.
        listener.close()
        on_failure()


async def _served(server: uvicorn.Server, listener: socket.socket) -> None:
    current_default_thread_limiter().total_tokens = THREADS_MAX
    await server.serve(sockets=[listener])
