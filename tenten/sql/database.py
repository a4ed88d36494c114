"""The edge to SQL: PostgreSQL and SQLite opened the same way, brought to this release's tables, and locked.

PostgreSQL: a small pool; a broken connection is replaced when it is next used. SQLite: WAL, every commit on disk before
it returns, and every transaction takes the writer's place at its start: one that began by reading might never get it.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from tenten.runtime.errors import DatabaseRefused, LockHeld
from tenten.runtime.settings import LegalEntity
from tenten.schemas.tables.headquarters import number_sequences, sales_order_sequences

Which = Literal["headquarters", "channel"]

BUSY_SECONDS: Final = 10
"""How long a transaction waits for SQLite's one writer before that counts as busy."""

_MIGRATIONS: Final = Path(str(files("tenten.schemas"))) / "migrations"
_LOCK_POLL_SECONDS: Final = 0.02
_TURN_POLL_SECONDS: Final = 0.002
_READING: Final = "tenten_reading"
"""Execution option of a connection whose transactions only read."""

_POSTGRESQL: Final = {
    "application_name": "tenten",
    "connect_timeout": 10,
    # A line that was cut without a word is noticed by both ends within half a minute, not after two hours: ...
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    # ... a dead or frozen process must not keep its locks from the others.
    # A plan is for the rows that are there now: these tables fill and empty all the time, and ten thousand rows take a
    # minute by a plan that was made for none and kept.
    "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=30s -c plan_cache_mode=force_custom_plan "
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=25s",
}
"""Parameters of a connection; those in the address win."""

_POSTGRESQL_REFUSALS: Final[Mapping[str, str]] = {
    "password authentication failed": "refuses the user or password: correct the address",
    "no password supplied": "asks for a password: write it into the address",
    "no pg_hba.conf entry": "does not let this user in from here: allow it in pg_hba.conf",
    "permission denied for database": "does not let this user into the database: GRANT CONNECT",
    'role ".*" does not exist': "does not have this user: create it, or correct the address",
    'database ".*" does not exist': "does not have this database: create it, or correct the address",
}
"""What the server says while a connection is made comes without a code, so it is known by a pattern of its text."""

_SQLITE_REFUSALS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: its directory must exist and be writable",
    sqlite3.SQLITE_NOTADB: "is no SQLite database: correct the address",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup, or let the channel begin anew",
    sqlite3.SQLITE_READONLY: "cannot be written: correct its permissions",
    sqlite3.SQLITE_PERM: "cannot be written: correct its permissions",
}


def open_database(url: str) -> Engine:
    """The database at a plain `postgresql://` or `sqlite:///` address. Connects when it is first used, not here.

    What refuses the connection for good is raised then, as `DatabaseRefused`.
    """
    address = make_url(url)
    if address.drivername == "postgresql":
        return _open_postgresql(address)
    return _open_sqlite(address)


def _open_postgresql(address: URL) -> Engine:
    parameters = {name: value for name, value in _POSTGRESQL.items() if name not in address.query}
    if "options" in address.query:
        # Of a setting that is there twice PostgreSQL takes the last.
        parameters["options"] = f"{_POSTGRESQL['options']} {address.query['options']}"
    # hide_parameters: what a statement was given never reaches an error's text, and so no log.
    engine = create_engine(
        address.set(drivername="postgresql+psycopg"), pool_pre_ping=True, hide_parameters=True, connect_args=parameters
    )

    @event.listens_for(engine, "do_connect")
    def connect(_: Any, __: Any, arguments: tuple[Any, ...], parameters: dict[str, Any]) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(*arguments, **parameters)
        except psycopg.OperationalError as error:
            for pattern, refusal in _POSTGRESQL_REFUSALS.items():
                if re.search(pattern, str(error)):
                    shown = address.render_as_string(hide_password=True)
                    raise DatabaseRefused(f"PostgreSQL at {shown} {refusal}") from error
            raise

    return engine


