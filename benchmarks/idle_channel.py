"""C1: what an idle channel costs the brokers: connections that it opens, and offset records that it writes.

Connections are counted by their local ports: a closed one stays in the system's list for a minute, so looking at the
list every few seconds misses none. Offset records are the growth of Kafka's own topic.
"""

import time
from collections.abc import Iterator
from typing import Final

import psutil

from benchmarks.filling import high_watermarks
from benchmarks.measuring import Result, Scale
from benchmarks.processes import tenten, wait_until
from benchmarks.servers import Servers
from benchmarks.stage import Stage, stage

CONNECTIONS_A_MINUTE_MAX: Final = 2.0
OFFSET_RECORDS_A_MINUTE_MAX: Final = 15.0

_STORE: Final = "store"
_OFFSETS_TOPIC: Final = "__consumer_offsets"
_LOOK_SECONDS: Final = 5.0


def idle_channel(servers: Servers, scale: Scale, _: frozenset[str]) -> Iterator[Result]:
    """C1: both counts a minute, of a channel without any traffic."""
    with stage(servers, {_STORE: "sqlite"}) as on, tenten(on, "channel", "run", _STORE) as process:
        wait_until(lambda: bool(_open_ports(on)), [process], 0.2)
        time.sleep(scale.calm_seconds)
        records, ports, started_at = _offset_records(on), _ports(on), time.monotonic()
        opened: set[int] = set()
        while (left := scale.idle_channel_seconds - (time.monotonic() - started_at)) > 0:
            time.sleep(min(left, _LOOK_SECONDS))
            opened |= _ports(on) - ports
        minutes = (time.monotonic() - started_at) / 60
        written = _offset_records(on) - records
    for what, count, at_most in (
        ("connections opened by an idle channel", len(opened), CONNECTIONS_A_MINUTE_MAX),
        ("offset records of an idle channel", written, OFFSET_RECORDS_A_MINUTE_MAX),
    ):
        yield Result(
            bar="C1",
            what=what,
            unit="a minute",
            subject=[count / minutes],
            at_most=at_most,
            settings={"process": "tenten channel run", "database": "sqlite", "seconds": scale.idle_channel_seconds},
        )


def _ports(on: Stage) -> set[int]:
    """Local ports of all connections to the broker, those closed within the last minute included."""
    return {port for port, _ in _connections(on)}


def _open_ports(on: Stage) -> set[int]:
    return {port for port, status in _connections(on) if status == psutil.CONN_ESTABLISHED}


def _connections(on: Stage) -> list[tuple[int, str]]:
    broker = int(on.servers.bootstrap_servers.rpartition(":")[2])
    return [
        (connection.laddr[1], connection.status)
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.raddr and connection.raddr[1] == broker
    ]


def _offset_records(on: Stage) -> int:
    """How many offsets Kafka's topic of committed offsets has given to records."""
    return sum(high_watermarks(on.servers.bootstrap_servers, _OFFSETS_TOPIC).values())
