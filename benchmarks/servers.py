"""Temporary Kafka and PostgreSQL servers with default settings, in a temporary directory."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from tenten import local

_ENVIRONMENT: Final = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "SCHEMA_REGISTRY_URL",
    "TENTEN_HEADQUARTERS_URL",
    "TENTEN_CONFIG",
    "TENTEN_FAILPOINT",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers' addresses, and a directory for the files of benchmarks."""

    bootstrap_servers: str
    postgresql: str
    """The address of the database `postgres`."""
    directory: Path
    broker_pid: int | None = None
    """The broker's process, if it is on this machine: its CPU is measured."""
    postmaster_pid: int | None = None
    """PostgreSQL's first process, likewise."""
    client_properties: Mapping[str, str] = field(default_factory=dict)
    """Properties of the product's Kafka clients, beyond its own."""
    broker_properties: Mapping[str, str] = field(default_factory=dict)
    """Properties of the broker, beyond those of local brokers."""

    def rows_directory(self) -> Path:
        """A directory for files of rows that is writable for PostgreSQL, too, which may run as another user."""
        rows = self.directory / "rows"
        rows.mkdir(exist_ok=True)
        rows.chmod(0o777)
        return rows


@contextmanager
def own_servers(
    report: Callable[[str], None], client_properties: Mapping[str, str], broker_properties: Mapping[str, str]
) -> Iterator[Servers]:
    """Start both servers, and remove settings of other servers from the environment."""
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)
    directory = local.temporary_directory("tenten-bench-")
    try:
        kafka = local.start_kafka(directory / "servers" / "kafka", report, broker_properties, java_options=())
        postgres = local.start_postgres(directory / "servers" / "postgres", report)
        yield Servers(
            bootstrap_servers=kafka.bootstrap_servers,
            postgresql=postgres.postgresql,
            directory=directory,
            broker_pid=kafka.pid,
            postmaster_pid=postgres.pid,
            client_properties=client_properties,
            broker_properties=broker_properties,
        )
    finally:
        local.delete(directory / "servers")
        shutil.rmtree(directory, ignore_errors=True)


def checkpoint(servers: Servers) -> None:
    """Run a PostgreSQL checkpoint, so that none falls into the next measurement."""
    with psycopg.connect(servers.postgresql, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
