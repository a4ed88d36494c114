"""Append the rows of a frame to a PostgreSQL table by COPY.

As CSV that polars writes; in PostgreSQL's binary format, encoded by pgpq, where that is installed: it has no wheel for
Linux on ARM, and requires pyarrow, which is as large as all other dependencies together. Both write the same rows.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from uuid import UUID

import polars as pl

if TYPE_CHECKING:
    import psycopg
    from arro3.core import DataType, Table

Format = Literal["binary", "csv", "rows"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
FASTEST: Final[Format] = "binary" if find_spec("pgpq") is not None and find_spec("arro3") is not None else "csv"

_TIME: Final = "%Y-%m-%dT%H:%M:%S%.6f+00:00"


def copy_into(cursor: "psycopg.Cursor[Any]", table: str, frame: pl.DataFrame, form: Format = FASTEST) -> None:
    """Append the frame's rows to the table's columns of the same names, in one statement.

    A column of bytes holds GUIDs, 16 bytes each; lists may hold any bytes. Lists are never written as CSV, but row by
    row. Times are in UTC.
    Raises: `psycopg.errors.UniqueViolation` when a key exists already; the transaction is over then.
    """
    from psycopg import sql

    if frame.is_empty():
        return
    columns = sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    copy_from = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    if form == "binary":
        with cursor.copy(copy_from + sql.SQL(" (FORMAT BINARY)")) as copy:
            copy.write(_as_binary(frame))
    elif form == "csv" and not any(isinstance(kind, pl.List) for kind in frame.dtypes):
        with cursor.copy(copy_from + sql.SQL(" (FORMAT CSV)")) as copy:
            copy.write(_as_csv(frame))
    else:
        with cursor.copy(copy_from) as copy:
            for row in frame.iter_rows():
                copy.write_row([UUID(bytes=value) if isinstance(value, bytes) else value for value in row])


def _as_csv(frame: pl.DataFrame) -> bytes:
    """The rows as CSV: texts in quotes, null as nothing at all."""
    guids = frame.with_columns(pl.col(pl.Binary).bin.encode("hex"))
    return guids.write_csv(include_header=False, quote_style="non_numeric", datetime_format=_TIME).encode()


def _as_binary(frame: pl.DataFrame) -> bytes:
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
