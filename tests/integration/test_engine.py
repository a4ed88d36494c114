"""Opening databases of both kinds, and their transactions."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import DatabaseRefused
from tenten.sql import headquarters_engine
from tenten.sql.engine import consistent_view
from tenten.sql.headquarters_engine import open_for_worker
from tests.opened_databases import add_topic, new_url, opened, store, topics
from tests.threads import errors_of_threads

__all__ = ["new_url", "store"]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'store.db'}"


def test_postgresql_refusal_has_advice(postgresql: str) -> None:
    """A missing database is an error at once; the message has its address without the password."""
    # given
    nowhere = make_url(postgresql).set(database="nowhere", password="secret")

    # when
    with opened(nowhere.render_as_string(hide_password=False)) as engine, pytest.raises(DatabaseRefused) as refused:
        engine.connect()

    # then
    assert "does not have this database: create it, or correct the address" in str(refused.value)
    assert "/nowhere" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_postgresql_database_that_was_there_may_return(headquarters_url: str) -> None:
    """Renamed, or dropped to be restored: an error that is retried. A wrong address never was there."""
    name = str(make_url(headquarters_url).database)
    with opened(headquarters_url) as engine, opened(headquarters_url.replace(name, "postgres")) as other:
        # given
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
        administrator = other.connect().execution_options(isolation_level="AUTOCOMMIT")
        rename = 'ALTER DATABASE "{}" RENAME TO "{}"'
        engine.dispose()

        # when
        administrator.execute(text(rename.format(name, f"{name}_away")))
        with pytest.raises(OperationalError) as away:
            engine.connect()
        administrator.execute(text(rename.format(f"{name}_away", name)))
        administrator.close()

        # then
        assert is_transient(away.value)
        with engine.begin() as connection:
            assert connection.scalar(text("SELECT 1")) == 1


def test_unavailable_postgresql_is_transient(tmp_path: Path) -> None:
    """A server that does not answer may return."""
    # when
    with opened(f"postgresql://postgres@/store?host={tmp_path}") as engine, pytest.raises(OperationalError) as away:
        engine.connect()

    # then
    assert is_transient(away.value)


def test_broken_postgresql_connection_is_replaced(headquarters_url: str) -> None:
    """After the server ended a pooled connection, the next transaction succeeds."""
    with opened(headquarters_url) as engine, opened(headquarters_url) as other:
        # given
        with engine.begin() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
        with other.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

        # when
        with engine.begin() as connection:
            answer = connection.scalar(text("SELECT 1"))

        # then
        assert answer == 1


def test_options_of_the_address_are_added_to_the_defaults(headquarters_url: str) -> None:
    """A search path or time zone in the address leaves the other options unchanged."""
    theirs = quote("-c timezone=Europe/Berlin -c search_path=public")
    with opened(f"{headquarters_url}&options={theirs}") as engine, engine.begin() as connection:
        # when
        names = ("timezone", "search_path", "plan_cache_mode", "idle_in_transaction_session_timeout")
        found = [connection.scalar(text(f"SHOW {name}")) for name in names]

        # then
        assert found == ["Europe/Berlin", "public", "force_custom_plan", "30s"]


def test_postgresql_sessions_have_time_outs(headquarters_url: str) -> None:
    """A frozen process does not hold locks for ever; parameters of the address take precedence."""
    with opened(headquarters_url) as engine, opened(f"{headquarters_url}&application_name=till-3") as named:
        # when
        with engine.begin() as connection:
            ours = {
                name: connection.scalar(text(f"SHOW {name}"))
                for name in ("application_name", "timezone", "idle_in_transaction_session_timeout")
            }
        with named.begin() as connection:
            name = connection.scalar(text("SHOW application_name"))

        # then
        assert ours == {"application_name": "tenten", "timezone": "UTC", "idle_in_transaction_session_timeout": "30s"}
        assert name == "till-3"


def test_headquarters_on_an_older_postgresql_is_refused(headquarters_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the version that is needed."""
    monkeypatch.setattr(headquarters_engine, "SERVER_VERSION_MIN", 99)
    engine = open_for_worker(headquarters_url)

    with pytest.raises(DatabaseRefused, match="it needs 99 or newer"):
        engine.connect()


def test_server_ends_a_workers_transaction_that_takes_too_long(
    headquarters_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is frozen within a statement loses its locks; when it wakes up, its error is transient."""
    # given
    monkeypatch.setattr(headquarters_engine, "TRANSACTION_SECONDS_MAX", 1)
    engine = open_for_worker(headquarters_url)

    # when
    with pytest.raises(DBAPIError) as failure, engine.begin() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))

    # then
    assert is_transient(failure.value)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("content", "advice"),
    [(b"no database " * 100, "is not a SQLite database: correct the address"), (None, "its directory must exist")],
)
def test_sqlite_refusal_has_advice(tmp_path: Path, content: bytes | None, advice: str) -> None:
    """A file of another format, or a missing directory, is an error at once; the message has the path."""
    # given
    file = tmp_path / ("file" if content else "nowhere/file")
    if content:
        file.write_bytes(content)

    # when
    with opened(f"sqlite:///{file}") as engine, pytest.raises(DatabaseRefused) as refused:
        engine.connect()

    # then
    assert f"{file} " in str(refused.value)
    assert advice in str(refused.value)


def test_sqlite_uses_wal_with_full_synchronization(sqlite_url: str) -> None:
    """A till that loses power keeps its commits, and readers are not blocked: on every connection."""
    with opened(sqlite_url) as engine, engine.begin() as connection, engine.connect() as second:
        # when
        modes = [
            (each.exec_driver_sql("PRAGMA journal_mode").scalar(), each.exec_driver_sql("PRAGMA synchronous").scalar())
            for each in (connection, second.execution_options(isolation_level="AUTOCOMMIT"))
        ]

        # then
        assert modes == [("wal", 2), ("wal", 2)]


def test_concurrent_sqlite_writers_lose_no_update(sqlite_url: str) -> None:
    """Transactions that read and then write wait for each other; none overwrites another or fails."""
    # given
    barrier = threading.Barrier(8, timeout=60)
    with opened(sqlite_url) as engine, engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter (value INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))

    def count() -> None:
        with opened(sqlite_url) as engine:
            barrier.wait()
            for _ in range(10):
                with engine.begin() as connection:
                    value = connection.scalar(text("SELECT value FROM counter"))
                    connection.execute(text("UPDATE counter SET value = :next"), {"next": (value or 0) + 1})

    # when
    failures = errors_of_threads(8, count)

    # then
    assert failures == []
    with opened(sqlite_url) as engine, engine.begin() as connection:
        assert connection.scalar(text("SELECT value FROM counter")) == 80


def test_continuous_writers_do_not_starve_others(sqlite_url: str) -> None:
    """While two threads write one transaction after the other, a till's transactions wait less than 2 s each."""
    # given
    stop = threading.Event()

    def write_continuously() -> None:
        with opened(sqlite_url) as engine:
            while not stop.is_set():
                with engine.begin() as connection:
                    connection.execute(text("INSERT INTO sale (store) VALUES (1)"))
                    stop.wait(0.02)

    with opened(sqlite_url) as engine, engine.begin() as connection:
        connection.execute(text("CREATE TABLE sale (store integer)"))
    busy = [threading.Thread(target=write_continuously) for _ in range(2)]
    for thread in busy:
        thread.start()
    # when
    waited_seconds = []
    try:
        with opened(sqlite_url) as engine:
            for _ in range(20):
                began = time.monotonic()
                with engine.begin() as connection:
                    connection.execute(text("INSERT INTO sale (store) VALUES (2)"))
                waited_seconds.append(time.monotonic() - began)
                stop.wait(0.05)
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    # then
    assert max(waited_seconds) < 2


def test_new_sqlite_file_can_be_opened_concurrently(tmp_path: Path) -> None:
    """Switching a new file to WAL does not fail concurrent connections."""
    # given
    barrier = threading.Barrier(8, timeout=60)

    def open_each() -> None:
        for number in range(15):
            barrier.wait()
            with opened(f"sqlite:///{tmp_path / str(number)}.db") as engine, engine.begin() as connection:
                connection.execute(text("CREATE TABLE IF NOT EXISTS customers (id INTEGER)"))

    # when
    failures = errors_of_threads(8, open_each)

    # then
    assert failures == []


def test_consistent_view_ignores_later_commits(store: Engine) -> None:
    """Two queries in one view see the same state, and the writer in between does not wait."""
    # given
    with store.begin() as connection:
        add_topic(connection, "before")

    # when
    with consistent_view(store) as view:
        first = topics(view)
        with store.begin() as writer:
            add_topic(writer, "while")
        second = topics(view)
    with consistent_view(store) as view:
        third = topics(view)

    # then
    assert first == second == ["before"]
    assert third == ["before", "while"]


def test_failed_transaction_is_rolled_back(store: Engine) -> None:
    """Nothing that a failed transaction wrote is visible."""
    # when
    with suppress(ZeroDivisionError), store.begin() as connection:
        add_topic(connection, "customers")
        raise ZeroDivisionError

    # then
    with store.begin() as connection:
        assert topics(connection) == []
