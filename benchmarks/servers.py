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

    services: local.LocalServices
    directory: Path
    kafka: Mapping[str, str] = field(default_factory=dict)
    """Properties of the product's Kafka clients, beyond its own."""
    broker: Mapping[str, str] = field(default_factory=dict)
    """Properties of the broker, beyond those of local brokers."""

    @property
    def bootstrap_servers(self) -> str:
        """The broker's address."""
        return self.services.bootstrap_servers

    def postmaster_pid(self) -> int:
        """The process id of PostgreSQL's first process."""
        postgres = local.postgres_status(self.services.directory / "postgres")
        assert postgres is not None, "PostgreSQL has ended"
        return postgres.pid

    def broker_pid(self) -> int:
        """The process id of the broker."""
        kafka = local.kafka_status(self.services.directory / "kafka")
        assert kafka is not None, "Kafka has ended"
        return kafka.pid

    def rows_directory(self) -> Path:
        """A directory for files of rows that is writable for PostgreSQL, too, which may run as another user."""
        rows = self.directory / "rows"
        rows.mkdir(exist_ok=True)
        rows.chmod(0o777)
        return rows


@contextmanager
def own_servers(
    report: Callable[[str], None], kafka: Mapping[str, str], broker: Mapping[str, str]
) -> Iterator[Servers]:
    """Start both servers, and remove settings of other servers from the environment."""
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)
    directory = local.temporary_directory("tenten-bench-")
    try:
        local.start_kafka(directory / "servers" / "kafka", report, broker)
        services = local.start(directory / "servers", report)
        yield Servers(services=services, directory=directory, kafka=kafka, broker=broker)
    finally:
        local.delete(directory / "servers")
        shutil.rmtree(directory, ignore_errors=True)


def checkpoint(servers: Servers) -> None:
    """Run a PostgreSQL checkpoint, so that none falls into the next measurement."""
    with psycopg.connect(servers.services.postgresql, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
