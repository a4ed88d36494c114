"""Write small batches of snapshots: plain values and prepared SQL text, without the column library.

Writes the same rows as the columnar path (`tenten/sql/customer_frames.py` with `databases/`): a property test compares
them. PostgreSQL gets the rows as JSON documents, in one statement; SQLite, which has no round trips, row by row.
"""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Final

from sqlalchemy import Connection, Table

from tenten.avro.wire import Json
from tenten.runtime.errors import WriteConflict
from tenten.schemas.tables.channel import customer_addresses, customer_contacts, customers
from tenten.sql.arrays import pg_array_literal
from tenten.sql.customer_records import Row, TableRows, compact_json, table_rows
from tenten.sql.postgresql_driver import driver_cursor, driver_of
from tenten.sql.recordset import recordset_columns


def customers_with_edits(connection: Connection, versions: Mapping[str, int]) -> set[str]:
    """The customers whose outbox has an event that is unsettled, or was settled in a later version than the given one.

    One statement.
    """
    if connection.dialect.name == "sqlite":
        driver: sqlite3.Connection = driver_of(connection)
        edits = driver.execute(_EDITS["sqlite"], (compact_json(list(versions)),)).fetchall()
    else:
        with driver_cursor(connection) as cursor:
            ids = pg_array_literal(versions)
            edits = cursor.execute(_EDITS["postgresql"], (ids,), prepare=True).fetchall()
    return {guid for guid, is_unsettled, version in edits if is_unsettled or version > versions[guid]}


# By database: events that are unsettled, or were settled in a version.
_EDITS: Final = {
    "postgresql": """
        SELECT aggregateid::text, settled_at IS NULL, version FROM outbox
        WHERE aggregateid = ANY(%s::uuid[]) AND aggregatetype = 'customer'
              AND (settled_at IS NULL OR version IS NOT NULL)
        """,
    "sqlite": """
        SELECT aggregateid, settled_at IS NULL, version FROM outbox
        WHERE aggregateid IN (SELECT value FROM json_each(?)) AND aggregatetype = 'customer'
              AND (settled_at IS NULL OR version IS NOT NULL)
        """,
}


def write_snapshots(connection: Connection, snapshots: Sequence[Json], stored: Collection[str]) -> None:
    """Make the rows of these customers equal to their snapshots, and delete their base snapshots. Idempotent.

    `stored` are those of them that exist; their rows are locked. Addresses and contacts that the snapshots lack are
    deleted.
    Raises: `WriteConflict` when another process has inserted one of the others meanwhile.
    """
    rows = table_rows(snapshots, with_search_name=True)
    if connection.dialect.name == "sqlite":
        _write_in_sqlite(driver_of(connection), rows, stored)
    else:
        _write_in_postgresql(connection, rows, stored)


def _write_in_postgresql(connection: Connection, rows: TableRows, stored: Collection[str]) -> None:
    documents = {
        "customers": compact_json(rows.customers),
        "customer_addresses": compact_json(rows.addresses),
        "customer_contacts": compact_json(rows.contacts),
        "stored": pg_array_literal(stored),
    }
    with driver_cursor(connection) as cursor:
        written = cursor.execute(_write(has_stored=bool(stored)), documents, prepare=True).fetchone()
    if written != (len(rows.customers),):
        raise WriteConflict("another process has inserted one of these customers")


# Write customers, addresses and contacts from JSON documents; a customer that another process has inserted is left
# alone, which the number of written customers shows.
_WRITE: Final = """
    WITH written AS (
        INSERT INTO customers ({customers}) SELECT {customers}
        FROM json_to_recordset(%(customers)s::json) AS given ({customers_types})
        ON CONFLICT (customer_id) DO UPDATE SET {customers_assignments}
        WHERE customers.customer_id = ANY(%(stored)s::uuid[]) RETURNING 1
    ), addresses AS (
        INSERT INTO customer_addresses ({addresses}) SELECT {addresses}
        FROM json_to_recordset(%(customer_addresses)s::json) AS given ({addresses_types})
        ON CONFLICT (customer_id, address_id) DO UPDATE SET {addresses_assignments}
    ), contacts AS (
        INSERT INTO customer_contacts ({contacts}) SELECT {contacts}
        FROM json_to_recordset(%(customer_contacts)s::json) AS given ({contacts_types})
        ON CONFLICT (customer_id, contact_id) DO UPDATE SET {contacts_assignments}
    ) {delete_surplus}
    SELECT count(*) FROM written
    """

