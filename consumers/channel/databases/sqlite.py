"""The bulk statements of a SQLite channel: prepared rows by `executemany`, in a transaction that is the only writer.

GUIDs travel as one JSON array. Rows are compared as texts. Of the children only rows that differ are written.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import Connection, Table

from tenten.schemas.tables.channel import customer_addresses, customer_contacts, customers

if TYPE_CHECKING:  # the column library is optional
    import polars as pl

    from tenten.sql.customer_frames import TableFrames

Row = tuple[Any, ...]

_TABLES: Final = (customers, customer_addresses, customer_contacts)

_VERSIONS: Final = """
    SELECT customer_id, version FROM customers WHERE customer_id IN (SELECT value FROM json_each(?))
    """

# Events that are unsettled, or were settled in a version.
_EDITS: Final = """
    SELECT aggregateid, settled_at IS NULL, version FROM outbox
    WHERE aggregateid IN (SELECT value FROM json_each(?)) AND aggregatetype = 'customer'
          AND (settled_at IS NULL OR version IS NOT NULL)
    """

# The rows of some customers, each as one text.
_ROW_TEXTS: Final = "SELECT {text} FROM {table} WHERE customer_id IN (SELECT value FROM json_each(?))"

_REMEMBER: Final = "INSERT OR IGNORE INTO resync_keys (customer_id) SELECT value FROM json_each(?)"


@dataclass(frozen=True, slots=True)
class SQLite:
    """A `ChannelDatabase`."""

    dialect: Literal["sqlite"] = "sqlite"

    def lock_versions(self, connection: Connection, ids: Iterable[str]) -> dict[str, int]:
        """A writing transaction is the only one, so its rows are locked already."""
        return self.versions(connection, ids)

    def versions(self, connection: Connection, ids: Iterable[str]) -> dict[str, int]:
        """One statement."""
        return dict(_driver(connection).execute(_VERSIONS, (_array(ids),)).fetchall())

    def with_edits(self, connection: Connection, ids: Sequence[str], versions: Sequence[int]) -> set[str]:
        """One statement."""
        snapshot_versions = dict(zip(ids, versions, strict=True))
        edits = _driver(connection).execute(_EDITS, (_array(ids),))
        return {guid for guid, unsettled, version in edits if unsettled or version > snapshot_versions[guid]}

    def insert(self, connection: Connection, frames: "TableFrames") -> None:
        """One prepared statement a table."""
        driver = _driver(connection)
        for table, frame in _pairs(frames):
            driver.executemany(_insert(table), _rows(frame))

    def update(self, connection: Connection, frames: "TableFrames", ids: Collection[str]) -> None:
        """Reads the children first, and writes only those that differ."""
        driver = _driver(connection)
        array = _array(ids)
        driver.executemany(_upsert(customers), _rows(frames.customers))
        for table, frame in list(_pairs(frames))[1:]:
            stored = set(driver.execute(_select(table), (array,)))
            wanted = set(_rows(frame))
            wanted_keys = {row[:2] for row in wanted}
            driver.executemany(_delete(table), [row[:2] for row in stored - wanted if row[:2] not in wanted_keys])
            driver.executemany(_upsert(table), list(wanted - stored))

    def different(self, connection: Connection, frames: "TableFrames", ids: Collection[str]) -> set[str]:
        """One statement a table."""
        from tenten.consumers.channel.databases.row_texts import customer_of, frame_texts

        if not self.versions(connection, ids):
            return set(ids)
        driver = _driver(connection)
        array = _array(ids)
        different: set[str] = set()
        for table, frame in _pairs(frames):
            stored = {text for (text,) in driver.execute(_row_texts(table), (array,))}
            different.update(map(customer_of, stored.symmetric_difference(frame_texts(frame))))
        return different

    def remember_surplus(self, connection: Connection, ids: Iterable[str]) -> None:
        """One statement."""
        _driver(connection).execute(_REMEMBER, (_array(ids),))


def _rows(frame: "pl.DataFrame") -> list[Row]:
    """The rows of a frame; built column by column, which is faster than `DataFrame.rows`."""
    return list(zip(*(series.to_list() for series in frame.iter_columns()), strict=True))


def _driver(connection: Connection) -> sqlite3.Connection:
    """The driver's connection, in the transaction of this one."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _array(ids: Iterable[str]) -> str:
    """A JSON array of GUIDs."""
    joined = '","'.join(ids)
    return f'["{joined}"]' if joined else "[]"


def _pairs(frames: "TableFrames") -> Iterable[tuple[Table, "pl.DataFrame"]]:
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
def _row_texts(table: Table) -> str:
    from tenten.consumers.channel.databases.row_texts import row_text_sql

    return _ROW_TEXTS.format(text=row_text_sql(table, "sqlite"), table=table.name)


@cache
def _select(table: Table) -> str:
    names = ", ".join(column.name for column in table.c)
    return f"SELECT {names} FROM {table.name} WHERE customer_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own names


@cache
def _delete(table: Table) -> str:
    keys = " AND ".join(f"{column.name} = ?" for column in table.primary_key)
    return f"DELETE FROM {table.name} WHERE {keys}"  # noqa: S608 - our own names
