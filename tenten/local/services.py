"""Kafka and PostgreSQL together, in one directory, for `tenten local` and the demo.

services.json        the addresses
kafka/  postgres/    one server each
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from tenten.local.directories import create_directory, write_private
from tenten.local.kafka import kafka_status, start_kafka, stop_kafka
from tenten.local.postgres import address_of, delete_postgres, postgres_status, start_postgres, stop_postgres


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServices:
    """Addresses of the local servers; `postgresql` is that of the database `postgres`, for libpq and SQLAlchemy."""

    bootstrap_servers: str
    postgresql: str
    directory: Path


def start(directory: Path, report: Callable[[str], None]) -> LocalServices:
    """Start both servers in the background and wait until they answer. A running server is left as it is.

    A server that has died is started with its data, if possible at its old address. `report` is called with a line
    for each step that takes seconds.

    Raises: NotInstalled, LocalServiceFailure.
    """
    directory = create_directory(directory)
    with FileLock(directory / "services.lock"):
        postgres = start_postgres(directory / "postgres", report)
        kafka = start_kafka(directory / "kafka", report)
        services = LocalServices(
            bootstrap_servers=kafka.bootstrap_servers, postgresql=postgres.postgresql, directory=directory
        )
        write_private(directory / "services.json", json.dumps(asdict(services), default=str))
    return services


def stop(directory: Path) -> bool:
    """Stop both servers and keep their data; False if neither was running. No other process is ended."""
    directory = directory.absolute()
    if not directory.exists():
        return False
    with FileLock(directory / "services.lock"):
        stopped = [stop_kafka(directory / "kafka"), stop_postgres(directory / "postgres")]
    return any(stopped)


def delete(directory: Path) -> None:
    """Stop both servers and delete the directory with their data."""
    stop(directory)
    delete_postgres(directory.absolute() / "postgres")
    shutil.rmtree(directory, ignore_errors=True)


def status(directory: Path) -> LocalServices | None:
    """The servers of this directory; None unless both are running."""
    directory = directory.absolute()
    if kafka_status(directory / "kafka") is None or postgres_status(directory / "postgres") is None:
        return None
    return started_last(directory)


def started_last(directory: Path) -> LocalServices | None:
    """The servers that were started in this directory, whether they still run or not; None if none ever were."""
    file = directory.absolute() / "services.json"
    if not file.exists():
        return None
    return LocalServices(**{**json.loads(file.read_text()), "directory": directory.absolute()})


def database_url(services: LocalServices, name: str) -> str:
    """The address of a database on the local PostgreSQL server, whether it exists yet or not."""
    return address_of(services.postgresql, name)
