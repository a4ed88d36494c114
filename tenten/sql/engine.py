"""PostgreSQL and SQLite, opened the same way.

PostgreSQL: a small pool; a broken connection is replaced when it is next used. SQLite: WAL, every commit is on disk
before it returns, and every writing transaction acquires the write lock at its start: a transaction that begins by
reading might never get it.
"""

import re
import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError

from tenten.runtime.errors import DatabaseRefused, NotInstalled
from tenten.runtime.private_files import create_private_file
from tenten.sql.postgresql_driver import driver_of, has_input
from tenten.sql.sqlite_queue import BUSY_SECONDS, WriterQueue, busy_at, writer_queue
from tenten.sql.try_until import try_until

if TYPE_CHECKING:
    import psycopg

_BUSY_POLL_SECONDS: Final = 0.001

_READING: Final = "tenten_reading"
"""Execution option of a connection whose transactions only read."""

_POSTGRESQL: Final = {
    "application_name": "tenten",
    "connect_timeout": 10,
    # Both ends notice a broken connection within half a minute instead of two hours: ...
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    # ... a dead or frozen process must not keep its locks.
    # No cached plans: the queue tables fill and empty all the time, and with a plan for an empty table ten thousand
    # rows take a minute.
    "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=30s -c plan_cache_mode=force_custom_plan "
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=25s",
}
"""Parameters of a connection; those in the address take precedence."""

_NO_DATABASE: Final = 'database ".*" does not exist'

_POSTGRESQL_REFUSALS: Final[Mapping[str, str]] = {
    "password authentication failed": "refuses the user or password: correct the address",
    "no password supplied": "asks for a password: write it into the address",
    "no pg_hba.conf entry": "does not let this user in from here: allow it in pg_hba.conf",
    "permission denied for database": "does not let this user into the database: GRANT CONNECT",
    'role ".*" does not exist': "does not have this user: create it, or correct the address",
    _NO_DATABASE: "does not have this database: create it, or correct the address",
}
"""By pattern of the text: errors while connecting have no code."""

_SQLITE_REFUSALS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: its directory must exist and be writable",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database: correct the address",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup, or start the channel with a new database",
    sqlite3.SQLITE_READONLY: "cannot be written: correct its permissions",
    sqlite3.SQLITE_PERM: "cannot be written: correct its permissions",
}


def open_database(url: str) -> Engine:
    """The database at a plain `postgresql://` or `sqlite:///` address. Connects at its first use, not here.

    A connection that can never succeed raises `DatabaseRefused` then. A database that is missing after it was there is
    an error that passes: it may be in the hands of a program that restores it.
    Raises: `NotInstalled`.
    """
    address = make_url(url)
    if address.drivername == "postgresql":
        return _open_postgresql(address)
    return _open_sqlite(address)


def _open_postgresql(address: URL) -> Engine:
    try:
        import psycopg
    except ImportError:
        raise NotInstalled("PostgreSQL's client", "postgresql") from None
    parameters = {name: value for name, value in _POSTGRESQL.items() if name not in address.query}
    if "options" in address.query:
        # PostgreSQL takes the last of several values.
        parameters["options"] = f"{_POSTGRESQL['options']} {address.query['options']}"
    # hide_parameters: values never reach an error's text, and so no log.
    engine = create_engine(address.set(drivername="postgresql+psycopg"), hide_parameters=True, connect_args=parameters)

    @event.listens_for(engine, "checkout")
    def checkout(driver: "psycopg.Connection[Any]", _: Any, __: Any) -> None:
        if not _is_usable(driver):
            # The pool replaces the connection.
            raise DisconnectionError

    was_there = False

    @event.listens_for(engine, "do_connect")
    def connect(_: Any, __: Any, arguments: tuple[Any, ...], parameters: dict[str, Any]) -> "psycopg.Connection[Any]":
        nonlocal was_there
        try:
            connection = psycopg.connect(*arguments, **parameters)
            was_there = True
            return connection
        except psycopg.OperationalError as error:
            for pattern, refusal in _POSTGRESQL_REFUSALS.items():
                if re.search(pattern, str(error)) and not (was_there and pattern == _NO_DATABASE):
                    shown = address.render_as_string(hide_password=True)
                    raise DatabaseRefused(f"PostgreSQL at {shown} {refusal}") from error
            raise

    return engine


