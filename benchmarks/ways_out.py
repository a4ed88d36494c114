"""A1 to A3: the commands that lead out of an accident, for as many customers as the largest resync.

Headquarters' database is empty, as if a backup from before the first customer had been restored, and `customers` has
everything. `recover` takes the customers back (A1), `verify` compares them (A2); then `customers` is deleted and
created again, and `republish` sends them all (A3). Seconds are those of the whole command.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks.databases import observer
from benchmarks.filling import fill_customers
from benchmarks.measuring import Result, Run, Scale
from benchmarks.processes import BenchmarkFailed, tenten
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import Stage, stage
from tenten.kafka.topics_admin import admin_client, apply_topics
from tenten.schemas.topics import CUSTOMERS

MEMORY_MIB_MAX: Final = 300.0

_LOOK_SECONDS: Final = 0.1
_COUNT: Final = "SELECT count(*) FROM customers"


def ways_out(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """The rate and the memory of each command. A2 and A3 need what A1 restores: all three are run."""
    customers = scale.resync_customers[-1]
    with stage(servers, {}) as on:
        fill_customers(on, customers)
        recovered = _run(on, customers, "recover")
        with observer(on.settings.headquarters_database()) as ask:
            if ask(_COUNT) != [(customers,)]:
                raise BenchmarkFailed(f"expected {customers} customers after the recovery, found {ask(_COUNT)}")
        verified = _run(on, customers, "verify")
        _recreate_customers(on)
        republished = _run(on, customers, "republish")
    measured = {"A1": ("recover", recovered), "A2": ("verify", verified), "A3": ("republish", republished)}
    for bar, (command, run) in measured.items():
        if bar in bars:
            yield from _results(bar, command, *run)


def _run(on: Stage, customers: int, *words: str) -> tuple[Run, float]:
    """Run the command of headquarters to its end: its run and its seconds of CPU."""
    checkpoint(on.servers)
    memory_bytes = 0
    started_at = time.perf_counter()
    with tenten(on, "headquarters", *words, "--json") as process, ThreadPoolExecutor(1) as threads:
        ending = threads.submit(process.wait)
        while not ending.done():
            memory_bytes = max(memory_bytes, process.memory_peak_bytes())
            time.sleep(_LOOK_SECONDS)
        ended_at, usage = ending.result()
    run = Run(records=customers, seconds=ended_at - started_at, memory_bytes=memory_bytes)
    return run, usage.ru_utime + usage.ru_stime


def _recreate_customers(on: Stage) -> None:
    """Delete the topic and create it again, empty."""
    for deletion in admin_client(on.settings).delete_topics([on.settings.topic(CUSTOMERS)]).values():
        deletion.result()
    apply_topics(on.settings)


def _results(bar: str, command: str, run: Run, cpu_seconds: float) -> Iterator[Result]:
    yield Result(
        bar=bar,
        what=f"`tenten headquarters {command}` with {run.records:,} customers",
        unit="k/s",
        subject=[run.thousands_a_second],
        memory_bytes=run.memory_bytes,
        settings={"customers": run.records},
        details={"seconds": round(run.seconds, 1), "CPU seconds": round(cpu_seconds, 1)},
    )
    yield Result(
        bar=bar,
        what=f"memory of `tenten headquarters {command}` with {run.records:,} customers",
        unit="MiB",
        subject=[run.memory_bytes / 2**20],
        at_most=MEMORY_MIB_MAX,
        settings={"customers": run.records},
    )
