"""The bulk statements of a SQLite channel: ready rows by `executemany`, in a transaction that is the only writer.

GUIDs travel as one JSON array. Children are compared as sets of rows, so that only what differs is written.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any, Final

import polars as pl
from sqlalchemy import Connection, Table

from tenten.schemas.tables.channel import customer_addresses, customer_contacts, customers
from tenten.sql.customer_frames import TableFrames

Row = tuple[Any, ...]

_TABLES: Final = (customers, customer_addresses, customer_contacts)

_VERSIONS: Final = """
    SELECT customer_id, version FROM customers WHERE customer_id IN (SELECT value FROM json_each(?))
    """
_EDITS: Final = """
    SELECT aggregateid, settled_at IS NULL, version FROM outbox
    WHERE aggregateid IN (SELECT value FROM json_each(?)) AND aggregatetype = 'customer'
          AND (settled_at IS NULL OR version IS NOT NULL)
    """

_REMEMBER: Final = "INSERT OR IGNORE INTO resync_keys (customer_id) SELECT value FROM json_each(?)"


def lock_versions(connection: Connection, ids: Iterable[str]) -> dict[str, int]:
    """The versions of those customers that exist. A writing transaction is the only one, so their rows are locked."""
    return versions(connection, ids)


def versions(connection: Connection, ids: Iterable[str]) -> dict[str, int]:
    """The versions of those customers that exist."""
    return dict(_driver(connection).execute(_VERSIONS, (_array(ids),)).fetchall())


def with_edits(connection: Connection, ids: Sequence[str], versions: Sequence[int]) -> set[str]:
    """Those of the customers with edits on top of these versions: not settled, or settled in a later version."""
    given = dict(zip(ids, versions, strict=True))
    edits = _driver(connection).execute(_EDITS, (_array(ids),))
    return {guid for guid, unsettled, version in edits if unsettled or version > given[guid]}


def insert(connection: Connection, frames: TableFrames) -> None:
    """Write customers that do not exist."""
    driver = _driver(connection)
    for table, frame in _pairs(frames):
        driver.executemany(_insert(table), rows(frame))


def update(connection: Connection, frames: TableFrames, ids: Iterable[str]) -> None:
    """Make the rows of customers that exist what is given."""
    driver = _driver(connection)
    array = _array(ids)
    driver.executemany(_upsert(customers), rows(frames.customers))
    for table, frame in list(_pairs(frames))[1:]:
        had = set(driver.execute(_select(table), (array,)))
        has = set(rows(frame))
        kept = {row[:2] for row in has}
        driver.executemany(_delete(table), [row[:2] for row in had - has if row[:2] not in kept])
        driver.executemany(_upsert(table), list(has - had))


def different(connection: Connection, frames: TableFrames, ids: Collection[str]) -> set[str]:
    """Those of the customers that are missing, or have other rows than given."""
    driver = _driver(connection)
    array = _array(ids)
    found: set[str] = set()
    for table, frame in _pairs(frames):
        found.update(row[0] for row in set(driver.execute(_select(table), (array,))) ^ set(rows(frame)))
    return found


def remember_keys(connection: Connection, ids: Iterable[str]) -> None:
    """Note customers that a resync has seen; once more changes nothing."""
    _driver(connection).execute(_REMEMBER, (_array(ids),))


def rows(frame: pl.DataFrame) -> list[Row]:
    """The rows of a frame; column by column, which is quicker than polars' own way."""
    return list(zip(*(series.to_list() for series in frame.iter_columns()), strict=True))


def _driver(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection, in the transaction of this one."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _array(ids: Iterable[str]) -> str:
    """A JSON array of GUIDs."""
    joined = '","'.join(ids)
    return f'["{joined}"]' if joined else "[]"


def _pairs(frames: TableFrames) -> Iterable[tuple[Table, pl.DataFrame]]:
    return zip(_TABLES, (frames.customers, frames.addresses, frames.contacts), strict=True)


@cache
def _insert(table: Table) -> str:
    names = [column.name for column in table.c]
    values = ", ".join("?" for _ in names)
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values})"  # noqa: S608 - our own names


@cache
def _upsert(table: Table) -> str:
    keys = ", ".join(column.name for column in table.primary_key)
    values = [column.name for column in table.c if not column.primary_key]
    assignments = ", ".join(f"{name} = excluded.{name}" for name in values)
    return f"{_insert(table)} ON CONFLICT ({keys}) DO UPDATE SET {assignments}"


@cache
def _select(table: Table) -> str:
    names = ", ".join(column.name for column in table.c)
    return f"SELECT {names} FROM {table.name} WHERE customer_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own names


@cache
def _delete(table: Table) -> str:
    keys = " AND ".join(f"{column.name} = ?" for column in table.primary_key)
    return f"DELETE FROM {table.name} WHERE {keys}"  # noqa: S608 - our own names
