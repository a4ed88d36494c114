"""Locks across processes: advisory locks of PostgreSQL, lock files next to a SQLite database."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Final

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from tenten.runtime.errors import LockHeld
from tenten.runtime.private_files import FILE_MODE
from tenten.sql.postgresql_driver import driver_cursor
from tenten.sql.try_until import POLL_SECONDS, try_until


class DatabaseLock:
    """A lock that this process holds against others until it is released or the process ends."""

    def __init__(self, connection: Connection | None) -> None:
        self._connection = connection

    def is_held(self) -> bool:
        """Whether the lock is still held: PostgreSQL releases it when its connection breaks."""
        if self._connection is None:
            return True
        try:
            self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True


@contextmanager
def apply_lock(engine: Engine, wait_seconds: float | None = None) -> Generator[DatabaseLock]:
    """The right to apply snapshots to a channel's database. Waits without limit by default.

    Raises: `LockHeld`.
    """
    with _lock(engine, "apply", wait_seconds, "distribution, resync or repair") as held:
        yield held


@contextmanager
def try_apply_lock(connection: Connection) -> Generator[bool]:
    """Begin a transaction; whether it may apply snapshots until its end. Does not wait for the lock."""
    if connection.dialect.name == "postgresql":
        with connection.begin(), driver_cursor(connection) as cursor:
            held = cursor.execute(_TRY_LOCK, (_lock_key("apply"),), prepare=True).fetchone()
            yield held == (True,)
    else:
        with _file_lock(connection.engine, "apply", 0) as file, connection.begin():
            yield file is not None


# The same lock as `apply_lock`, which the end of the transaction releases.
_TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(%s::bigint)"


@contextmanager
def relay_lock(engine: Engine, wait_seconds: float | None = 2) -> Generator[DatabaseLock]:
    """The right to relay a channel's outbox. Waits 2 s by default: a killed process's lock is not free at once.

    Raises: `LockHeld`.
    """
    with _lock(engine, "relay", wait_seconds, "relay") as held:
        yield held


@contextmanager
def resync_lock(engine: Engine, wait_seconds: float | None = 2) -> Generator[DatabaseLock]:
    """The right to resync a channel. Waits 2 s by default: a killed process's lock is not free at once.

    Raises: `LockHeld`.
    """
    with _lock(engine, "resync", wait_seconds, "resync") as held:
        yield held


@contextmanager
def _lock(engine: Engine, name: str, wait_seconds: float | None, process: str) -> Generator[DatabaseLock]:
    lock = _postgresql_lock if engine.dialect.name == "postgresql" else _file_lock
    with lock(engine, name, wait_seconds) as held:
        if held is None:
            raise LockHeld(f"a {process} of this channel is already running: stop it first, or let it do the work")
        yield held


@contextmanager
def _postgresql_lock(engine: Engine, name: str, wait_seconds: float | None) -> Generator[DatabaseLock | None]:
    """A session-level advisory lock on a connection of its own, outside any transaction; None when it is held."""
    key = {"key": _lock_key(name)}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if wait_seconds is None:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        elif not try_until(wait_seconds, lambda: try_advisory_lock(connection, name)):
            yield None
            return
        try:
            yield DatabaseLock(connection)
        finally:
            # A broken connection has released its locks.
            with suppress(SQLAlchemyError):
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


def try_advisory_lock(connection: Connection, name: str) -> bool:
    """Whether this connection now holds PostgreSQL's session-level advisory lock of that name. Does not wait."""
    return bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _lock_key(name)}))


def try_shared_advisory_lock(connection: Connection, name: str) -> bool:
    """Whether this connection now shares that lock, which any number of connections can, but nobody beside an exclusive
    one. Does not wait.
    """
    return bool(connection.scalar(text("SELECT pg_try_advisory_lock_shared(:key)"), {"key": _lock_key(name)}))


def _lock_key(name: str) -> int:
    return int.from_bytes(blake2b(f"tenten.{name}".encode(), digest_size=8).digest(), signed=True)


@contextmanager
def _file_lock(engine: Engine, name: str, wait_seconds: float | None) -> Generator[DatabaseLock | None]:
    """A lock on a file next to the database, released by the system when a process dies; None if it is held."""
    file = FileLock(f"{engine.url.database}.{name}.lock", mode=FILE_MODE)
    try:
        file.acquire(timeout=-1 if wait_seconds is None else wait_seconds, poll_interval=POLL_SECONDS)
    except Timeout:
        yield None
        return
    try:
        yield DatabaseLock(None)
    finally:
        file.release()