def _open_sqlite(address: URL) -> Engine:
    engine = create_engine(address, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _: Any, arguments: tuple[Any, ...], parameters: dict[str, Any]) -> sqlite3.Connection:
        with _sqlite_refusals(address):
            connection: sqlite3.Connection = dialect.connect(*arguments, **parameters)
            try:
                if not _within(BUSY_SECONDS, lambda: _switched_to_wal(connection)):
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
        with _turn(address):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _turn(address: URL) -> Generator[None]:
    """Wait for the writer's place one at a time, by a lock that is held until one has it.

    SQLite lets waiters sleep, up to 100 ms between two looks, so a process that writes one transaction after the other
    would always be faster than they are: a clerk would wait for seconds, or be refused. With this it must queue up
    behind them. Who cannot have the lock tries without it.
    """
    turn = FileLock(f"{address.database}.turn.lock")
    with suppress(OSError, Timeout):
        turn.acquire(timeout=BUSY_SECONDS, poll_interval=_TURN_POLL_SECONDS)
    try:
        yield
    finally:
        turn.release()


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
    """Whether the file is in WAL mode; not yet while another is just switching it, for whom SQLite does not wait."""
    try:
        return bool(connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False


@contextmanager
def consistent_view(engine: Engine) -> Generator[Connection]:
    """A transaction for reading only: however many statements, they see one state, and no writer waits for them."""
    options: dict[str, Any] = {_READING: True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


class DatabaseLock:
    """A lock that is held across processes for as long as this one lives, or until it is released."""

    def __init__(self, connection: Connection | None) -> None:
        self._connection = connection

    def is_held(self) -> bool:
        """Whether it is still ours: with PostgreSQL a lock is lost with the connection that took it."""
        if self._connection is None:
            return True
        try:
            self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True


@contextmanager
def apply_lock(engine: Engine, wait_seconds: float | None = None) -> Generator[DatabaseLock]:
    """The right to apply snapshots to a channel's database; waits for it, without end unless told otherwise.

    Raises: `LockHeld`.
    """
    with _lock(engine, "apply", wait_seconds, "distribution, resync or repair") as held:
        yield held


@contextmanager
def relay_lock(engine: Engine, wait_seconds: float | None = 2) -> Generator[DatabaseLock]:
    """The right to relay a channel's outbox; waits a moment, as the lock of a killed process is not free at once.

    Raises: `LockHeld`.
    """
    with _lock(engine, "relay", wait_seconds, "relay") as held:
        yield held


@contextmanager
def resync_lock(engine: Engine, wait_seconds: float | None = 2) -> Generator[DatabaseLock]:
    """The right to resync a channel; waits a moment, as the lock of a killed process is not free at once.

    Raises: `LockHeld`.
    """
    with _lock(engine, "resync", wait_seconds, "resync") as held:
        yield held


@contextmanager
def _lock(engine: Engine, name: str, wait_seconds: float | None, what: str) -> Generator[DatabaseLock]:
    lock = _postgresql_lock if engine.dialect.name == "postgresql" else _file_lock
    with lock(engine, name, wait_seconds) as held:
        if held is None:
            raise LockHeld(f"a {what} of this channel runs already: end it first, or let it do the work")
        yield held


@contextmanager
def _postgresql_lock(engine: Engine, name: str, wait_seconds: float | None) -> Generator[DatabaseLock | None]:
    """An advisory lock of the session, on a connection of its own, outside any transaction; None when it is taken."""
    key = {"key": int.from_bytes(blake2b(f"tenten.{name}".encode(), digest_size=8).digest(), signed=True)}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if wait_seconds is None:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        elif not _within(wait_seconds, lambda: connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key)):
            yield None
            return
        try:
            yield DatabaseLock(connection)
        finally:
            # A broken connection has lost its locks already.
            with suppress(SQLAlchemyError):
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


@contextmanager
def _file_lock(engine: Engine, name: str, wait_seconds: float | None) -> Generator[DatabaseLock | None]:
    """A lock on a file beside the database, which the system releases when a process dies; None when it is taken."""
    file = FileLock(f"{engine.url.database}.{name}.lock")
    try:
        file.acquire(timeout=-1 if wait_seconds is None else wait_seconds, poll_interval=_LOCK_POLL_SECONDS)
    except Timeout:
        yield None
        return
    try:
        yield DatabaseLock(None)
    finally:
        file.release()


def _within(seconds: float, attempt: Callable[[], Any]) -> bool:
    """Try at least once, and then again and again for so long."""
    deadline = time.monotonic() + seconds
    while not attempt():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOCK_POLL_SECONDS)
    return True


