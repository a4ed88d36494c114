"""A broker and a PostgreSQL server of the run's own, which are restarted, killed and frozen; and the stores' network.

Headquarters reaches the broker directly, stores through a proxy that can be cut.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenten import local
from tenten.local.ports import free_port
from tests.faults.connection_proxy import ConnectionProxy, proxied_connection
from tests.services import directory_for_server

BROKER_FROZEN_SECONDS_MAX: Final = 20.0
"""The longest time for which the broker is frozen: workers lose their sessions, and transactions their time."""

_BROKER_STARTS_MAX: Final = 3

_POSTGRES_SETTINGS: Final = {"fsync": "off", "max_connections": "300"}
"""Processes are killed, not machines: what a process has written survives without being flushed to disk."""


@dataclass(slots=True, kw_only=True)
class Servers:
    """Both servers, running, and the proxy. Their addresses stay when they are restarted."""

    directory: Path
    inside: str
    """The broker's address for headquarters."""
    outside: str
    """Its address for stores: that of the proxy."""
    broker: local.LocalKafka
    postgresql: str
    network: ConnectionProxy

    def restart_broker(self, *, grace_seconds: float) -> None:
        """Stop the broker, without grace by SIGKILL, and start it with its data."""
        port = self.broker.port
        local.stop_kafka(self.directory / "kafka", grace_seconds)
        for attempt in range(1, _BROKER_STARTS_MAX + 1):
            try:
                self.broker = _start_broker(self.directory, self.inside, self.outside)
                break
            except local.LocalServiceFailure:
                # On a busy machine it needs longer than a start may take.
                if attempt == _BROKER_STARTS_MAX:
                    raise
        assert self.broker.port == port, "another program has taken the broker's port"

    def freeze_broker(self, seconds: float) -> None:
        """Stop the broker's process for this time."""
        os.kill(self.broker.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(self.broker.pid, signal.SIGCONT)

    def restart_postgresql(self) -> None:
        """Stop PostgreSQL, which closes all connections, and start it."""
        local.stop_postgres(self.directory / "postgres")
        self._start_postgresql()

    def crash_postgresql(self) -> None:
        """End PostgreSQL at once, as a crash does, and start it: it recovers from its log."""
        found = local.postgres_status(self.directory / "postgres")
        assert found is not None
        os.kill(found.pid, signal.SIGQUIT)
        while local.postgres_status(self.directory / "postgres") is not None:
            time.sleep(0.05)
        self._start_postgresql()

    def _start_postgresql(self) -> None:
        address = local.start_postgres(self.directory / "postgres", settings=_POSTGRES_SETTINGS).postgresql
        assert address == self.postgresql


@contextmanager
def servers_running() -> Iterator[Servers]:
    """Both servers and the proxy during the block, in a directory of their own."""
    ports = free_port(), free_port()
    inside, outside = (f"127.0.0.1:{port}" for port in ports)
    with directory_for_server("soak") as directory:
        try:
            broker = _start_broker(directory, inside, outside)
            postgres = local.start_postgres(directory / "postgres", settings=_POSTGRES_SETTINGS)
            with proxied_connection(ports[1], broker.port) as network:
                yield Servers(
                    directory=directory,
                    inside=inside,
                    outside=outside,
                    broker=broker,
                    postgresql=postgres.postgresql,
                    network=network,
                )
        finally:
            local.stop_kafka(directory / "kafka", grace_seconds=0)
            local.delete_postgres(directory / "postgres")


def _start_broker(directory: Path, inside: str, outside: str) -> local.LocalKafka:
    properties = {
        "inter.broker.listener.name": "INSIDE",
        "advertised.listeners": f"INSIDE://{inside},PLAINTEXT://{outside}",
    }
    listeners = {"INSIDE": f"PLAINTEXT://{inside}"}
    return local.start_kafka(directory / "kafka", properties=properties, listeners=listeners)
