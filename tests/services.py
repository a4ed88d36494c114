"""Where the tests' Kafka and PostgreSQL come from: what is configured, else Docker, else servers of this machine.

Real ones every time. None of these yields nothing: a broker that cannot be had is a failure, never a reason to skip.
"""

import atexit
import gc
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tenten import local
from tenten.local.ports import free_port
from tenten.schemas.topics import ALL
from tests.databases import directory_of_run, drop_templates
from tests.java_cache import make_java_cache, use_java_cache

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

KAFKA_IMAGE = f"apache/kafka:{local.KAFKA_VERSION}"
POSTGRES_IMAGE = "postgres:18.4"
_READY_SECONDS_MAX = 90.0
_POSTGRES_SETTINGS: Final = {
    "max_connections": "300",
    # Tests kill processes, not machines: what a process has written survives without being flushed to disk. Creating
    # and dropping a database makes a checkpoint, after which each page would be logged as a whole again.
    "fsync": "off",
    "full_page_writes": "off",
    # Databases live for seconds.
    "autovacuum": "off",
}


@contextmanager
def kafka_for_tests() -> Iterator[str]:
    """The bootstrap servers of a broker that answers. One on this machine serves the whole run; `end_run` ends it."""
    configured = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if configured:
        _wait_until(
            lambda: _kafka_answers(configured), f"Kafka at KAFKA_BOOTSTRAP_SERVERS={configured} does not answer"
        )
        yield configured
    elif docker_answers():
        with _kafka_container() as bootstrap_servers:
            yield bootstrap_servers
    else:
        make_java_cache()
        use_java_cache()
        yield local.start_kafka(_kafka_directory(), heap_megabytes=2_048).bootstrap_servers


@contextmanager
def postgresql_for_tests() -> Iterator[str]:
    """The address of a server's database; more may be created there. Ends as the broker does."""
    configured = os.environ.get("TENTEN_HEADQUARTERS_URL")
    if configured:
        _wait_until(lambda: _postgresql_answers(configured), "PostgreSQL at TENTEN_HEADQUARTERS_URL does not answer")
        yield configured
    elif docker_answers():
        with _postgresql_container() as url:
            yield url
    else:
        yield local.start_postgres(_postgres_directory(), settings=_POSTGRES_SETTINGS).postgresql


def delete_topics(bootstrap_servers: str, prefix: str) -> None:
    """Have the broker delete the topics with this prefix, without waiting for it. Missing topics do not matter.

    A broker looks through all of its partitions whenever it creates a topic.
    """
    if bootstrap_servers not in _admins:
        _admins[bootstrap_servers] = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    _admins[bootstrap_servers].delete_topics([prefix + topic.name for topic in ALL])


_admins: Final[dict[str, AdminClient]] = {}
"""The clients of this process that delete topics."""

atexit.register(_admins.clear)


def end_run() -> None:
    """End the servers that processes of this run have started on this machine, and remove what the run leaves."""
    local.stop_kafka(_kafka_directory(), grace_seconds=0)
    local.delete_postgres(_postgres_directory())
    drop_templates()
    shutil.rmtree(directory_of_run(), ignore_errors=True)


def _kafka_directory() -> Path:
    return directory_of_run() / "kafka"


def _postgres_directory() -> Path:
    return directory_of_run() / "postgres"


@contextmanager
def directory_for_server(name: str) -> Iterator[Path]:
    """A directory of its own for a server, short enough for a Unix socket, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix=f"tenten-{name}-"))
    # A server that root starts runs as another user, who passes through.
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def docker_answers() -> bool:
    """Whether a Docker engine can be reached."""
    # Importing Docker's client takes a second, and without an address it only tries this socket.
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    import docker
    from docker.errors import DockerException

    with warnings.catch_warnings():
        # Where there is no engine, Docker's client leaves the socket that it tried open.
        warnings.simplefilter("ignore", ResourceWarning)
        client = None
        with suppress(DockerException):
            client = docker.from_env(timeout=5)
        if client is None:
            gc.collect()
            return False
    client.close()
    return True


@contextmanager
def _kafka_container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(KAFKA_IMAGE)
    # The broker tells clients its address, so the port on this side must be known before it starts.
    port = free_port()
    bootstrap_servers = f"{container.get_container_host_ip()}:{port}"
    container.with_bind_ports(9092, port).with_envs(**kafka_environment(bootstrap_servers))
    with _started(container):
        _wait_until(lambda: _kafka_answers(bootstrap_servers), f"{KAFKA_IMAGE} does not answer at {bootstrap_servers}")
        yield bootstrap_servers


def kafka_environment(bootstrap_servers: str) -> dict[str, str]:
    """The variables that make a container of Kafka's image our broker, reached at this address."""
    properties = {
        **local.BROKER_PROPERTIES,
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://{bootstrap_servers}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "controller.quorum.voters": "1@localhost:9093",
    }
    return {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in properties.items()}


@contextmanager
def _postgresql_container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(POSTGRES_IMAGE).with_exposed_ports(5432)
    container.with_envs(POSTGRES_HOST_AUTH_METHOD="trust").with_command("-c fsync=off -c max_connections=200")
    with _started(container):
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(5432)}"
        url = f"postgresql://postgres@{address}/postgres"
        _wait_until(lambda: _postgresql_answers(url), f"{POSTGRES_IMAGE} does not answer at {address}")
        yield url


@contextmanager
def _started(container: "DockerContainer") -> Iterator[None]:
    container.start()
    try:
        yield
    finally:
        container.stop()


def _kafka_answers(bootstrap_servers: str) -> bool:
    try:
        return bool(
            AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0}).list_topics(timeout=5).brokers
        )
    except KafkaException:
        return False


def _postgresql_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise local.LocalServiceFailure(otherwise)
        time.sleep(0.2)
