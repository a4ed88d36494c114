"""Customers as rows of the three tables, straight from decoded Avro records: for small batches.

The same rows as those of `customer_frames.py` and `customer_rows.py`: property tests compare them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from tenten.avro.wire import Json
from tenten.rules.customer import SEARCHED_NAMES, attribute_value, fold_for_search
from tenten.schemas.customer_fields import scalar_fields
from tenten.schemas.messages import Attribute

Row: TypeAlias = dict[str, Any]

_SCALARS: Final = tuple(field.name for field in scalar_fields() if field.symbols is None)
_ENUMS: Final = tuple(field.name for field in scalar_fields() if field.symbols is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRows:
    """The rows of some customers by column name; times as ISO 8601 text, lists as they are."""

    customers: list[Row]
    addresses: list[Row]
    contacts: list[Row]


def table_rows(records: Iterable[Json], *, with_search_name: bool) -> TableRows:
    """The rows of these customers, in their order, given as decoded `Customer` records.

    Rows of `customers` have the name that the clerk's search reads only where it is asked for: in a channel.
    """
    rows = TableRows(customers=[], addresses=[], contacts=[])
    for record in records:
        customer_id, state = record["customer_id"], record["customer"]
        row = _customer_row(record, state)
        if with_search_name:
            row["search_name"] = fold_for_search(" ".join(filter(None, map(state.__getitem__, SEARCHED_NAMES))))
        rows.customers.append(row)
        rows.addresses.extend(_address_row(customer_id, address) for address in state["addresses"])
        rows.contacts.extend(_contact_row(customer_id, contact) for contact in state["contacts"])
    return rows


def _customer_row(record: Json, state: Mapping[str, Any]) -> Row:
    row = {name: state[name] for name in _SCALARS}
    for name in _ENUMS:
        row[name] = state[name].lower()
    row["customer_id"] = record["customer_id"]
    row["account_number"] = record["account_number"]
    row["version"] = record["version"]
    row["updated_at"] = iso_time(record["updated_at"])
    row["address_books"] = state["address_books"]
    row["affiliations"] = state["affiliations"]
    row["attributes"] = [
        {"name": attribute["name"], **attribute_value(Attribute(**attribute))} for attribute in state["attributes"]
    ]
    return row


def _address_row(customer_id: str, address: Mapping[str, Any]) -> Row:
    lower_case = {"purpose": address["purpose"].lower(), "updated_at": iso_time(address["updated_at"])}
    return {**address, **lower_case, "customer_id": customer_id}


def _contact_row(customer_id: str, contact: Mapping[str, Any]) -> Row:
    return {**contact, "kind": contact["kind"].lower(), "customer_id": customer_id}


def iso_time(value: datetime) -> str:
    """The time as both databases and JSON documents take it."""
    return value.isoformat(timespec="microseconds")


def compact_json(value: object) -> str:
    """JSON as the other paths write it: compact, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
