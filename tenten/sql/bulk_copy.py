"""Append the rows of a frame to a PostgreSQL table by COPY.

Binary, encoded in columns by pgpq, where that is installed; it has no wheel for Linux on ARM. Elsewhere psycopg writes
row by row: the same rows, at a fraction of the rate.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import polars as pl
import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from arro3.core import DataType, Table

HAS_PGPQ: Final = find_spec("pgpq") is not None and find_spec("arro3") is not None


def copy_into(cursor: psycopg.Cursor[Any], table: str, frame: pl.DataFrame, in_columns: bool = HAS_PGPQ) -> None:
    """Append the frame's rows to the table's columns of the same names, in one statement.

    A column of bytes holds GUIDs, 16 bytes each; lists may hold any bytes.
    Raises: `psycopg.errors.UniqueViolation` when a key exists already; the transaction is over then.
    """
    if frame.is_empty():
        return
    columns = sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    copy_from = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    if in_columns:
        with cursor.copy(copy_from + sql.SQL(" (FORMAT BINARY)")) as copy:
            copy.write(_binary_copy(frame))
        return
    guids = [index for index, kind in enumerate(frame.dtypes) if kind == pl.Binary]
    with cursor.copy(copy_from) as copy:
        for row in frame.iter_rows():
            values = list(row)
            for index in guids:
                values[index] = None if values[index] is None else UUID(bytes=values[index])
            copy.write_row(values)


def _binary_copy(frame: pl.DataFrame) -> bytes:
    """The rows in PostgreSQL's binary COPY format.

    Source: https://www.postgresql.org/docs/18/sql-copy.html
    """
    from arro3.core import Table
    from pgpq import ArrowToPostgresBinaryEncoder

    table = _without_views(Table.from_arrow(frame.rechunk()))
    encoder = ArrowToPostgresBinaryEncoder(table.schema)
    parts = [encoder.write_header(), *(encoder.write_batch(batch) for batch in table.to_batches()), encoder.finish()]
    return b"".join(parts)


def _without_views(table: "Table") -> "Table":
    """The table with plain texts and bytes: polars has Arrow's views of them, which pgpq does not take."""
    from arro3.core import Table

    columns = [column.cast(_plain_type(column.type)) for column in table.columns]
    return Table.from_arrays(columns, names=table.column_names)


def _plain_type(kind: "DataType") -> "DataType":
    from arro3.core import DataType, Field

    if kind == DataType.string_view():
        return DataType.large_string()
    if kind == DataType.binary_view():
        return DataType.large_binary()
    if kind.value_type is not None:  # a list
        return DataType.large_list(Field("item", _plain_type(kind.value_type), nullable=True))
    return kind
