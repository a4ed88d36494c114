"""P4 and P10: the command `tenten channel resync`, and a clerk who writes meanwhile.

A store on PostgreSQL and one on SQLite read the same topic. Each is resynced twice: into empty tables, and over rows
that are equal already. Seconds are those of the whole command. A till creates customers at a steady pace meanwhile, and
times each call.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks import limits
from benchmarks.databases import observer
from benchmarks.filling import fill_customers
from benchmarks.measuring import Database, Result, Run, Scale
from benchmarks.processes import BenchmarkFailed, Process, tenten
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import Stage, stage
from benchmarks.store_load import done, till
from benchmarks.till import Order

AT_LEAST_P4: Final[Mapping[Database, float]] = {"postgresql": 0.6, "sqlite": 0.5}
AT_LEAST_P4_EQUAL: Final = 1.0
"""Equal rows are compared at least as fast as they were written."""
MEMORY_MIB_MAX: Final = 300.0
WRITE_MS_MAX: Final = 50.0

_NAMES: Final[Mapping[Database, str]] = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
_WRITES: Final = 10
"""In each order of the clerk."""
_WRITE_SECONDS: Final = 0.1
"""From one write of the clerk to the next."""
_COUNT: Final = "SELECT count(*) FROM customers WHERE version > 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resync:
    """A finished resync, and how long the clerk's writes took meanwhile."""

    run: Run
    cpu_seconds: float
    writes_ms: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """The resyncs of a store with a number of customers."""

    customers: int
    into_empty: _Resync
    over_equal: _Resync
    limit: Run


def resyncing(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """P4: rate and memory; P10: the longest write of a clerk."""
    measured: dict[Database, list[_Measured]] = {database: [] for database in scale.databases}
    for customers in scale.resync_customers:
        with stage(servers, {_store(database): database for database in scale.databases}) as on:
            fill_customers(on, customers)
            for database in scale.databases:
                measured[database].append(_measure(on, database, customers))
    for database, resyncs in measured.items():
        if "P4" in bars:
            yield from _rates(database, resyncs[-1])
            yield from (_memory(database, resync) for resync in resyncs)
        if "P10" in bars:
            yield _longest_write(database, resyncs[-1])


def _store(database: Database) -> str:
    return f"on-{database}"


def _measure(on: Stage, database: Database, customers: int) -> _Measured:
    store = _store(database)
    with till(on, store) as clerk:
        first = len(_write(clerk, 0))
        into_empty = _resync(on, store, clerk, customers, first)
        over_equal = _resync(on, store, clerk, customers, first + len(into_empty.writes_ms))
    if database == "sqlite":
        limit = limits.insert_rows(on.directory, on.sqlite_file(store))
    else:
        rows = on.servers.rows_directory()
        limits.export_rows(on.channel_url(store), rows)
        limit = limits.copy_rows(on.servers, rows)
    return _Measured(customers=customers, into_empty=into_empty, over_equal=over_equal, limit=limit)


def _resync(on: Stage, store: str, clerk: Process, customers: int, first: int) -> _Resync:
    """Resync a store while the clerk writes."""
    checkpoint(on.servers)
    writes_ms: list[float] = []
    memory_bytes = 0
    started_at = time.perf_counter()
    with tenten(on, "channel", "resync", store) as process, ThreadPoolExecutor(1) as threads:
        ending = threads.submit(process.wait)
        while not ending.done():
            writes_ms += _write(clerk, first + len(writes_ms))
            # The peak that wait4 reports is that of the benchmark, from which the process was forked.
            memory_bytes = max(memory_bytes, process.memory_peak_bytes())
        ended_at, usage = ending.result()
    with observer(on.channel_url(store)) as ask:
        if ask(_COUNT) != [(customers,)]:
            raise BenchmarkFailed(f"expected {customers} customers after the resync, found {ask(_COUNT)}")
    run = Run(records=customers, seconds=ended_at - started_at, memory_bytes=memory_bytes)
    return _Resync(run=run, cpu_seconds=usage.ru_utime + usage.ru_stime, writes_ms=writes_ms)


def _write(clerk: Process, first: int) -> Sequence[float]:
    """Let the clerk create some customers; the milliseconds that each took."""
    start_at = time.monotonic() + _WRITE_SECONDS
    clerk.send(asdict(Order(first=first, count=_WRITES, start_at=start_at, interval_seconds=_WRITE_SECONDS)))
    return done(clerk).milliseconds


def _rates(database: Database, measured: _Measured) -> Iterator[Result]:
    where, customers = _NAMES[database], measured.customers
    copied = "server-side binary COPY of the same rows" if database == "postgresql" else "executemany of the same rows"
    written, equal = measured.into_empty, measured.over_equal
    yield Result(
        bar="P4",
        what=f"resync of {customers:,} customers into empty tables of {where}",
        against=copied,
        unit="k/s",
        subject=[written.run.thousands_a_second],
        limit=[measured.limit.thousands_a_second],
        at_least=AT_LEAST_P4[database],
        memory_bytes=written.run.memory_bytes,
        settings={"customers": customers, "database": database, "process": "tenten channel resync"},
        details={"seconds": round(written.run.seconds, 1), "CPU seconds": round(written.cpu_seconds, 1)},
    )
    yield Result(
        bar="P4",
        what=f"resync of {customers:,} customers over equal rows in {where}",
        against="into empty tables",
        unit="k/s",
        subject=[equal.run.thousands_a_second],
        limit=[written.run.thousands_a_second],
        at_least=AT_LEAST_P4_EQUAL,
        memory_bytes=equal.run.memory_bytes,
        settings={"customers": customers, "database": database, "process": "tenten channel resync"},
        details={"seconds": round(equal.run.seconds, 1), "CPU seconds": round(equal.cpu_seconds, 1)},
    )


def _memory(database: Database, measured: _Measured) -> Result:
    peak = max(measured.into_empty.run.memory_bytes, measured.over_equal.run.memory_bytes)
    return Result(
        bar="P4",
        what=f"memory of a resync of {measured.customers:,} customers, {_NAMES[database]}",
        unit="MiB",
        subject=[peak / 2**20],
        at_most=MEMORY_MIB_MAX,
        settings={"customers": measured.customers, "database": database},
    )


def _longest_write(database: Database, measured: _Measured) -> Result:
    writes = {"into empty tables": measured.into_empty.writes_ms, "over equal rows": measured.over_equal.writes_ms}
    return Result(
        bar="P10",
        what=f"a clerk's longest write during a resync of {measured.customers:,} customers, {_NAMES[database]}",
        unit="ms",
        subject=[max(map(max, writes.values()))],
        at_most=WRITE_MS_MAX,
        settings={"writes a second": round(1 / _WRITE_SECONDS), "customers": measured.customers, "database": database},
        details={
            "shown": {
                f"longest writes on {_NAMES[database]} {when}, ms": [round(ms, 1) for ms in sorted(milliseconds)[-5:]]
                for when, milliseconds in writes.items()
            }
        },
    )
