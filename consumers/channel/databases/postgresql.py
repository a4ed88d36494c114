"""The bulk statements of a PostgreSQL channel.

New rows are copied directly into the tables by COPY. Rows are compared as texts. Rows that exist are copied into
temporary tables, and one statement a table then writes only those that differ. GUIDs travel as one array: with it the
planner looks up the rows of the batch by their keys, where a join with a temporary table of unknown size makes it read
whole tables.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
from sqlalchemy import JSON, Connection, Table

from tenten.runtime.errors import WriteConflict
from tenten.schemas.tables.channel import customer_addresses, customer_contacts, customers

if TYPE_CHECKING:  # the column library is optional
    import polars as pl

    from tenten.sql.customer_frames import TableFrames

_TABLES: Final = (customers, customer_addresses, customer_contacts)

# Locks rows in the order of their GUIDs, as every transaction does that locks several.
_LOCK: Final = """
    SELECT customer_id::text, version FROM customers WHERE customer_id = ANY(%s::uuid[])
    ORDER BY customer_id FOR NO KEY UPDATE
    """

_VERSIONS: Final = "SELECT customer_id::text, version FROM customers WHERE customer_id = ANY(%s::uuid[])"

# Customers with events that are not settled, or were settled in a later version than the given one.
_EDITED: Final = """
    SELECT DISTINCT o.aggregateid::text FROM outbox o
    JOIN unnest(%s::uuid[], %s::bigint[]) AS snapshot (customer_id, version) ON snapshot.customer_id = o.aggregateid
    WHERE o.aggregatetype = 'customer' AND (o.settled_at IS NULL OR o.version > snapshot.version)
    """

_UPDATE_CUSTOMERS: Final = """
    UPDATE customers AS c SET {assignments} FROM staged_customers AS s
    WHERE c.customer_id = s.customer_id AND c.customer_id = ANY(%s::uuid[])
    """

# Deletes children that are not staged, writes those that differ or are new, leaves the others alone.
_REPLACE_CHILDREN: Final = """
    WITH stored AS MATERIALIZED (SELECT * FROM {table} WHERE customer_id = ANY(%s::uuid[])),
    deleted AS (
        DELETE FROM {table} WHERE (customer_id, {child}) IN (
            SELECT stored.customer_id, stored.{child} FROM stored WHERE NOT EXISTS (
                SELECT FROM staged_{table} AS s
                WHERE s.customer_id = stored.customer_id AND s.{child} = stored.{child})))
    INSERT INTO {table} ({columns})
    SELECT {staged} FROM staged_{table} AS s LEFT JOIN stored USING (customer_id, {child})
    WHERE stored.customer_id IS NULL OR ({staged_values}) IS DISTINCT FROM ({stored_values})
    ON CONFLICT (customer_id, {child}) DO UPDATE SET {assignments}
    """

# The rows of some customers, each as one text.
_ROW_TEXTS: Final = "SELECT {text} FROM {table} WHERE customer_id = ANY(%s::uuid[])"

_REMEMBER: Final = """
    INSERT INTO resync_keys (customer_id) SELECT unnest(%s::uuid[]) ON CONFLICT DO NOTHING
    """

# Temporary tables of this connection, empty at the start of every transaction.
_CREATE_STAGED: Final = "".join(
    f"CREATE TEMPORARY TABLE IF NOT EXISTS staged_{table.name} (LIKE {table.name}) ON COMMIT DELETE ROWS;"
    for table in _TABLES
).encode()


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """A `ChannelDatabase`."""

    dialect: Literal["postgresql"] = "postgresql"

    def lock_versions(self, connection: Connection, ids: Iterable[str]) -> dict[str, int]:
        """One statement."""
        with _cursor(connection) as cursor:
            return dict(cursor.execute(_LOCK, (_array(ids),)).fetchall())

    def versions(self, connection: Connection, ids: Iterable[str]) -> dict[str, int]:
        """One statement."""
        with _cursor(connection) as cursor:
            return dict(cursor.execute(_VERSIONS, (_array(ids),)).fetchall())

    def with_edits(self, connection: Connection, ids: Sequence[str], versions: Sequence[int]) -> set[str]:
        """One statement."""
        with _cursor(connection) as cursor:
            return {guid for (guid,) in cursor.execute(_EDITED, (_array(ids), _array(map(str, versions))))}

    def insert(self, connection: Connection, frames: "TableFrames") -> None:
        """Three COPY statements."""
        with _cursor(connection) as cursor:
            try:
                _copy(cursor, frames, prefix="")
            except psycopg.errors.UniqueViolation as error:
                raise WriteConflict("another process has inserted one of these customers") from error

    def update(self, connection: Connection, frames: "TableFrames", ids: Collection[str]) -> None:
        """Three COPY statements into temporary tables, and one statement a table."""
        array = _array(ids)
        with _cursor(connection) as cursor:
            _stage(cursor, frames)
            cursor.execute(_update_customers(), (array,))
            for table in (customer_addresses, customer_contacts):
                cursor.execute(_replace_children(table), (array,))

    def different(self, connection: Connection, frames: "TableFrames", ids: Collection[str]) -> set[str]:
        """One statement a table."""
        from tenten.consumers.channel.databases.row_texts import customer_of, frame_texts

        if not self.versions(connection, ids):
            return set(ids)
        array = _array(ids)
        different: set[str] = set()
        with _cursor(connection) as cursor:
            for table, frame in _pairs(frames):
                stored = {text for (text,) in cursor.execute(_row_texts(table), (array,), binary=True)}
                different.update(map(customer_of, stored.symmetric_difference(frame_texts(frame))))
        return different

    def remember_surplus(self, connection: Connection, ids: Iterable[str]) -> None:
        """One statement."""
        with _cursor(connection) as cursor:
            cursor.execute(_REMEMBER, (_array(ids),))


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    """A cursor of the driver, in the transaction of this connection."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor()


