"""Locks of a channel across processes, on both kinds of database."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from sqlalchemy import Engine, text

from tenten.runtime.errors import LockHeld
from tenten.sql.locks import DatabaseLock, apply_lock, relay_lock, resync_lock
from tests.opened_databases import DEADLINE_SECONDS, new_url, opened, store

__all__ = ["new_url", "store"]


_HOLD_LOCK = """
import sys, time
from tenten.sql.locks import apply_lock, relay_lock, resync_lock
from tenten.sql.engine import open_database
lock = {"apply": apply_lock, "relay": relay_lock, "resync": resync_lock}[sys.argv[1]]
with lock(open_database(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def _another_process_holds(name: str, engine: Engine) -> Iterator["subprocess.Popen[str]"]:
    url = engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD_LOCK, name, url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


@pytest.mark.parametrize(("name", "lock"), [("apply", apply_lock), ("relay", relay_lock), ("resync", resync_lock)])
def test_lock_is_refused_until_its_process_is_killed(
    name: str, lock: Callable[[Engine, float], AbstractContextManager[DatabaseLock]], store: Engine
) -> None:
    """While another process holds the lock it is refused; SIGKILL releases it."""
    with _another_process_holds(name, store) as holder:
        # when
        with pytest.raises(LockHeld) as refused, lock(store, 0):
            pass
        holder.send_signal(signal.SIGKILL)

        # then
        assert "is already running" in str(refused.value)
        with lock(store, DEADLINE_SECONDS) as held:
            assert held.is_held()


def test_locks_of_a_channel_are_independent(store: Engine) -> None:
    """Relay, distribution and resync run concurrently."""
    # when
    with relay_lock(store, 0) as relaying, apply_lock(store, 0) as applying, resync_lock(store, 0) as resyncing:
        # then
        assert relaying.is_held()
        assert applying.is_held()
        assert resyncing.is_held()


def test_lock_is_released_after_an_error(store: Engine) -> None:
    """A lock ends with its block, also when the block raises."""
    # given
    with pytest.raises(ZeroDivisionError), apply_lock(store):
        raise ZeroDivisionError

    # when
    with apply_lock(store, 0) as held:
        # then
        assert held.is_held()


def test_apply_lock_waits_until_it_is_free(store: Engine) -> None:
    """A second process waits without a limit, and acquires the lock after the first."""
    # given
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with apply_lock(store):
            order.append("second")

    # when
    thread = threading.Thread(target=second)
    with apply_lock(store):
        thread.start()
        waiting.wait(DEADLINE_SECONDS)
        order.append("first")
    thread.join(DEADLINE_SECONDS)

    # then
    assert order == ["first", "second"]


def test_postgresql_lock_ends_with_its_connection(headquarters_url: str) -> None:
    """`is_held` is false after the connection broke, and leaving the block is harmless."""
    # given
    end_holder = text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with opened(headquarters_url) as engine, opened(headquarters_url) as other, relay_lock(engine) as held:
        before = held.is_held()

        # when
        with other.begin() as connection:
            connection.execute(end_holder)
        after = [held.is_held(), held.is_held()]

        # then
        assert before
        assert after == [False, False]
        with relay_lock(other, 0) as taken_over:
            assert taken_over.is_held()
