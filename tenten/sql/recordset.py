"""Rows that reach PostgreSQL as one JSON document: the columns of a table as SQL text, for prepared statements."""

from functools import cache
from typing import NamedTuple

from sqlalchemy import Table


class RecordsetColumns(NamedTuple):
    """Columns of a table in its order, quoted where necessary."""

    names: tuple[str, ...]
    typed: tuple[str, ...]
    """Each with its type, as `json_to_recordset` wants them."""


@cache
def recordset_columns(table: Table) -> RecordsetColumns:
    """The columns of this table."""
    from sqlalchemy.dialects import postgresql  # slow to import, not needed on SQLite

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # sqlalchemy's
    names = tuple(dialect.identifier_preparer.quote(column.name) for column in table.c)
    types = (column.type.compile(dialect) for column in table.c)
    return RecordsetColumns(names, tuple(f"{name} {kind}" for name, kind in zip(names, types, strict=True)))


@cache
def insert_document(table: Table, document: str = "%s") -> str:
    """A statement, without a semicolon, that inserts the rows of a JSON document: an SQL expression, by default a
    parameter.
    """
    columns = recordset_columns(table)
    names, typed = ", ".join(columns.names), ", ".join(columns.typed)
    return f"INSERT INTO {table.name} ({names}) SELECT {names} FROM json_to_recordset({document}) AS given ({typed})"  # noqa: S608 - our own names
