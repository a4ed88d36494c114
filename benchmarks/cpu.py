"""The CPU that kinds of processes use, read before and after a measurement from what the system counts anyway.

PostgreSQL is one tree of processes that come and go. A backend counts for the kind of its database, which its title
names; the server's own processes, and backends that ended meanwhile, are "PostgreSQL, shared". Run-queue wait is the
time in which a thread could run and no core was free.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

import psutil

from benchmarks.servers import Servers

BUSY_MS_A_SECOND: Final = 150.0
"""Other programs that use more CPU than this make the machine busy: a thirteenth of two cores."""

HEADQUARTERS_POSTGRESQL: Final = "headquarters' PostgreSQL"
STORE_POSTGRESQL: Final = "stores' PostgreSQL"
SHARED_POSTGRESQL: Final = "PostgreSQL, shared"
KAFKA: Final = "Kafka"
BENCHMARK: Final = "the benchmark itself"


class Use(NamedTuple):
    """The life of a process up to now: its kind, CPU seconds, and by thread the nanoseconds in the run queue."""

    kind: str
    cpu_seconds: float
    waited_ns: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The use of every process under measurement, and of the whole machine, at one moment."""

    at: float
    uses: Mapping[int, Use]
    machine_seconds: float
    """All CPU that was not idle, of every program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What kinds of processes spent between two samples."""

    seconds: float
    cpu_ms: Mapping[str, float]
    waited_ms: Mapping[str, float]
    others_ms_a_second: float
    """CPU of all other programs, the system's own threads included."""

    @property
    def busy(self) -> bool:
        """Whether the machine was busy with other programs."""
        return self.others_ms_a_second > BUSY_MS_A_SECOND


class Processes:
    """The processes under measurement, by kind. A kind's process counts with all its descendants."""

    def __init__(self, servers: Servers) -> None:
        self._postmaster = servers.postmaster_pid
        self._kinds: dict[int, str] = {os.getpid(): BENCHMARK}
        if servers.broker_pid is not None:
            self._kinds[servers.broker_pid] = KAFKA

    def add(self, kind: str, pids: Sequence[int]) -> None:
        """Count these processes as this kind."""
        self._kinds.update(dict.fromkeys(pids, kind))

    def sample(self) -> Sample:
        """Read all counters once: some milliseconds of work, at the edges of a measurement only."""
        uses: dict[int, Use] = {}
        for pid, kind in self._kinds.items():
            with suppress(psutil.NoSuchProcess):
                uses[pid] = _use(psutil.Process(pid), lambda _, kind=kind: kind)  # type: ignore[misc]
        for process in [] if self._postmaster is None else _tree(self._postmaster):
            with suppress(psutil.NoSuchProcess):
                uses[process.pid] = _use(process, _kind_of_backend)
        busy = psutil.cpu_times()
        machine = busy.user + busy.system + sum(getattr(busy, name, 0.0) for name in ("nice", "irq", "softirq"))
        return Sample(at=monotonic(), uses=uses, machine_seconds=machine)


def spent(before: Sample, after: Sample) -> Spent:
    """The CPU time and run-queue wait between two samples of the same processes."""
    cpu: dict[str, float] = defaultdict(float)
    waited: dict[str, float] = defaultdict(float)
    for pid, use in after.uses.items():
        earlier = before.uses.get(pid, Use(use.kind, 0.0, {}))
        cpu[use.kind] += use.cpu_seconds - earlier.cpu_seconds
        waited[use.kind] += sum(ns - earlier.waited_ns.get(thread, 0) for thread, ns in use.waited_ns.items())
    for pid, use in before.uses.items():
        if pid not in after.uses:
            # Its whole life is now among the children of the server, and only its end belongs to this measurement.
            cpu[SHARED_POSTGRESQL] -= use.cpu_seconds
    seconds = after.at - before.at
    others = after.machine_seconds - before.machine_seconds - sum(cpu.values())
    return Spent(
        seconds=seconds,
        cpu_ms={kind: 1000 * value for kind, value in cpu.items()},
        waited_ms={kind: value / 1_000_000 for kind, value in waited.items()},
        others_ms_a_second=max(0.0, 1000 * others / seconds),
    )


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _use(process: psutil.Process, kind_of: Callable[[psutil.Process], str]) -> Use:
    times = process.cpu_times()
    ended_children = times.children_user + times.children_system
    return Use(kind_of(process), times.user + times.system + ended_children, _waited(process.pid))


def _waited(pid: int) -> dict[int, int]:
    """Nanoseconds in the run queue by thread; empty where the system does not report it. Source: proc(5)."""
    waited = {}
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            waited[int(file.parent.name)] = int(file.read_text().split()[1])
    return waited


def _kind_of_backend(process: psutil.Process) -> str:
    """The kind of a process of PostgreSQL, by the database in its title: `postgres: USER DATABASE ADDRESS STATE`."""
    words = " ".join(process.cmdline()).split()
    if len(words) < 4 or words[0] != "postgres:" or "_" not in words[2]:
        return SHARED_POSTGRESQL
    return HEADQUARTERS_POSTGRESQL if words[2].endswith("_headquarters") else STORE_POSTGRESQL
