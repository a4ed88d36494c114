"""The bulk statements of a PostgreSQL channel: whatever the number of customers, the same few statements.

Rows that are new go straight into the tables by binary COPY. Rows that exist are copied into temporary tables, and
then it is one statement a table, which touches only what differs. GUIDs travel as one array: with it the planner looks
up the rows of the batch by their keys, where a join with a temporary table of unknown size makes it read whole tables.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any, Final

import psycopg
from sqlalchemy import JSON, Connection, Table

from tenten.runtime.errors import WriteConflict
from tenten.schemas.tables.channel import customer_addresses, customer_contacts, customers
from tenten.sql.bulk_copy import copy_into
from tenten.sql.customer_frames import TableFrames

TABLES: Final = (customers, customer_addresses, customer_contacts)

# Locks the rows in the order of their GUIDs, as everybody does who locks several.
_LOCK: Final = """
    SELECT customer_id::text, version FROM customers WHERE customer_id = ANY(%s::uuid[])
    ORDER BY customer_id FOR NO KEY UPDATE
    """

_VERSIONS: Final = "SELECT customer_id::text, version FROM customers WHERE customer_id = ANY(%s::uuid[])"

# Customers with edits that count on top of the snapshots in hand: not settled, or settled in a later version.
_EDITED: Final = """
    SELECT DISTINCT o.aggregateid::text FROM outbox o
    JOIN unnest(%s::uuid[], %s::bigint[]) AS incoming (customer_id, version) ON incoming.customer_id = o.aggregateid
    WHERE o.aggregatetype = 'customer' AND (o.settled_at IS NULL OR o.version > incoming.version)
    """

_UPDATE_CUSTOMERS: Final = """
    UPDATE customers AS c SET {assignments} FROM incoming_customers AS i
    WHERE c.customer_id = i.customer_id AND c.customer_id = ANY(%s::uuid[])
    """

# Children that are gone are deleted, those that differ or are new are written, the others are left alone.
_REPLACE_CHILDREN: Final = """
    WITH had AS MATERIALIZED (SELECT * FROM {table} WHERE customer_id = ANY(%s::uuid[])),
    gone AS (
        DELETE FROM {table} WHERE (customer_id, {child}) IN (
            SELECT had.customer_id, had.{child} FROM had WHERE NOT EXISTS (
                SELECT FROM incoming_{table} AS i WHERE i.customer_id = had.customer_id AND i.{child} = had.{child})))
    INSERT INTO {table} ({columns})
    SELECT {given} FROM incoming_{table} AS i LEFT JOIN had USING (customer_id, {child})
    WHERE had.customer_id IS NULL OR ({given_values}) IS DISTINCT FROM ({had_values})
    ON CONFLICT (customer_id, {child}) DO UPDATE SET {assignments}
    """

# Customers whose rows are not what the snapshots in hand say, by any column of any table.
_DIFFERENT_CUSTOMERS: Final = """
    SELECT i.customer_id::text FROM incoming_customers AS i
    LEFT JOIN (SELECT * FROM customers WHERE customer_id = ANY(%s::uuid[])) AS had USING (customer_id)
    WHERE had.customer_id IS NULL OR ({given_values}) IS DISTINCT FROM ({had_values})
    """
_DIFFERENT_CHILDREN: Final = """
    SELECT DISTINCT customer_id::text FROM incoming_{table} AS i
    FULL JOIN (SELECT * FROM {table} WHERE customer_id = ANY(%s::uuid[])) AS had USING (customer_id, {child})
    WHERE i.{first} IS NULL OR had.{first} IS NULL OR ({given_values}) IS DISTINCT FROM ({had_values})
    """

_REMEMBER: Final = """
    INSERT INTO resync_keys (customer_id) SELECT unnest(%s::uuid[]) ON CONFLICT DO NOTHING
    """


def lock_versions(connection: Connection, ids: Iterable[str]) -> dict[str, int]:
    """Lock the rows of those customers that exist, in the order of their GUIDs; their versions. One statement."""
    with _cursor(connection) as cursor:
        return dict(cursor.execute(_LOCK, (_array(ids),)).fetchall())


def versions(connection: Connection, ids: Iterable[str]) -> dict[str, int]:
    """The versions of those customers that exist. Locks nothing."""
    with _cursor(connection) as cursor:
        return dict(cursor.execute(_VERSIONS, (_array(ids),)).fetchall())


def with_edits(connection: Connection, ids: Sequence[str], versions: Sequence[int]) -> set[str]:
    """Those of the customers with edits on top of these versions. One statement."""
    with _cursor(connection) as cursor:
        return {guid for (guid,) in cursor.execute(_EDITED, (_array(ids), _array(map(str, versions))))}


def insert(connection: Connection, frames: TableFrames) -> None:
    """Write customers that do not exist. Raises: `WriteConflict` when one of them does after all."""
    with _cursor(connection) as cursor:
        try:
            for table, frame in _pairs(frames):
                copy_into(cursor, table.name, frame)
        except psycopg.errors.UniqueViolation as error:
            raise WriteConflict("somebody else has written one of these customers meanwhile") from error


def update(connection: Connection, frames: TableFrames, ids: Iterable[str]) -> None:
    """Make the rows of customers that exist, and are locked, what is given."""
    array = _array(ids)
    with _cursor(connection) as cursor:
        _hand_over(cursor, frames)
        cursor.execute(_update_customers(), (array,))
        for table in (customer_addresses, customer_contacts):
            cursor.execute(_replace_children(table), (array,))


def different(connection: Connection, frames: TableFrames, ids: Collection[str]) -> set[str]:
    """Those of the customers that are missing, or have other rows than given. Locks nothing."""
    if not versions(connection, ids):
        return set(ids)
    array = _array(ids)
    found: set[str] = set()
    with _cursor(connection) as cursor:
        _hand_over(cursor, frames)
        for statement in _different():
            found.update(guid for (guid,) in cursor.execute(statement, (array,)))
    return found


def remember_keys(connection: Connection, ids: Iterable[str]) -> None:
    """Note customers that a resync has seen; once more changes nothing."""
    with _cursor(connection) as cursor:
        cursor.execute(_REMEMBER, (_array(ids),))


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    """A cursor of the driver's own, in the transaction of this connection."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor()


