"""INSERT statements with ON CONFLICT, which PostgreSQL and SQLite both have."""

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Table

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite


def insert_into(connection: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """An INSERT of the connection's dialect, with `on_conflict_do_update` and `on_conflict_do_nothing`."""
    # PostgreSQL's dialect takes a till on SQLite long to import.
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
