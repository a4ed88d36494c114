"""Waiting until another connection has committed something, on PostgreSQL and SQLite."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    """Each of the two databases, with a table."""
    sqlite = f"sqlite:///{tmp_path / 'test.db'}"
    opened = open_database(request.getfixturevalue("new_database")() if request.param == "postgresql" else sqlite)
    with opened.begin() as connection:
        connection.execute(text("CREATE TABLE things (number integer)"))
    yield opened
    opened.dispose()


def commit(engine: Engine, channel: str = CHANNEL) -> None:
    """Write something, and tell of it as PostgreSQL needs it."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO things VALUES (1)"))
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"NOTIFY {channel}"))


def test_a_commit_ends_the_waiting(engine: Engine) -> None:
    """Whoever waits an hour is awake as soon as another connection has written."""
    with listening(engine, "tenten_other", CHANNEL) as wake, ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(wake.wait, FOREVER_SECONDS)
        commit(engine)
        waiting.result(timeout=DEADLINE_SECONDS)


def test_what_was_committed_before_the_waiting_ends_it_at_once(engine: Engine) -> None:
    """Nothing falls between looking and waiting."""
    with listening(engine, CHANNEL) as wake, ThreadPoolExecutor(1) as waiter:
        commit(engine)
        waiter.submit(wake.wait, FOREVER_SECONDS).result(timeout=DEADLINE_SECONDS)


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_without_a_commit_the_time_ends_the_waiting(engine: Engine, seconds: float) -> None:
    """It comes back all the same."""
    with listening(engine, CHANNEL) as wake:
        wake.wait(seconds)


def test_the_stop_event_ends_the_waiting(engine: Engine) -> None:
    """A process that is asked to end does."""
    stop = Event()
    with listening(engine, CHANNEL) as wake, ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(wake.wait, FOREVER_SECONDS, stop)
        stop.set()
        waiting.result(timeout=DEADLINE_SECONDS)


def test_a_connection_can_serve_others_afterwards(new_database: NewDatabase) -> None:
    """It goes back to the pool, listens no more, and holds nothing that it was told."""
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
