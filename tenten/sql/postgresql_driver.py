"""psycopg, where it is installed and used: a store on SQLite needs no psycopg, and does not import it."""

import selectors
import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

if TYPE_CHECKING:
    import psycopg


def driver_cursor(connection: Connection, *, binary: bool = False) -> "psycopg.Cursor[Any]":
    """A new cursor of psycopg in the transaction of an SQLAlchemy connection: for COPY, and for prepared statements."""
    driver: psycopg.Connection[Any] = driver_of(connection)
    return driver.cursor(binary=binary)


def driver_of(connection: Connection) -> Any:
    """The driver's own connection behind an SQLAlchemy connection: psycopg's or sqlite3's."""
    return connection.connection.driver_connection


def has_input(descriptor: int) -> bool:
    """Whether something can be read from this socket. Does not block."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(0))


def driver_error() -> type[Exception]:
    """The base class of psycopg's errors; a class of its own where psycopg was not imported, and so raised none."""
    driver = sys.modules.get("psycopg")
    error: type[Exception] = _NoDriverError if driver is None else driver.Error
    return error


class _NoDriverError(Exception):
    """Never raised."""
