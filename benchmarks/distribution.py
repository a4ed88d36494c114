"""P1, P2 and P9: distribution with the process `tenten channel distribute`, from the topic to the commit.

The process is started and warmed up with other customers, which are then deleted from its tables. All snapshots become
visible on the topic at once, and the clock stops when the positions in the channel's database, which are written in the
same transaction as the rows, are past the last of them.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from benchmarks import limits
from benchmarks.customers import Record, snapshots
from benchmarks.databases import Ask, observer
from benchmarks.filling import Filling
from benchmarks.limits import TABLES
from benchmarks.measuring import Result, Run, Scale, Settings, memory_peak, rates
from benchmarks.processes import BenchmarkFailed, Process, tenten, wait_until
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import PARTITIONS, Stage, stage
from tenten.schemas.topics import CUSTOMERS

AT_LEAST_P1: Final = 0.8
AT_LEAST_P2: Final = 0.4
AT_LEAST_P9: Final = 0.65

_STORE: Final = "store"
_WARM_UP_SEED: Final = 7
_POSITIONS: Final = "SELECT partition, next_offset FROM positions"
_COUNT: Final = "SELECT count(*), coalesce(min(version), 0), coalesce(max(version), 0) FROM customers"


def into_postgresql(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """P1 into empty tables, P2 over the rows of P1."""
    into_empty, over_existing, copies = [], [], []
    rows = servers.rows_directory()
    for _ in range(scale.runs):
        with (
            stage(servers, {_STORE: "postgresql"}) as on,
            tenten(on, "channel", "distribute", _STORE) as process,
            observer(on.channel_url(_STORE)) as ask,
        ):
            _warm_up(on, process, ask, scale)
            ask(f"TRUNCATE {', '.join(table.name for table in TABLES)}")
            into_empty.append(_measure(on, process, ask, scale.customers, 1))
            limits.export_rows(on.channel_url(_STORE), rows)
            if "P2" in bars:
                over_existing.append(_measure(on, process, ask, scale.customers, 2))
        copies.append(limits.copy_rows(servers, rows))
    if "P1" in bars:
        yield replace(
            _into_postgresql(into_empty, copies, scale),
            bar="P1",
            what="distribution into PostgreSQL, empty tables",
            at_least=AT_LEAST_P1,
        )
    if "P2" in bars:
        yield replace(
            _into_postgresql(over_existing, copies, scale),
            bar="P2",
            what="distribution into PostgreSQL, existing rows, all change, one in five with another address",
            at_least=AT_LEAST_P2,
        )


def _into_postgresql(subject: list[Run], limit: list[Run], scale: Scale) -> Result:
    return Result(
        bar="",
        what="",
        against="server-side binary COPY of the same rows",
        unit="k/s",
        subject=rates(subject),
        limit=rates(limit),
        memory_bytes=memory_peak(subject),
        settings={
            **_settings(scale.customers),
            "limit": "COPY FROM files, the three tables in one transaction, same keys and indexes",
        },
    )


def into_sqlite(servers: Servers, scale: Scale, _: frozenset[str]) -> Iterator[Result]:
    """P9."""
    subject, limit = [], []
    for _run in range(scale.runs):
        with (
            stage(servers, {_STORE: "sqlite"}) as on,
            tenten(on, "channel", "distribute", _STORE) as process,
            observer(on.channel_url(_STORE)) as ask,
        ):
            _warm_up(on, process, ask, scale)
            for table in TABLES:
                ask(f"DELETE FROM {table.name}")  # noqa: S608 - our own names
            subject.append(_measure(on, process, ask, scale.rows, 1))
            limit.append(limits.insert_rows(on.directory, on.sqlite_file(_STORE)))
    yield Result(
        bar="P9",
        what="distribution into SQLite, empty tables, a clerk may write meanwhile",
        against="executemany of the same ready rows",
        unit="k/s",
        subject=rates(subject),
        limit=rates(limit),
        at_least=AT_LEAST_P9,
        memory_bytes=memory_peak(subject),
        settings={
            **_settings(scale.rows),
            "limit": f"the three tables in one transaction, same keys and indexes; {'; '.join(limits.SQLITE)}",
        },
    )


def _settings(customers: int) -> Settings:
    return {"customers": customers, "partitions": PARTITIONS, "process": "tenten channel distribute"}


def _warm_up(on: Stage, process: Process, ask: Ask, scale: Scale) -> None:
    _release_and_wait(on, process, ask, snapshots(scale.warm_up, 1, seed=_WARM_UP_SEED))


def _measure(on: Stage, process: Process, ask: Ask, count: int, version: int) -> Run:
    checkpoint(on.servers)
    seconds = _release_and_wait(on, process, ask, snapshots(count, version))
    found = ask(_COUNT)
    if found != [(count, version, version)]:
        raise BenchmarkFailed(f"expected {count} customers of version {version} in the channel, found {found}")
    return Run(records=count, seconds=seconds, memory_bytes=process.memory_peak_bytes())


def _release_and_wait(on: Stage, process: Process, ask: Ask, records: Iterator[Record]) -> float:
    """Seconds from the commit of the snapshots until the channel's positions are past the last of them."""
    filling = Filling(on.servers.bootstrap_servers, on.settings.topic(CUSTOMERS), records, "Customer")
    started_at = filling.release()

    def is_past() -> bool:
        positions: dict[int, int] = dict(ask(_POSITIONS))
        return all(positions.get(partition, -1) >= offset for partition, offset in filling.next_offsets.items())

    return wait_until(is_past, [process]) - started_at
