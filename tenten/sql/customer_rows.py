"""Customers as rows: the plain way between `CustomerState` and the tables, one customer or some, PostgreSQL or SQLite.

For a clerk's own write and for what is rare in a batch; whole batches go as columns (`tenten/sql/customer_frames.py`).
However many customers there are, PostgreSQL is asked the same few statements: ids travel as one array, rows as one JSON
document. SQLite, which has no round trips, takes the ids as JSON and runs one prepared statement per table over the
rows.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Delete,
    Insert,
    RowMapping,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy.dialects import sqlite

from tenten.rules.customer import attribute_value, search_name
from tenten.schemas.customer_fields import scalar_fields
from tenten.schemas.messages import Address, Attribute, Contact, CustomerState
from tenten.schemas.tables import channel, headquarters
from tenten.sql.arrays import is_one_of

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

Row = dict[str, Any]

_SCALARS: Final = tuple((field.name, field.symbols) for field in scalar_fields())
"""The scalar fields; enums are in lower case in the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerTables:
    """The three tables that hold customers in one database."""

    customers: Table
    addresses: Table
    contacts: Table


HEADQUARTERS_TABLES: Final = CustomerTables(
    customers=headquarters.customers,
    addresses=headquarters.customer_addresses,
    contacts=headquarters.customer_contacts,
)
CHANNEL_TABLES: Final = CustomerTables(
    customers=channel.customers,
    addresses=channel.customer_addresses,
    contacts=channel.customer_contacts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCustomer:
    """A customer as a database holds it."""

    customer_id: str
    account_number: str | None
    """None while pending."""
    version: int
    """0 in a channel before the first snapshot."""
    updated_at: datetime
    erased_at: datetime | None = None
    """Headquarters only: a channel keeps nothing of an erased customer."""
    state: CustomerState

    @property
    def erased(self) -> bool:
        """True when the customer is erased and the state but a shell."""
        return self.erased_at is not None


def read_customers(
    connection: Connection, tables: CustomerTables, ids: Iterable[str], *, for_update: bool = False
) -> dict[str, StoredCustomer]:
    """Those of the customers that exist, by id, in the order of their ids. At most three statements.

    `for_update` locks their rows in the order of their ids until the transaction ends, and may wait for them; in SQLite
    the transaction is the only writer as it is.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    query = select(tables.customers).where(is_one_of(connection, tables.customers.c.customer_id, wanted))
    query = query.order_by(tables.customers.c.customer_id)
    # SQLAlchemy leaves FOR UPDATE out where the database has none.
    found = connection.execute(query.with_for_update() if for_update else query).mappings().all()
    if not found:
        return {}
    addresses = _children(connection, tables.addresses, wanted)
    contacts = _children(connection, tables.contacts, wanted)
    return {
        row["customer_id"]: _stored_customer(
            row, addresses.get(row["customer_id"], ()), contacts.get(row["customer_id"], ())
        )
        for row in found
    }


def _children(connection: Connection, table: Table, ids: Sequence[str]) -> dict[str, list[RowMapping]]:
    """The child rows of each customer, sorted by their own id."""
    children: dict[str, list[RowMapping]] = {}
    owner, own = table.primary_key.columns
    for row in connection.execute(
        select(table).where(is_one_of(connection, owner, ids)).order_by(owner, own)
    ).mappings():
        children.setdefault(row["customer_id"], []).append(row)
    return children


def _stored_customer(
    row: RowMapping, addresses: Iterable[RowMapping], contacts: Iterable[RowMapping]
) -> StoredCustomer:
    scalars: dict[str, Any] = {
        name: row[name] if symbols is None else symbols(row[name].upper()) for name, symbols in _SCALARS
    }
    state = CustomerState(
        **scalars,
        address_books=tuple(row["address_books"]),
        affiliations=tuple(row["affiliations"]),
        addresses=tuple(_address(address) for address in addresses),
        contacts=tuple(_contact(contact) for contact in contacts),
        attributes=tuple(_attribute(attribute) for attribute in row["attributes"]),
    )
    return StoredCustomer(
        customer_id=row["customer_id"],
        account_number=row["account_number"],
        version=row["version"],
        updated_at=row["updated_at"],
        erased_at=row.get("erased_at"),
        state=state,
    )


def _address(row: RowMapping) -> Address:
    fields = {name: value for name, value in row.items() if name != "customer_id"}
    return Address(**{**fields, "purpose": row["purpose"].upper()})


def _contact(row: RowMapping) -> Contact:
    fields = {name: value for name, value in row.items() if name != "customer_id"}
    return Contact(**{**fields, "kind": row["kind"].upper()})


def _attribute(value: Mapping[str, Any]) -> Attribute:
    decimal = value.get("decimal")
    return Attribute(
        name=value["name"],
        text=value.get("text"),
        integer=value.get("integer"),
        decimal=None if decimal is None else Decimal(decimal),
        boolean=value.get("boolean"),
    )


def write_customers(
    connection: Connection,
    tables: CustomerTables,
    customers: Sequence[StoredCustomer],
    before: Mapping[str, StoredCustomer],
) -> None:
    """Make the rows of these customers what is given, one entry per customer. At most five statements.

    `before` is what `read_customers` gave for them in this transaction: only addresses and contacts that differ from it
    are written, only those that it has in addition are deleted, and a customer equal to it costs nothing.
    """
    changed = sorted((one for one in customers if before.get(one.customer_id) != one), key=lambda one: one.customer_id)
    _upsert(connection, tables.customers, [_customer_row(one, tables.customers) for one in changed])
    for table, rows_of in ((tables.addresses, _address_rows), (tables.contacts, _contact_rows)):
        had: dict[tuple[str, str], Row] = {}
        has: dict[tuple[str, str], Row] = {}
        for one in changed:
            has.update(rows_of(one))
            if one.customer_id in before:
                had.update(rows_of(before[one.customer_id]))
        _upsert(connection, table, [row for key, row in has.items() if had.get(key) != row])
        _delete_children(connection, table, [key for key in had if key not in has])


def insert_customers(connection: Connection, tables: CustomerTables, customers: Sequence[StoredCustomer]) -> None:
    """Write customers that do not exist yet, in the order of their ids. At most three statements.

    Raises: `sqlalchemy.exc.IntegrityError` when one of them, or its account number, exists after all.
    """
    new = sorted(customers, key=lambda one: one.customer_id)
    _insert(connection, tables.customers, [_customer_row(one, tables.customers) for one in new])
    _insert(connection, tables.addresses, [row for one in new for row in _address_rows(one).values()])
    _insert(connection, tables.contacts, [row for one in new for row in _contact_rows(one).values()])


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(_insert_document(table), {"rows": _document(rows)})
    else:
        connection.execute(insert(table), rows)


def _customer_row(stored: StoredCustomer, table: Table) -> Row:
    state = stored.state
    row: Row = {
        "customer_id": stored.customer_id,
        "account_number": stored.account_number,
        "version": stored.version,
        "updated_at": stored.updated_at,
        **{name: getattr(state, name) for name, symbols in _SCALARS if symbols is None},
        **{name: getattr(state, name).value.lower() for name, symbols in _SCALARS if symbols is not None},
        "address_books": list(state.address_books),
        "affiliations": list(state.affiliations),
        "attributes": [{"name": one.name, **attribute_value(one)} for one in state.attributes],
    }
    if "search_name" in table.c:
        row["search_name"] = search_name(state)
    if "erased_at" in table.c:
        row["erased_at"] = stored.erased_at
    return row


def _address_rows(stored: StoredCustomer) -> dict[tuple[str, str], Row]:
    """The rows of `customer_addresses`, by primary key."""
    return {
        (stored.customer_id, address.address_id): {
            "customer_id": stored.customer_id,
            "address_id": address.address_id,
            "purpose": address.purpose.lower(),
            "name": address.name,
            "street": address.street,
            "city": address.city,
            "county": address.county,
            "state": address.state,
            "postal_code": address.postal_code,
            "country": address.country,
            "updated_at": address.updated_at,
        }
        for address in stored.state.addresses
    }


def _contact_rows(stored: StoredCustomer) -> dict[tuple[str, str], Row]:
    """The rows of `customer_contacts`, by primary key."""
    return {
        (stored.customer_id, contact.contact_id): {
            "customer_id": stored.customer_id,
            "contact_id": contact.contact_id,
            "kind": contact.kind.lower(),
            "value": contact.value,
            "marketing_consent": contact.marketing_consent,
            "description": contact.description,
        }
        for contact in stored.state.contacts
    }


def _upsert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(_upsert_document(table), {"rows": _document(rows)})
    else:
        connection.execute(_upsert_row(table), rows)


def _delete_children(connection: Connection, table: Table, keys: list[tuple[str, str]]) -> None:
    if not keys:
        return
    owner, own = table.primary_key.columns
    rows = [{f"key_{owner.name}": customer_id, f"key_{own.name}": child_id} for customer_id, child_id in keys]
    if connection.dialect.name == "postgresql":
        connection.execute(_delete_document(table), {"rows": _document(rows)})
    else:
        condition = (owner == bindparam(f"key_{owner.name}"), own == bindparam(f"key_{own.name}"))
        connection.execute(delete(table).where(*condition), rows)


def _document(rows: list[Row]) -> str:
    """The rows as one JSON document; lists inside look as SQLAlchemy's and polars' own JSON, compact and in UTF-8."""
    return json.dumps(rows, default=datetime.isoformat, ensure_ascii=False, separators=(",", ":"))


@cache
def _insert_document(table: Table) -> "postgresql.Insert":
    """Rows from a JSON document: one statement and one parameter, however many."""
    from sqlalchemy.dialects import postgresql  # slow to import, and of no use on SQLite

    names = [column.name for column in table.c]
    return postgresql.insert(table).from_select(names, select(_rows_of_document(list(table.c), prefix="")))


@cache
def _upsert_row(table: Table) -> Insert:
    upsert = sqlite.insert(table)
    return upsert.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: upsert.excluded[name] for name in _values(table)},
    )


@cache
def _upsert_document(table: Table) -> Insert:
    upsert = _insert_document(table)
    return upsert.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: upsert.excluded[name] for name in _values(table)},
    )


@cache
def _delete_document(table: Table) -> Delete:
    keys = list(table.primary_key.columns)
    rows = _rows_of_document(keys, prefix="key_")
    return delete(table).where(tuple_(*keys).in_(select(rows)))


def _rows_of_document(columns: Sequence[Column[Any]], prefix: str) -> TableValuedAlias:
    """The parameter `rows`, a JSON array of objects, as rows with the types of these columns."""
    document = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
    names = [column(prefix + one.name, one.type) for one in columns]
    return document.table_valued(*names, name="given").render_derived(with_types=True)


def _values(table: Table) -> list[str]:
    """The columns that are not part of the primary key."""
    return [one.name for one in table.c if not one.primary_key]


def delete_customers(connection: Connection, tables: CustomerTables, ids: Iterable[str]) -> None:
    """Delete these customers with their addresses and contacts. Three statements; those that do not exist are fine."""
    gone = sorted(set(ids))
    if not gone:
        return
    for table in (tables.contacts, tables.addresses, tables.customers):
        connection.execute(delete(table).where(is_one_of(connection, table.c.customer_id, gone)))
