"""Psycopg's own cursor in the transaction of an SQLAlchemy connection: for COPY, and for prepared hot statements."""

from typing import Any

import psycopg
from sqlalchemy import Connection


def driver_cursor(connection: Connection, *, binary: bool = False) -> psycopg.Cursor[Any]:
    """A new cursor of the connection's driver, in the same transaction. PostgreSQL only."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor(binary=binary)
