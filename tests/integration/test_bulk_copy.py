"""COPY of a frame into PostgreSQL, in each of the formats."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import psycopg
import pytest
from psycopg import sql

from tenten.sql.bulk_copy import FORMATS, Format, copy_into
from tests.conftest import NewDatabase

GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
TABLE = """
    CREATE TABLE things (
        id uuid, name text, number bigint, small integer, amount numeric, is_new boolean, at timestamptz, day date,
        document json, payloads bytea[], names text[]
    )
"""
FRAME = pl.DataFrame(
    {
        "id": [bytes.fromhex(GUID.replace("-", "")), None],
        "name": ["tab\t, quote\" ' line\n \\. \\N ö", ""],
        "number": [2**62, None],
        "small": [-1, None],
        "amount": [Decimal("12.50"), None],
        "is_new": [True, None],
        "at": [datetime(2026, 3, 1, 12, 0, 0, 250_001, tzinfo=UTC), None],
        "day": [datetime(2026, 3, 1, tzinfo=UTC).date(), None],
        "document": ['{"text": "a \\"quoted\\" text"}', None],
        "payloads": [[b"\x00\xff\\", b""], []],
        "names": [["a,b", 'c"d', ""], []],
    },
    schema_overrides={"small": pl.Int32, "amount": pl.Decimal(38, 2)},
)


def rows_after_copy(connection: psycopg.Connection[Any], frame: pl.DataFrame, form: Format) -> list[tuple[Any, ...]]:
    """The rows of a new table into which the frame was copied."""
    with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        cursor.execute(TABLE)
        copy_into(cursor, "things", frame, form)
        columns = sql.SQL(", ").join(map(sql.Identifier, frame.columns))
        return cursor.execute(sql.SQL("SELECT {} FROM things").format(columns)).fetchall()


@pytest.mark.parametrize("form", FORMATS)
def test_copied_rows_are_those_of_the_frame(new_database: NewDatabase, form: Format) -> None:
    """Every type that the product copies, with null and empty values, is copied unchanged."""
    # given
    with psycopg.connect(new_database()) as connection:
        # when
        first, second = rows_after_copy(connection, FRAME, form)
    # then
    assert (str(first[0]), *first[1:8]) == (GUID, *(FRAME.row(0)[1:8]))
    assert first[8:] == ({"text": 'a "quoted" text'}, [b"\x00\xff\\", b""], ["a,b", 'c"d', ""])
    assert second == (None, "", None, None, None, None, None, None, None, [], [])


@pytest.mark.parametrize("form", FORMATS)
def test_key_that_exists_is_a_unique_violation(new_database: NewDatabase, form: Format) -> None:
    """The caller hears of a repeated key as an error of the driver."""
    with psycopg.connect(new_database()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE keys (id uuid PRIMARY KEY)")
        keys = pl.DataFrame({"id": [bytes(16), bytes(16)]})
        with pytest.raises(psycopg.errors.UniqueViolation):
            copy_into(cursor, "keys", keys, form)


def test_csv_has_the_same_rows_as_binary(new_database: NewDatabase) -> None:
    """Columns without lists, which are what CSV is for."""
    flat = FRAME.drop("payloads", "names")
    with psycopg.connect(new_database()) as connection:
        binary, csv = (rows_after_copy(connection, flat, form) for form in ("binary", "csv"))
    assert csv == binary
