"""J1 and J2: a store that joins, and a change of settings that reaches every channel.

J1 is the whole command `tenten store join` into SQLite, against `tenten channel resync` of the same customers (P4).
J2 is the time from the start of `tenten settings apply`, which changes a setting of every channel, until each has
stored it.

    python -m benchmarks.joining CHANNEL...

is the process of the channels of J2: each reads its settings as `tenten channel run` does. It prints a line when it has
begun, and for each number that it reads the times at which the channels had stored it as their `cut_off_hour`.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median
from threading import Condition
from typing import Any, Final

from benchmarks.databases import observer
from benchmarks.filling import fill_customers
from benchmarks.measuring import Result, Run, Scale, Settings
from benchmarks.processes import BenchmarkFailed, Process, started, tenten
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import Stage, stage
from tenten.consumers.channel.own_settings import OwnSettings
from tenten.runtime.logs import configure_logs
from tenten.runtime.settings import load_settings
from tenten.schemas.topics import CHANNEL_SETTINGS
from tenten.sql.engine import open_database

AT_LEAST_J1: Final = 0.9
MEMORY_MIB_MAX: Final = 300.0
J2_SECONDS_MAX: Final = 3.0

_STORE: Final = "store"
_LOOK_SECONDS: Final = 0.1
_WAIT_SECONDS_MAX: Final = 120.0
_COUNT: Final = "SELECT count(*) FROM customers WHERE version > 0"


def joining(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """J1 and J2."""
    if "J1" in bars:
        yield from _join(servers, scale.resync_customers[-1])
    if "J2" in bars:
        yield from _settings_reach_channels(servers, scale)


def _join(servers: Servers, customers: int) -> Iterator[Result]:
    with stage(servers, {_STORE: "sqlite"}) as on:
        fill_customers(on, customers)
        _run(on, customers, "headquarters", "recover")
        with tenten(on, "headquarters", "run"):
            resynced = _run(on, customers, "channel", "resync", _STORE)
            token = _printed(on, "channel", "enroll", _STORE, "--json")["token"]
            joined = _run(on, customers, "store", "join", token, "--directory", "joined")
        with observer(f"sqlite:///{on.directory / 'joined' / _STORE}.db") as ask:
            if ask(_COUNT) != [(customers,)]:
                raise BenchmarkFailed(f"expected {customers} customers after joining, found {ask(_COUNT)}")
    yield Result(
        bar="J1",
        what=f"`tenten store join` with {customers:,} customers, SQLite",
        against="resync of the same customers into empty tables, as in P4",
        unit="k/s",
        subject=[joined.thousands_a_second],
        limit=[resynced.thousands_a_second],
        at_least=AT_LEAST_J1,
        memory_bytes=joined.memory_bytes,
        settings={"customers": customers, "database": "sqlite"},
        details={"seconds": round(joined.seconds, 1)},
    )
    yield Result(
        bar="J1",
        what=f"memory of `tenten store join` with {customers:,} customers, SQLite",
        unit="MiB",
        subject=[joined.memory_bytes / 2**20],
        at_most=MEMORY_MIB_MAX,
        settings={"customers": customers, "database": "sqlite"},
    )


def _run(on: Stage, customers: int, *words: str) -> Run:
    """Run a command to its end."""
    checkpoint(on.servers)
    memory_bytes = 0
    started_at = time.perf_counter()
    with tenten(on, *words) as process, ThreadPoolExecutor(1) as threads:
        ending = threads.submit(process.wait)
        while not ending.done():
            memory_bytes = max(memory_bytes, process.memory_peak_bytes())
            time.sleep(_LOOK_SECONDS)
        ended_at, _ = ending.result()
    return Run(records=customers, seconds=ended_at - started_at, memory_bytes=memory_bytes)


def _printed(on: Stage, *words: str) -> Any:
    """The JSON document that a command prints."""
    with tenten(on, *words) as process:
        process.wait()
    lines = process.log.read_text().splitlines()
    return json.loads(next(line for line in lines if line.startswith("{")))


def _settings_reach_channels(servers: Servers, scale: Scale) -> Iterator[Result]:
    names = [f"store{number:03}" for number in range(scale.replicas)]
    command = [sys.executable, "-m", "benchmarks.joining", *names]
    with (
        stage(servers, dict.fromkeys(names, "sqlite")) as on,
        tenten(on, "headquarters", "run"),
        started(on, command, converses=True) as channels,
    ):
        channels.receive()
        # The first change waits for the processes to have started.
        _apply(on, channels, 1)
        rounds = [_apply(on, channels, number) for number in range(2, 2 + scale.runs)]
    settings: Settings = {"channels": len(names), "changed": "cut_off_hour of each"}
    for which, choose in (("the last", max), ("half", median)):
        yield Result(
            bar="J2",
            what=f"from `tenten settings apply` until {which} of {len(names)} channels has stored the change",
            unit="s",
            subject=[choose(seconds) for seconds in rounds],
            at_most=J2_SECONDS_MAX,
            settings=settings,
        )


def _apply(on: Stage, channels: Process, hour: int) -> list[float]:
    """Give every channel this `cut_off_hour`; by channel the seconds until it has stored it."""
    file = on.directory / "changed.toml"
    changed = [
        f"{line}\ncut_off_hour = {hour}" if line.startswith("[channels.") else line
        for line in on.file.read_text().splitlines()
    ]
    file.write_text("\n".join(changed) + "\n")
    channels.send(hour)
    started_at = time.monotonic()
    with tenten(on, "settings", "apply", str(file)) as process:
        process.wait()
    stored_at: Mapping[str, float] = channels.receive()
    return [at - started_at for at in stored_at.values()]


# The process of the channels.


def main(*names: str) -> None:
    """Tell for each number on stdin when the channels had it."""
    configure_logs()
    settings, changed = load_settings(), Condition()
    with ExitStack() as stack:
        channels: dict[str, OwnSettings] = {}
        for name in names:
            engine = open_database(settings.channel(name).database)
            stack.callback(engine.dispose)
            channels[name] = OwnSettings(settings.for_channel(name), engine, name, CHANNEL_SETTINGS, changed)
            channels[name].start()
            stack.callback(channels[name].close)
        print(json.dumps(len(channels)), flush=True)
        for line in sys.stdin:
            print(json.dumps(_stored_at(channels, changed, json.loads(line))), flush=True)


def _stored_at(channels: Mapping[str, OwnSettings], changed: Condition, hour: int) -> dict[str, float]:
    """By channel the time (`time.monotonic`) at which it had this `cut_off_hour`."""
    stored_at: dict[str, float] = {}
    deadline = time.monotonic() + _WAIT_SECONDS_MAX
    with changed:
        while len(stored_at) < len(channels):
            for name, own in channels.items():
                if name not in stored_at and own.current.channel(name).cut_off_hour == hour:
                    stored_at[name] = time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(channels) - len(stored_at)} channels have not stored the change")
            changed.wait(1.0)
    return stored_at


if __name__ == "__main__":
    main(*sys.argv[1:])