def _is_usable(driver: "psycopg.Connection[Any]") -> bool:
    """Whether a connection of the pool is still open.

    An idle connection has nothing to read, unless the server has ended it or sent a notice: only then the server is
    asked, so an ordinary transaction costs no round trip more.
    """
    import psycopg

    try:
        if not driver.closed and has_input(driver.fileno()):
            driver.execute("SELECT 1")
            driver.rollback()
    except psycopg.OperationalError:
        return False
    return not driver.closed


def _open_sqlite(address: URL) -> Engine:
    queue = writer_queue(str(address.database))
    factory = partial(_SqliteConnection, queue=queue)
    engine = create_engine(address, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS, "factory": factory})

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _: Any, arguments: tuple[Any, ...], parameters: dict[str, Any]) -> sqlite3.Connection:
        # Otherwise SQLite would create it with the permissions of the umask. The -wal and -shm files take those of the
        # database. SQLite reports errors.
        with suppress(OSError):
            create_private_file(Path(str(address.database)))
        with _sqlite_refusals(address):
            connection: sqlite3.Connection = dialect.connect(*arguments, **parameters)
            try:
                if not try_until(BUSY_SECONDS, lambda: _switched_to_wal(connection)):
                    raise DatabaseRefused(f"{address.database} cannot be shared by processes: move it to a local disk")
                connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                connection.close()
                raise
            return connection

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") == "AUTOCOMMIT":
            return
        if options.get(_READING):
            connection.exec_driver_sql("BEGIN")
            return
        driver: sqlite3.Connection = driver_of(connection)
        with queue.turn():
            if not begin_immediate(driver):
                with without_waiting(driver):
                    # SQLAlchemy wraps the error.
                    connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class _SqliteConnection(sqlite3.Connection):
    """A connection that wakes the listeners of other connections after its commits."""

    def __init__(self, *arguments: Any, queue: WriterQueue, **parameters: Any) -> None:
        super().__init__(*arguments, **parameters)
        self._queue = queue
        self._changes = 0

    def commit(self) -> None:
        """Commit, and wake the listeners if something was written."""
        super().commit()
        if self._changes != self.total_changes:
            self._changes = self.total_changes
            self._queue.committed()


def begin_immediate(driver: sqlite3.Connection) -> bool:
    """Begin a transaction that has SQLite's write lock; False when it is not free within 10 s, or sooner (`busy_at`).

    Looks for the lock every millisecond: SQLite's own waiting sleeps up to 100 ms between two attempts.
    """
    deadline = busy_at()
    with without_waiting(driver):
        while time.monotonic() < deadline:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    return False
                time.sleep(_BUSY_POLL_SECONDS)
            else:
                return True
    return False


@contextmanager
def without_waiting(driver: sqlite3.Connection) -> Generator[None]:
    """Statements of the block do not wait for the lock."""
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")


@contextmanager
def _sqlite_refusals(address: URL) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        refusal = _SQLITE_REFUSALS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if refusal is None:
            raise
        raise DatabaseRefused(f"{address.database} {refusal}") from error


def _switched_to_wal(connection: sqlite3.Connection) -> bool:
    """Whether the file is in WAL mode. False while another connection is switching the mode (SQLite does not wait)."""
    try:
        return bool(connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False


@contextmanager
def consistent_view(engine: Engine) -> Generator[Connection]:
    """A read-only transaction: all its statements see one state, and it blocks no writer."""
    options: dict[str, Any] = {_READING: True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection
