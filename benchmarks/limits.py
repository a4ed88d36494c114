"""The limits: the rates of the parts alone. Fixed, so that a slow limit cannot improve a ratio.

COPY is server-side and binary, from files, in one transaction, into tables with the same keys and indexes.
`executemany` inserts prepared rows. Producing has the bytes in memory. PostgreSQL and SQLite are
configured as for the subject.
"""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
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
_ROWS: Final = 50_000


def export_rows(url: str, directory: Path) -> None:
    """Write the rows of a channel's tables to files in PostgreSQL's binary COPY format."""
    with psycopg.connect(url) as connection:
        for table in TABLES:
            file = _file(directory, table)
            file.unlink(missing_ok=True)
            connection.execute(_copy("COPY {} TO {} (FORMAT BINARY)", table, file))


def copy_rows(servers: Servers, directory: Path) -> Run:
    """Copy these files into the empty tables of a channel's database."""
    url = create_database(servers.postgresql, _DATABASE)
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


def insert_rows(directory: Path, source: Path) -> Run:
    """Insert the rows of a channel's file into the empty tables of another one, in one transaction.

    The clock runs while rows are inserted and committed, not while they are read.
    """
    file = directory / "limit.db"
    engine = open_database(f"sqlite:///{file}")
    upgrade_channel(engine)
    engine.dispose()
    seconds = 0.0
    with closing(sqlite3.connect(file)) as connection, closing(sqlite3.connect(source)) as reading:
        for pragma in SQLITE:
            connection.execute(pragma)
        for table in TABLES:
            columns = ", ".join(column.name for column in table.columns)
            values = ", ".join("?" * len(table.columns))
            statement = f"INSERT INTO {table.name} ({columns}) VALUES ({values})"  # noqa: S608 - our own names
            rows = reading.execute(f"SELECT {columns} FROM {table.name}")  # noqa: S608 - our own names
            while prepared := rows.fetchmany(_ROWS):
                started_at = time.perf_counter()
                connection.executemany(statement, prepared)
                seconds += time.perf_counter() - started_at
        started_at = time.perf_counter()
        connection.commit()
        seconds += time.perf_counter() - started_at
        (records,) = connection.execute(f"SELECT count(*) FROM {TABLES[0].name}").fetchone()  # noqa: S608 - our own names
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        (directory / name).unlink(missing_ok=True)
    return Run(records=records, seconds=seconds)


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
