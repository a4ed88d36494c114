"""Kafka and PostgreSQL together, in one directory: what `tenten local start`, `stop` and `status` and the demo use.

services.json        the addresses
kafka/  postgres/    one server each
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from tenten.local.kafka import kafka_status, start_kafka, stop_kafka
from tenten.local.postgres import address_of, postgres_status, start_postgres, stop_postgres


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServices:
    """Where the local servers are; `postgresql` is the address of the database `postgres`, for libpq and SQLAlchemy."""

    bootstrap_servers: str
    postgresql: str
    directory: Path


def start(directory: Path, report: Callable[[str], None]) -> LocalServices:
    """Start both servers, in the background, and wait until they answer; what runs already stays as it is.

    A server that has died comes back with its data, and where possible at its old address. `report` is given a line
    for each thing that takes seconds.

    Raises: NotInstalled, LocalServiceFailure.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / "services.lock"):
        postgres = start_postgres(directory / "postgres", report)
        kafka = start_kafka(directory / "kafka", report)
        services = LocalServices(
            bootstrap_servers=kafka.bootstrap_servers, postgresql=postgres.postgresql, directory=directory
        )
        (directory / "services.json").write_text(json.dumps(asdict(services), default=str))
    return services


def stop(directory: Path) -> bool:
    """Stop both servers and keep their data; False when neither was running. No other process is touched."""
    directory = directory.absolute()
    if not directory.exists():
        return False
    with FileLock(directory / "services.lock"):
        stopped = [stop_kafka(directory / "kafka"), stop_postgres(directory / "postgres")]
    return any(stopped)


def status(directory: Path) -> LocalServices | None:
    """Where the servers of this directory are; None unless both are running."""
    directory = directory.absolute()
    if kafka_status(directory / "kafka") is None or postgres_status(directory / "postgres") is None:
        return None
    noted = json.loads((directory / "services.json").read_text())
    return LocalServices(**{**noted, "directory": directory})


def database_url(services: LocalServices, name: str) -> str:
    """The address of a database on the local PostgreSQL server, whether it exists yet or not."""
    return address_of(services.postgresql, name)
