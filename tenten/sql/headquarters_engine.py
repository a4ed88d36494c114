"""Headquarters' database as its workers open it: no transaction of a worker can hold locks without limit."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, event

from tenten.runtime.errors import DatabaseRefused
from tenten.sql.engine import open_database

if TYPE_CHECKING:
    import psycopg

TRANSACTION_SECONDS_MAX: Final = 30
"""The server ends a longer transaction, and with it the connection: a worker that is frozen within one, perhaps in the
middle of a COPY, must not keep a number sequence locked. A batch of 10,000 takes a second."""

SERVER_VERSION_MIN: Final = 17


def open_for_worker(url: str) -> Engine:
    """The engine of a worker. Connecting raises `DatabaseRefused` when the server is too old."""
    engine = open_database(url)

    @event.listens_for(engine, "connect")
    def limit_transactions(connection: Any, _: object) -> None:
        major = connection.info.server_version // 10_000
        if major < SERVER_VERSION_MIN:
            raise DatabaseRefused(
                f"headquarters' database runs on PostgreSQL {major}: it needs {SERVER_VERSION_MIN} or newer"
            )
        connection.execute(f"SET transaction_timeout = '{TRANSACTION_SECONDS_MAX}s'")
        connection.commit()

    return engine


def check_new_connections(engine: Engine, check: Callable[["psycopg.Connection[Any]"], None]) -> None:
    """Have each new connection to the database checked before it is used, beginning with the next one.

    A database cannot be replaced by another copy while its connections last. `check` may raise; it is called by the
    thread that connects, and must leave no open transaction.
    """

    @event.listens_for(engine, "connect")
    def check_connection(connection: Any, _: object) -> None:
        try:
            check(connection)
        except BaseException:
            # The pool would only forget it.
            connection.close()
            raise

    engine.dispose()


def database_identity(driver: "psycopg.Connection[Any]") -> tuple[Any, ...]:
    """Changes when the server was restarted, restored, or replaced by another one, or the database recreated.

    Needs no privilege.
    """
    row: tuple[Any, ...] | None = driver.execute(_IDENTITY).fetchone()
    driver.commit()
    assert row is not None  # the statement returns one row
    return row


_IDENTITY: Final = """
    SELECT (pg_control_system()).system_identifier, (pg_control_checkpoint()).timeline_id, pg_postmaster_start_time(),
           oid
    FROM pg_database WHERE datname = current_database()
    """