def _array(values: Iterable[str]) -> str:
    """A PostgreSQL array of GUIDs or numbers as text, by far the fastest parameter to build."""
    return "{" + ",".join(values) + "}"


def _stage(cursor: psycopg.Cursor[Any], frames: "TableFrames") -> None:
    """Copy the rows into this connection's temporary tables."""
    cursor.execute(_CREATE_STAGED)
    _copy(cursor, frames, prefix="staged_")


def _copy(cursor: psycopg.Cursor[Any], frames: "TableFrames", prefix: str) -> None:
    from tenten.sql.bulk_copy import copy_into

    for table, frame in _pairs(frames):
        copy_into(cursor, f"{prefix}{table.name}", frame)


def _pairs(frames: "TableFrames") -> Iterable[tuple[Table, "pl.DataFrame"]]:
    return zip(_TABLES, (frames.customers, frames.addresses, frames.contacts), strict=True)


@cache
def _update_customers() -> bytes:
    assignments = ", ".join(f"{name} = s.{name}" for name in _values(customers))
    return _UPDATE_CUSTOMERS.format(assignments=assignments).encode()


@cache
def _replace_children(table: Table) -> bytes:
    names = [column.name for column in table.c]
    return _REPLACE_CHILDREN.format(
        table=table.name,
        child=_child(table),
        columns=", ".join(names),
        staged=", ".join(f"s.{name}" for name in names),
        staged_values=_row(table, "s"),
        stored_values=_row(table, "stored"),
        assignments=", ".join(f"{name} = excluded.{name}" for name in _values(table)),
    ).encode()


@cache
def _row_texts(table: Table) -> bytes:
    from tenten.consumers.channel.databases.row_texts import row_text_sql

    return _ROW_TEXTS.format(text=row_text_sql(table, "postgresql"), table=table.name).encode()


def _child(table: Table) -> str:
    """The column that names a child within its customer."""
    return [column.name for column in table.primary_key][-1]


def _values(table: Table) -> list[str]:
    """The columns that are not part of the key."""
    return [column.name for column in table.c if not column.primary_key]


def _row(table: Table, alias: str) -> str:
    """The values of a row for comparison; the type `json` has no equality operator."""
    return ", ".join(
        f"{alias}.{column.name}::text" if isinstance(column.type, JSON) else f"{alias}.{column.name}"
        for column in table.c
        if not column.primary_key
    )
