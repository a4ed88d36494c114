"""A customer's state in a form that can be compared, from Avro or from database rows, with the contract's names."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

State = dict[str, Any]
Row = Mapping[str, Any]

TEXTS: Final = (
    "legal_entity",
    "title",
    "first_name",
    "middle_name",
    "last_name",
    "organization_name",
    "language",
    "currency",
    "customer_group",
    "receipt_email",
    "tax_number",
)
SYMBOLS: Final = ("customer_type", "receipt_preference")
PRIMARIES: Final = {"primary_address": "addresses", "primary_phone": "contacts", "primary_email": "contacts"}
_ADDRESS: Final = ("name", "street", "city", "county", "state", "postal_code", "country")
_VALUES: Final = ("text", "integer", "decimal", "boolean")


def state_of_avro(customer: Row) -> State:
    """The state in a decoded event or snapshot."""
    return _state(customer, customer["addresses"], customer["contacts"], customer["attributes"])


def state_of_rows(customer: Row, addresses: Iterable[Row], contacts: Iterable[Row]) -> State:
    """The state in the rows of one customer, of PostgreSQL or SQLite."""
    return _state(customer, addresses, contacts, parsed(customer["attributes"]))


def _state(customer: Row, addresses: Iterable[Row], contacts: Iterable[Row], attributes: Iterable[Row]) -> State:
    return {
        **{name: customer[name] for name in TEXTS},
        **{name: customer[name].lower() for name in SYMBOLS},
        **{name: None if customer[name] is None else str(customer[name]) for name in PRIMARIES},
        "address_books": sorted(parsed(customer["address_books"])),
        "affiliations": sorted(parsed(customer["affiliations"])),
        "addresses": {str(address["address_id"]): _address(address) for address in addresses},
        "contacts": {str(contact["contact_id"]): _contact(contact) for contact in contacts},
        "attributes": {attribute["name"]: _attribute(attribute) for attribute in attributes},
    }


def parsed(value: Any) -> Any:
    """A JSON column: text in SQLite, parsed already in PostgreSQL."""
    return json.loads(value) if isinstance(value, str) else value


def _address(row: Row) -> State:
    return {
        **{name: row[name] for name in _ADDRESS},
        "purpose": row["purpose"].lower(),
        "updated_at": _time(row["updated_at"]),
    }


def _contact(row: Row) -> State:
    return {
        "kind": row["kind"].lower(),
        "value": row["value"],
        "marketing_consent": bool(row["marketing_consent"]),
        "description": row["description"],
    }


def _attribute(row: Row) -> State:
    """The only value that is set; a decimal as a number, in any notation."""
    values = {name: row[name] for name in _VALUES if row.get(name) is not None}
    if "decimal" in values:
        values["decimal"] = Decimal(values["decimal"]).normalize()
    return values


def _time(value: Any) -> datetime:
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)
