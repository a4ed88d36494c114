"""Rows as texts, equal where the rows are equal: comparing them is cheaper than fetching or staging every column.

A text is built by the database from a row and in columns from a frame, and begins with the customer id.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import JSON, Boolean, Column, Table

from tenten.schemas.tables.types import Guid, UtcTime

if TYPE_CHECKING:  # the column library is optional
    import polars as pl

Dialect = Literal["postgresql", "sqlite"]

_SEPARATOR: Final = "\x1f"
_NULL: Final = "\x1e"


@cache
def row_text_sql(table: Table, dialect: Dialect) -> str:
    """The expression for the text of a row."""
    texts = [_column_sql(column, dialect) for column in table.c]
    if dialect == "postgresql":
        return f"concat({f', chr({ord(_SEPARATOR)}), '.join(texts)})"
    return f" || char({ord(_SEPARATOR)}) || ".join(texts)


def _column_sql(column: Column[Any], dialect: Dialect) -> str:
    text = column.name
    if dialect == "postgresql":
        if isinstance(column.type, Guid):
            text = f"encode(uuid_send({text}), 'hex')"
        elif isinstance(column.type, UtcTime):
            text = f"(extract(epoch FROM {text}) * 1000000)::bigint"
        elif isinstance(column.type, JSON | Boolean):
            text = f"{text}::text"
    elif isinstance(column.type, Boolean):
        text = f"iif({text}, 'true', 'false')"
    if not column.nullable:
        return text
    null = f"chr({ord(_NULL)})" if dialect == "postgresql" else f"char({ord(_NULL)})"
    return f"coalesce({text}{'::text' if dialect == 'postgresql' else ''}, {null})"


def frame_texts(frame: "pl.DataFrame") -> list[str]:
    """The texts of a frame's rows: those of `row_text_sql` for equal rows."""
    import polars as pl

    columns = []
    for name, kind in frame.schema.items():
        text = pl.col(name)
        if kind == pl.Binary:
            text = text.bin.encode("hex")
        elif isinstance(kind, pl.Datetime):
            text = text.dt.epoch("us")
        columns.append(text.cast(pl.String).fill_null(_NULL))
    return frame.select(pl.concat_str(columns, separator=_SEPARATOR)).to_series().to_list()


def customer_of(row_text: str) -> str:
    """The customer id at the start of a row's text."""
    guid = row_text.partition(_SEPARATOR)[0]
    return guid if "-" in guid else f"{guid[:8]}-{guid[8:12]}-{guid[12:16]}-{guid[16:20]}-{guid[20:]}"