# The part for customers that exist: delete base snapshots, and addresses and contacts that the snapshots lack.
_DELETE_SURPLUS: Final = """
    , base_snapshots AS (
        DELETE FROM snapshots WHERE customer_id = ANY(%(stored)s::uuid[])
    ), surplus_addresses AS (
        DELETE FROM customer_addresses AS old WHERE old.customer_id = ANY(%(stored)s::uuid[]) AND NOT EXISTS (
            SELECT FROM json_to_recordset(%(customer_addresses)s::json) AS given (customer_id uuid, address_id uuid)
            WHERE given.customer_id = old.customer_id AND given.address_id = old.address_id)
    ), surplus_contacts AS (
        DELETE FROM customer_contacts AS old WHERE old.customer_id = ANY(%(stored)s::uuid[]) AND NOT EXISTS (
            SELECT FROM json_to_recordset(%(customer_contacts)s::json) AS given (customer_id uuid, contact_id uuid)
            WHERE given.customer_id = old.customer_id AND given.contact_id = old.contact_id)
    )
    """


@cache
def _write(*, has_stored: bool) -> bytes:
    parts = {"delete_surplus": _DELETE_SURPLUS if has_stored else ""}
    for name, table in (("customers", customers), ("addresses", customer_addresses), ("contacts", customer_contacts)):
        columns = recordset_columns(table)
        parts[name] = ", ".join(columns.names)
        parts[f"{name}_types"] = ", ".join(columns.typed)
        parts[f"{name}_assignments"] = _assignments(table)
    return _WRITE.format(**parts).encode()


def _assignments(table: Table) -> str:
    return ", ".join(f"{column.name} = excluded.{column.name}" for column in table.c if not column.primary_key)


def _write_in_sqlite(driver: sqlite3.Connection, rows: TableRows, stored: Collection[str]) -> None:
    lists = ("address_books", "affiliations", "attributes")
    customer_rows = [{**row, **{name: compact_json(row[name]) for name in lists}} for row in rows.customers]
    driver.executemany(_upsert(customers), customer_rows)
    for table, children in ((customer_addresses, rows.addresses), (customer_contacts, rows.contacts)):
        if stored:
            _delete_surplus(driver, table, children, stored)
        driver.executemany(_upsert(table), children)
    if stored:
        driver.execute("DELETE FROM snapshots WHERE customer_id IN (SELECT value FROM json_each(?))", (_ids(stored),))


def _delete_surplus(driver: sqlite3.Connection, table: Table, rows: Sequence[Row], stored: Collection[str]) -> None:
    """Delete the children of stored customers that are not among these rows."""
    keys = [column.name for column in table.primary_key]
    wanted = {tuple(row[key] for key in keys) for row in rows}
    surplus = [key for key in driver.execute(_select_keys(table), (_ids(stored),)) if key not in wanted]
    driver.executemany(_delete(table), surplus)


def _ids(ids: Collection[str]) -> str:
    return compact_json(list(ids))


@cache
def _upsert(table: Table) -> str:
    names = [column.name for column in table.c]
    keys = ", ".join(column.name for column in table.primary_key)
    values = ", ".join(f":{name}" for name in names)
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values}) "  # noqa: S608 - our own names
        f"ON CONFLICT ({keys}) DO UPDATE SET {_assignments(table)}"
    )


@cache
def _select_keys(table: Table) -> str:
    keys = ", ".join(column.name for column in table.primary_key)
    return f"SELECT {keys} FROM {table.name} WHERE customer_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own names


@cache
def _delete(table: Table) -> str:
    keys = " AND ".join(f"{column.name} = ?" for column in table.primary_key)
    return f"DELETE FROM {table.name} WHERE {keys}"  # noqa: S608 - our own names
