"""Read and write customers as rows, on PostgreSQL and SQLite.

For a clerk's changes and for individual events; whole batches are written as columns (`tenten/sql/customer_frames.py`).
The number of statements does not grow with the number of customers: PostgreSQL receives ids as one array and rows as
one JSON document; SQLite, which has no round trips, receives ids as JSON and runs one prepared statement per table over
the rows.
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
"""Name of each scalar field, and the enum of its values, which the tables hold in lower case."""


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
    """Headquarters only: a channel deletes erased customers."""
    state: CustomerState

    @property
    def erased(self) -> bool:
        """True if the customer is erased; the state is then empty but for the required fields."""
        return self.erased_at is not None


def read_customers(
    connection: Connection, tables: CustomerTables, ids: Iterable[str], *, for_update: bool = False
) -> dict[str, StoredCustomer]:
    """The customers that exist, by id, in the order of their ids. At most three statements.

    `for_update` locks their rows in the order of their ids until the transaction ends, and may block; in SQLite the
    transaction is the only writer anyway.
    """
    sorted_ids = sorted(set(ids))
    if not sorted_ids:
        return {}
    query = select(tables.customers).where(is_one_of(connection, tables.customers.c.customer_id, sorted_ids))
    query = query.order_by(tables.customers.c.customer_id)
    # SQLAlchemy omits FOR UPDATE on SQLite.
    rows = connection.execute(query.with_for_update() if for_update else query).mappings().all()
    if not rows:
        return {}
    addresses = _children(connection, tables.addresses, sorted_ids)
    contacts = _children(connection, tables.contacts, sorted_ids)
    return {
        row["customer_id"]: _stored_customer(
            row, addresses.get(row["customer_id"], ()), contacts.get(row["customer_id"], ())
        )
        for row in rows
    }


def _children(connection: Connection, table: Table, ids: Sequence[str]) -> dict[str, list[RowMapping]]:
    """The child rows by customer, sorted by their own id."""
    children: dict[str, list[RowMapping]] = {}
    customer_id, child_id = table.primary_key.columns
    for row in connection.execute(
        select(table).where(is_one_of(connection, customer_id, ids)).order_by(customer_id, child_id)
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
    """Insert or update these customers, at most one entry each, with their addresses and contacts. At most five
    statements.

    `before` is the result of `read_customers` for them in this transaction: only differences from it are written, and
    its further addresses and contacts are deleted.
    """
    changed = _by_id(customer for customer in customers if before.get(customer.customer_id) != customer)
    _upsert(connection, tables.customers, [customer_row(customer, tables.customers) for customer in changed])
    for table, rows_of in ((tables.addresses, address_rows), (tables.contacts, contact_rows)):
        old_rows: dict[tuple[str, str], Row] = {}
        new_rows: dict[tuple[str, str], Row] = {}
        for customer in changed:
            new_rows.update(rows_of(customer))
            if customer.customer_id in before:
                old_rows.update(rows_of(before[customer.customer_id]))
        _upsert(connection, table, [row for key, row in new_rows.items() if old_rows.get(key) != row])
        _delete_children(connection, table, [key for key in old_rows if key not in new_rows])


def _by_id(customers: Iterable[StoredCustomer]) -> list[StoredCustomer]:
    """In the order in which rows are locked."""
    return sorted(customers, key=lambda customer: customer.customer_id)


def insert_customers(connection: Connection, tables: CustomerTables, customers: Sequence[StoredCustomer]) -> None:
    """Insert customers that do not exist yet, in the order of their ids. At most three statements.

    Raises: `sqlalchemy.exc.IntegrityError` if a customer or an account number exists already.
    """
    new = _by_id(customers)
    _insert(connection, tables.customers, [customer_row(customer, tables.customers) for customer in new])
    _insert(connection, tables.addresses, [row for customer in new for row in address_rows(customer).values()])
    _insert(connection, tables.contacts, [row for customer in new for row in contact_rows(customer).values()])


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(_insert_document(table), {"rows": rows_as_document(rows)})
    else:
        connection.execute(insert(table), rows)


def customer_row(stored: StoredCustomer, table: Table) -> Row:
    """The row of `customers` in this database's table."""
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
        "attributes": [{"name": attribute.name, **attribute_value(attribute)} for attribute in state.attributes],
    }
    if "search_name" in table.c:
        row["search_name"] = search_name(state)
    if "erased_at" in table.c:
        row["erased_at"] = stored.erased_at
    return row


def address_rows(stored: StoredCustomer) -> dict[tuple[str, str], Row]:
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


def contact_rows(stored: StoredCustomer) -> dict[tuple[str, str], Row]:
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
        connection.execute(_upsert_document(table), {"rows": rows_as_document(rows)})
    else:
        connection.execute(_upsert_row(table), rows)


def _delete_children(connection: Connection, table: Table, keys: list[tuple[str, str]]) -> None:
    if not keys:
        return
    customer_id, child_id = table.primary_key.columns
    rows = [{f"key_{customer_id.name}": customer, f"key_{child_id.name}": child} for customer, child in keys]
    if connection.dialect.name == "postgresql":
        connection.execute(_delete_document(table), {"rows": rows_as_document(rows)})
    else:
        condition = (column == bindparam(f"key_{column.name}") for column in (customer_id, child_id))
        connection.execute(delete(table).where(*condition), rows)


def rows_as_document(rows: list[Row]) -> str:
    """The rows as one JSON document; its lists have the format of SQLAlchemy's and polars' JSON: compact, in UTF-8."""
    return json.dumps(rows, default=datetime.isoformat, ensure_ascii=False, separators=(",", ":"))


@cache
def _insert_document(table: Table) -> "postgresql.Insert":
    """Insert the rows of a JSON document, given as one parameter."""
    from sqlalchemy.dialects import postgresql  # slow to import, not needed on SQLite

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
    typed = [column(prefix + known.name, known.type) for known in columns]
    return document.table_valued(*typed, name="given").render_derived(with_types=True)


def _values(table: Table) -> list[str]:
    """The columns that are not part of the primary key."""
    return [column.name for column in table.c if not column.primary_key]


def delete_customers(connection: Connection, tables: CustomerTables, ids: Iterable[str]) -> None:
    """Delete these customers, as far as they exist, with their addresses and contacts. Three statements."""
    sorted_ids = sorted(set(ids))
    if not sorted_ids:
        return
    for table in (tables.contacts, tables.addresses, tables.customers):
        connection.execute(delete(table).where(is_one_of(connection, table.c.customer_id, sorted_ids)))
