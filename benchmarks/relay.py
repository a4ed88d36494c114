"""P8: the process `tenten channel relay`, from the commit of outbox rows until all of them are sent."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

import psycopg
from sqlalchemy import make_url

from benchmarks import limits
from benchmarks.customers import CHANNELS, Record, events
from benchmarks.databases import observer
from benchmarks.measuring import Database, Result, Run, Scale, memory_peak, rates
from benchmarks.processes import BenchmarkFailed, Process, tenten, wait_until
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import Stage, stage
from tenten.producers.outbox.table import WAKE_CHANNEL
from tenten.schemas.topics import ASYNC_CUSTOMERS

AT_LEAST: Final = 0.4

_STORE: Final = CHANNELS[0]
_WARM_UP_SEED: Final = 7
_COLUMNS: Final = "id, aggregatetype, aggregateid, type, payload, created_at"
_LAST_IS_SENT: Final = (
    "SELECT NOT EXISTS (SELECT 1 FROM outbox_queue WHERE sequence = (SELECT max(sequence) FROM outbox))"
)
_UNSENT: Final = "SELECT count(*) FROM outbox_queue"


def relay(servers: Servers, scale: Scale, _: frozenset[str]) -> Iterator[Result]:
    """P8 for a store on PostgreSQL and for a store on SQLite, against the same limit."""
    subjects: dict[Database, list[Run]] = {"postgresql": [], "sqlite": []}
    limit = []
    for _repeat in range(scale.runs):
        for database, measured in subjects.items():
            with stage(servers, {_STORE: database}) as on, tenten(on, "channel", "relay", _STORE) as process:
                measured.append(_run(on, process, database, scale))
        with stage(servers, {}) as on:
            topic = on.settings.topic(ASYNC_CUSTOMERS)
            limits.produce_records(servers, topic, events(scale.warm_up, seed=_WARM_UP_SEED))
            limit.append(limits.produce_records(servers, topic, events(scale.rows)))
    for database, measured in subjects.items():
        yield Result(
            bar="P8",
            what=f"relay, outbox in {'PostgreSQL' if database == 'postgresql' else 'SQLite'}",
            against="producing the same bytes without a database",
            unit="k/s",
            subject=rates(measured),
            limit=rates(limit),
            at_least=AT_LEAST,
            memory_bytes=memory_peak(measured),
            settings={
                "rows": scale.rows,
                "database": database,
                "process": "tenten channel relay",
                "limit: producer": limits.PRODUCER,
            },
        )


def _run(on: Stage, process: Process, database: Database, scale: Scale) -> Run:
    url = on.channel_url(_STORE)
    with observer(url) as ask:
        put = _put_into_postgresql if database == "postgresql" else _put_into_sqlite
        put(url, events(scale.warm_up, seed=_WARM_UP_SEED))
        wait_until(lambda: ask(_LAST_IS_SENT) == [(True,)], [process])
        checkpoint(on.servers)
        started_at = put(url, events(scale.rows))
        ended_at = wait_until(lambda: ask(_LAST_IS_SENT) == [(True,)], [process])
        if ask(_UNSENT) != [(0,)]:
            raise BenchmarkFailed("the relay has marked the last row as sent, but not all rows")
    return Run(records=scale.rows, seconds=ended_at - started_at, memory_bytes=process.memory_peak_bytes())


# The rows are inserted in one transaction; the clock starts just before its commit.


def _put_into_postgresql(url: str, records: Iterable[Record]) -> float:
    now = datetime.now(UTC)
    with psycopg.connect(url) as connection:
        (last,) = connection.execute("SELECT coalesce(max(sequence), 0) FROM outbox").fetchone() or (0,)
        with connection.cursor().copy(f"COPY outbox ({_COLUMNS}) FROM STDIN") as copy:
            for record in records:
                copy.write_row((*_row(record), now))
        connection.execute("INSERT INTO outbox_queue SELECT sequence FROM outbox WHERE sequence > %s", (last,))
        connection.execute(f"NOTIFY {WAKE_CHANNEL}")
        before_commit = perf_counter()
        connection.commit()
    return before_commit


def _put_into_sqlite(url: str, records: Iterable[Record]) -> float:
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    statement = f"INSERT INTO outbox ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own names
    rows = [(*_row(record), now) for record in records]
    with closing(sqlite3.connect(make_url(url).database or "", timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (last,) = connection.execute("SELECT coalesce(max(sequence), 0) FROM outbox").fetchone()
        connection.executemany(statement, rows)
        connection.execute("INSERT INTO outbox_queue SELECT sequence FROM outbox WHERE sequence > ?", (last,))
        before_commit = perf_counter()
        connection.execute("COMMIT")
    return before_commit


def _row(record: Record) -> tuple[str, str, str, str, bytes]:
    return (record.event_id, "customer", record.key.decode(), "CustomerCreated", record.value)
