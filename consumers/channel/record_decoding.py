"""Decoding record by record, where the column library is not installed."""

from collections.abc import Sequence
from functools import cache
from typing import Final

from tenten.avro.small_batch import decode_small_batch
from tenten.avro.wire import AvroSchema, Json, Unreadable, WriterSchemas, check_record, check_value, out_of_range
from tenten.runtime.errors import DatabaseRefused

SMALL_BATCH_MAX: Final = 140
"""Records up to which decoding and writing record by record takes less CPU than in columns; measured."""


@cache
def column_library_installed() -> bool:
    """Whether batches can be decoded in columns."""
    try:
        import polars as pl  # noqa: F401 - only whether it can be imported
    except ImportError:
        return False
    return True


def check_column_library(dialect: str) -> None:
    """A PostgreSQL channel is written in columns only. Raises: `DatabaseRefused` without the column library."""
    if dialect == "postgresql" and not column_library_installed():
        raise DatabaseRefused(
            "a channel on PostgreSQL needs the column library: pip install 'tenten-commerce[columns]', or keep the "
            "channel in SQLite"
        )


def decode_records(
    reader: AvroSchema,
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    writers: WriterSchemas,
    value_bytes_max: int,
) -> tuple[list[tuple[int, Json]], dict[int, Unreadable]]:
    """The readable records with their rows, in order; and the error of each unreadable row.

    Decides as `tenten.avro.batches.decode_batch` does. May block where a schema is looked up. Raises: the errors of
    `writers` when schemas cannot be reached.
    """
    records: list[tuple[int, Json]] = []
    unreadable: dict[int, Unreadable] = {}
    for row, (key, value) in enumerate(zip(keys, values, strict=True)):
        is_too_large = value is not None and len(value) > value_bytes_max
        decoded = None if value is None or is_too_large else decode_small_batch(reader, [key], [value], writers)
        if decoded is None:
            unreadable[row] = _error(reader, key, value, writers, value_bytes_max)
        else:
            records.append((row, decoded[0]))
    return records, unreadable


def _error(
    reader: AvroSchema, key: bytes | None, value: bytes | None, writers: WriterSchemas, value_bytes_max: int
) -> Unreadable:
    """The reason why this record cannot be read."""
    try:
        check_record(reader, key, writers.decode(check_value(value, value_bytes_max), reader))
    except Unreadable as error:
        return error
    return out_of_range()
