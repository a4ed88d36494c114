"""The limits: the rates of the parts alone. Fixed, so that a slow limit cannot improve a ratio.

COPY is server-side and binary, from files, in one transaction, into tables with the same keys and indexes.
`executemany` inserts prepared rows. Producing has the bytes in memory. PostgreSQL and SQLite are
configured as for the subject.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import psycopg
from confluent_kafka import Producer
from psycopg import sql
from sqlalchemy import Table

from benchmarks.customers import Record
from benchmarks.measuring import Run
from benchmarks.servers import Servers
from tenten.local import create_database
from tenten.schemas.tables.channel import customer_addresses, customer_contacts, customers
from tenten.sql.engine import open_database
from tenten.sql.migrations import upgrade_channel

TABLES: Final = (customers, customer_addresses, customer_contacts)

PRODUCER: Final[dict[str, str | int | bool]] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 20,
    "delivery.report.only.error": True,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 524_288,
}
SQLITE: Final = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")

_DATABASE: Final = "limit"
_SECONDS: Final = 60.0


def export_rows(url: str, directory: Path) -> None:
    """Write the rows of a channel's tables to files in PostgreSQL's binary COPY format."""
    with psycopg.connect(url) as connection:
        for table in TABLES:
            file = _file(directory, table)
            file.unlink(missing_ok=True)
            connection.execute(_copy("COPY {} TO {} (FORMAT BINARY)", table, file))


def copy_rows(servers: Servers, directory: Path) -> Run:
    """Copy these files into the empty tables of a channel's database."""
    url = create_database(servers.services.postgresql, _DATABASE)
    engine = open_database(url)
    upgrade_channel(engine)
    engine.dispose()
    with psycopg.connect(url, autocommit=True) as connection:
        names = sql.SQL(", ").join(sql.Identifier(table.name) for table in TABLES)
        connection.execute(sql.SQL("TRUNCATE {}").format(names))
        connection.execute("CHECKPOINT")
        started_at = time.perf_counter()
        with connection.transaction():
            counts = [
                connection.execute(_copy("COPY {} FROM {} (FORMAT BINARY)", table, _file(directory, table))).rowcount
                for table in TABLES
            ]
        return Run(records=counts[0], seconds=time.perf_counter() - started_at)


def _copy(statement: str, table: Table, file: Path) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier(table.name), sql.Literal(str(file)))


def _file(directory: Path, table: Table) -> Path:
    return directory / f"{table.name}.copy"


def insert_rows(directory: Path, rows: Sequence[Sequence[tuple[object, ...]]]) -> Run:
    """Insert prepared rows, a list per table, into the empty tables of a SQLite channel in one transaction."""
    file = directory / "limit.db"
    engine = open_database(f"sqlite:///{file}")
    upgrade_channel(engine)
    engine.dispose()
    connection = sqlite3.connect(file)
    for pragma in SQLITE:
        connection.execute(pragma)
    started_at = time.perf_counter()
    for table, table_rows in zip(TABLES, rows, strict=True):
        parameters = ", ".join("?" * len(table.columns))
        connection.executemany(f"INSERT INTO {table.name} VALUES ({parameters})", table_rows)  # noqa: S608 - our own names
    connection.commit()
    ended_at = time.perf_counter()
    connection.close()
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        (directory / name).unlink(missing_ok=True)
    return Run(records=len(rows[0]), seconds=ended_at - started_at)


def produce_records(servers: Servers, topic: str, records: Iterable[Record]) -> Run:
    """Produce these records with their headers, from memory, until the broker has acknowledged all of them."""
    producer = Producer({"bootstrap.servers": servers.bootstrap_servers, **PRODUCER})
    producer.list_topics(topic, timeout=_SECONDS)
    ready: list[tuple[bytes, bytes, list[tuple[str, str | bytes | None]]]] = [
        (record.value, record.key, [("id", record.event_id), ("type", "CustomerCreated")]) for record in records
    ]
    started_at = time.perf_counter()
    for value, key, headers in ready:
        while True:
            try:
                producer.produce(topic, value, key, headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush(_SECONDS)
    ended_at = time.perf_counter()
    producer.close()
    return Run(records=len(ready), seconds=ended_at - started_at)
