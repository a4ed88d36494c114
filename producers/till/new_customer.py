"""Write a new customer with its event: the same rows as `customer_change.write`, at a fraction of its cost.

PostgreSQL: one statement, which is a transaction, so one round trip. SQLite: one prepared statement a row. The driver's
own connection is used, not SQLAlchemy's.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import JSON, Table

from tenten.avro.record_encoder import encode_record
from tenten.producers.outbox.customer_events import size_violations
from tenten.producers.outbox.table import CUSTOMER, WAKE_CHANNEL
from tenten.producers.till.customer_change import Change
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.request_keys import INSERT_POSTGRESQL, INSERT_SQLITE
from tenten.runtime.errors import CustomerRejected
from tenten.runtime.failpoints import failpoint
from tenten.runtime.tracing import current_traceparent
from tenten.schemas.tables.channel import customer_addresses, customer_contacts, customers
from tenten.schemas.tables.types import UtcTime, as_sqlite_time
from tenten.sql.customer_rows import Row, address_rows, contact_rows, customer_row, rows_as_document
from tenten.sql.driver_transactions import postgresql_statement, sqlite_transaction
from tenten.sql.recordset import insert_document

_TABLES: Final = (customers, customer_addresses, customer_contacts)

# Append the event, and queue it: the first statement's row is the second's.
_EVENT_SQLITE: Final = (
    """
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at, traceparent)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    """,
    "INSERT INTO outbox_queue (sequence) VALUES (last_insert_rowid())",
)


def write_new_customer(channel: OpenChannel, change: Change, now: datetime, digest: str | None = None) -> None:
    """Write a new customer and its event in one SQL transaction, and with a `digest` the customer's id as an
    idempotency key; the relay is notified.

    Raises: `CustomerRejected` if the event is too large; the driver's errors; its `IntegrityError` if the customer, the
    event or the key is recorded already.
    """
    customer = change.after
    rows = (
        [customer_row(customer, customers)],
        list(address_rows(customer).values()),
        list(contact_rows(customer).values()),
    )
    event = change.event
    payload = encode_record("CustomerEvent", event)
    if violations := size_violations(payload):
        raise CustomerRejected(violations)
    appended = (event.event_id, CUSTOMER, event.customer_id, event.kind.type_name, payload)
    traceparent = current_traceparent()
    failpoint("customers.before_commit")
    if channel.engine.dialect.name == "postgresql":
        documents = [rows_as_document(part) for part in rows]
        key = () if digest is None else (event.customer_id, digest, now)
        postgresql_statement(
            channel.engine, _postgresql(with_key=digest is not None), (*documents, *appended, now, traceparent, *key)
        )
    else:
        with sqlite_transaction(channel.engine) as driver, closing(driver.cursor()) as cursor:
            _insert(cursor, rows)
            cursor.execute(_EVENT_SQLITE[0], (*appended, as_sqlite_time(now), traceparent))
            cursor.execute(_EVENT_SQLITE[1])
            if digest is not None:
                cursor.execute(INSERT_SQLITE, (event.customer_id, digest, as_sqlite_time(now)))
    failpoint("customers.after_commit")


def _insert(cursor: sqlite3.Cursor, rows: Sequence[Sequence[Row]]) -> None:
    for table, its_rows in zip(_TABLES, rows, strict=True):
        statement, names, converted = _sqlite(table)
        for row in its_rows:
            values = list(map(row.__getitem__, names))
            for index, convert in converted:
                values[index] = convert(values[index])
            cursor.execute(statement, values)


@cache
def _sqlite(table: Table) -> tuple[str, Sequence[str], Sequence[tuple[int, Callable[[Any], str]]]]:
    """The statement that inserts a row, its columns in the order of the parameters, and how some values are stored."""
    names = [column.name for column in table.c]
    columns, marks = ", ".join(names), ", ".join("?" * len(names))
    statement = f"INSERT INTO {table.name} ({columns}) VALUES ({marks})"  # noqa: S608 - our own names
    stored_as: list[tuple[type, Callable[[Any], str]]] = [(JSON, json.dumps), (UtcTime, as_sqlite_time)]
    converted = [
        (index, convert)
        for index, column in enumerate(table.c)
        for kind, convert in stored_as
        if isinstance(column.type, kind)
    ]
    return statement, names, converted


@cache
def _postgresql(*, with_key: bool) -> str:
    """Insert the customer, its addresses and its contacts, each from a JSON document; append and queue the event;
    record the key.

    The relay is notified at the commit.
    """
    inserts = ",\n".join(f"inserted_{table.name} AS ({insert_document(table)})" for table in _TABLES)
    return f"""
        WITH {inserts},
        appended AS (
            INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at, traceparent)
            VALUES (%s, %s, %s, %s, %b, %s, %s) RETURNING sequence
        ), queued AS (
            INSERT INTO outbox_queue (sequence) SELECT sequence FROM appended
        ){f", keyed AS ({INSERT_POSTGRESQL})" if with_key else ""}
        SELECT pg_notify('{WAKE_CHANNEL}', '')
        """  # noqa: S608 - our own names