def _array(values: Iterable[str]) -> str:
    """A PostgreSQL array of GUIDs or numbers as text, which is by far the quickest parameter to make."""
    return "{" + ",".join(values) + "}"


def _pairs(frames: TableFrames) -> Iterable[tuple[Table, Any]]:
    return zip(TABLES, (frames.customers, frames.addresses, frames.contacts), strict=True)


def _hand_over(cursor: psycopg.Cursor[Any], frames: TableFrames) -> None:
    """Copy the rows into this connection's temporary tables, which are empty at the start of every transaction."""
    cursor.execute(_TEMPORARY)
    for table, frame in _pairs(frames):
        copy_into(cursor, f"incoming_{table.name}", frame)


_TEMPORARY: Final = "".join(
    f"CREATE TEMPORARY TABLE IF NOT EXISTS incoming_{table.name} (LIKE {table.name}) ON COMMIT DELETE ROWS;"
    for table in TABLES
).encode()


@cache
def _update_customers() -> bytes:
    assignments = ", ".join(f"{name} = i.{name}" for name in _values(customers))
    return _UPDATE_CUSTOMERS.format(assignments=assignments).encode()


@cache
def _replace_children(table: Table) -> bytes:
    names = [column.name for column in table.c]
    return _REPLACE_CHILDREN.format(
        table=table.name,
        child=_child(table),
        columns=", ".join(names),
        given=", ".join(f"i.{name}" for name in names),
        given_values=_row(table, "i"),
        had_values=_row(table, "had"),
        assignments=", ".join(f"{name} = excluded.{name}" for name in _values(table)),
    ).encode()


@cache
def _different() -> tuple[bytes, ...]:
    statements = [_DIFFERENT_CUSTOMERS.format(given_values=_row(customers, "i"), had_values=_row(customers, "had"))]
    statements += [
        _DIFFERENT_CHILDREN.format(
            table=table.name,
            child=_child(table),
            first=_values(table)[0],
            given_values=_row(table, "i"),
            had_values=_row(table, "had"),
        )
        for table in (customer_addresses, customer_contacts)
    ]
    return tuple(statement.encode() for statement in statements)


def _child(table: Table) -> str:
    """The column that names a child within its customer."""
    return [column.name for column in table.primary_key][-1]


def _values(table: Table) -> list[str]:
    """The columns that are not part of the key."""
    return [column.name for column in table.c if not column.primary_key]


def _row(table: Table, alias: str) -> str:
    """The values of a row for comparison; the type `json` has no equality of its own."""
    return ", ".join(
        f"{alias}.{column.name}::text" if isinstance(column.type, JSON) else f"{alias}.{column.name}"
        for column in table.c
        if not column.primary_key
    )