def upgrade_headquarters(engine: Engine, legal_entities: Mapping[str, LegalEntity]) -> None:
    """Bring headquarters' tables to this release, and its number sequences to the settings. Twice changes nothing more.

    A sequence that exists takes format and continuity from the settings, and never the next number.
    Raises: `DatabaseRefused` when the database is a channel's, or of a newer release.
    """
    with engine.begin() as connection:
        _upgrade(connection, "headquarters")
        for name, legal_entity in legal_entities.items():
            numbers = legal_entity.account_numbers
            sequence = insert(number_sequences).values(
                legal_entity=name, format=numbers.format, next=numbers.next, continuous=numbers.continuous
            )
            connection.execute(
                sequence.on_conflict_do_update(
                    index_elements=["legal_entity"],
                    set_={"format": sequence.excluded.format, "continuous": sequence.excluded.continuous},
                )
            )
            orders = insert(sales_order_sequences).values(
                legal_entity=name, format=legal_entity.sales_orders.format, next=legal_entity.sales_orders.next
            )
            connection.execute(
                orders.on_conflict_do_update(index_elements=["legal_entity"], set_={"format": orders.excluded.format})
            )


def upgrade_channel(engine: Engine) -> None:
    """Bring a channel's tables to this release; a SQLite file that is not there is made. Twice changes nothing more.

    Raises: `DatabaseRefused` when the database is headquarters', or of a newer release.
    """
    if engine.dialect.name == "sqlite":
        Path(str(engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
    with engine.begin() as connection:
        _upgrade(connection, "channel")


def check_version(engine: Engine, which: Which) -> None:
    """Say no to a database whose tables are not those of this release.

    Raises: `DatabaseRefused`.
    """
    advice = f"run `tenten database upgrade {which if which == 'headquarters' else 'channel NAME'}`"
    if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).exists():
        raise DatabaseRefused(f"there is no database {engine.url.database} yet: {advice}")
    with consistent_view(engine) as connection:
        found = _revision(connection, which)
    if found != _head(which):
        raise DatabaseRefused(f"the database at {_shown(engine)} is not of this release yet: {advice}")


def _upgrade(connection: Connection, which: Which) -> None:
    # Slow to import, and only upgrades need it.
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        # Two upgrades at once: the second finds nothing left to do. SQLite has one writer anyway.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('tenten.upgrade', 0))"))
    if _revision(connection, which) == _head(which):
        return
    config = Config(attributes={"connection": connection, "version_table": _version_table(which)})
    config.set_main_option("script_location", _escaped(_MIGRATIONS))
    config.set_main_option("version_locations", _escaped(_MIGRATIONS / which / "versions"))
    config.set_main_option("path_separator", "newline")
    command.upgrade(config, "head")


def _revision(connection: Connection, which: Which) -> str | None:
    """The revision of the tables, None when there are none.

    Raises: `DatabaseRefused` when they are those of the other kind, or of a newer release.
    """
    other: Which = "channel" if which == "headquarters" else "headquarters"
    tables = inspect(connection)
    if tables.has_table(_version_table(other)):
        raise DatabaseRefused(f"{_shown(connection.engine)} is a database of {other}: {which} needs one of its own")
    if not tables.has_table(_version_table(which)):
        return None
    found = str(connection.scalar(text(f"SELECT version_num FROM {_version_table(which)}")))  # noqa: S608 - our own name
    if found > _head(which):
        raise DatabaseRefused(f"{_shown(connection.engine)} was upgraded by a newer tenten: install that release here")
    return found


def _version_table(which: Which) -> str:
    """A table for each kind, so that one is never taken for the other."""
    return f"{which}_version"


def _head(which: Which) -> str:
    """The newest revision: the number that its file's name begins with."""
    return max(file.name.partition("_")[0] for file in (_MIGRATIONS / which / "versions").glob("[0-9]*.py"))


def _escaped(path: Path) -> str:
    """For alembic's configuration, in which a percent sign has a meaning."""
    return str(path).replace("%", "%%")


def _shown(engine: Engine) -> str:
    return engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=True)
