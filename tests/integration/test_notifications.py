"""Waiting for another connection's commit, on PostgreSQL and SQLite."""

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import cast

import psycopg
import pytest
from sqlalchemy import Engine, text

from tenten.sql.engine import open_database
from tenten.sql.notifications import listening
from tests.conftest import NewDatabase

CHANNEL = "tenten_test"
FOREVER_SECONDS = 3600.0
DEADLINE_SECONDS = 60.0


@pytest.fixture(params=["postgresql", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of each kind with a table."""
    sqlite = f"sqlite:///{tmp_path / 'test.db'}"
    opened = open_database(request.getfixturevalue("new_database")() if request.param == "postgresql" else sqlite)
    with opened.begin() as connection:
        connection.execute(text("CREATE TABLE things (number integer)"))
    yield opened
    opened.dispose()


def commit(engine: Engine, channel: str = CHANNEL) -> None:
    """Commit a row; on PostgreSQL with a notification."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO things VALUES (1)"))
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"NOTIFY {channel}"))


def test_commit_ends_the_wait(engine: Engine) -> None:
    """A wait of an hour ends as soon as another connection commits."""
    with listening(engine, "tenten_other", CHANNEL) as listener, ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(listener.wait, FOREVER_SECONDS)
        commit(engine)
        waiting.result(timeout=DEADLINE_SECONDS)


def test_commit_before_the_wait_ends_it_at_once(engine: Engine) -> None:
    """No commit is missed between reading and waiting."""
    with listening(engine, CHANNEL) as listener, ThreadPoolExecutor(1) as waiter:
        commit(engine)
        waiter.submit(listener.wait, FOREVER_SECONDS).result(timeout=DEADLINE_SECONDS)


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_wait_without_commit_times_out(engine: Engine, seconds: float) -> None:
    """The wait returns without an error."""
    with listening(engine, CHANNEL) as listener:
        listener.wait(seconds)


def test_stop_event_ends_the_wait(engine: Engine) -> None:
    """A process that is asked to stop does not wait."""
    stop = Event()
    with listening(engine, CHANNEL) as listener, ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(listener.wait, FOREVER_SECONDS, stop)
        stop.set()
        waiting.result(timeout=DEADLINE_SECONDS)


def test_connection_is_reusable_afterwards(new_database: NewDatabase) -> None:
    """It returns to the pool without a LISTEN and without pending notifications."""
    engine = open_database(new_database())
    # given
    with listening(engine, CHANNEL), engine.begin() as connection:
        connection.execute(text(f"NOTIFY {CHANNEL}"))
    # when
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # then
        assert connection.scalars(text("SELECT pg_listening_channels()")).all() == []
        driver = cast("psycopg.Connection", connection.connection.driver_connection)
        assert list(driver.notifies(timeout=0)) == []
    engine.dispose()


def test_unwatchable_database_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system offers no watch, the wait ends all the same."""
    monkeypatch.setattr("tenten.sql.notifications.watch", lambda _: None)
    opened = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    with opened.begin() as connection:
        connection.execute(text("CREATE TABLE things (number integer)"))
    with listening(opened, CHANNEL) as listener, ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(listener.wait, FOREVER_SECONDS)
        commit(opened)
        assert waiting.result(timeout=DEADLINE_SECONDS)
    opened.dispose()


def test_waiting_for_sqlite_does_not_poll(tmp_path: Path) -> None:
    """A wait of a second needs a few system calls: the watched file wakes it."""
    opened = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    with opened.begin() as connection:
        connection.execute(text("CREATE TABLE things (number integer)"))
    with listening(opened, CHANNEL) as listener:
        # when
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        is_committed = listener.wait(1.0)
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    # then
    assert not is_committed
    assert switches < 20
    opened.dispose()


def test_transaction_that_wrote_nothing_wakes_nobody(tmp_path: Path) -> None:
    """Neither does one that is rolled back."""
    opened = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    with opened.begin() as connection:
        connection.execute(text("CREATE TABLE things (number integer)"))
    with listening(opened, CHANNEL) as listener:
        with opened.begin() as connection:
            connection.execute(text("SELECT * FROM things"))
        with suppress(ZeroDivisionError), opened.begin() as connection:
            connection.execute(text("INSERT INTO things VALUES (1)"))
            raise ZeroDivisionError
        assert not listener.wait(0.1)
    opened.dispose()
