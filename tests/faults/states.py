"""A customer's state in one plain form, whether it came from Avro or from a database's rows, to be compared.

Nothing here knows the product; the names are those of the contract.
"""

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
        "addresses": {str(one["address_id"]): _address(one) for one in addresses},
        "contacts": {str(one["contact_id"]): _contact(one) for one in contacts},
        "attributes": {one["name"]: _attribute(one) for one in attributes},
    }


def parsed(value: Any) -> Any:
    """A JSON column: text in SQLite, parsed already in PostgreSQL."""
    return json.loads(value) if isinstance(value, str) else value


def _address(one: Row) -> State:
    return {
        **{name: one[name] for name in _ADDRESS},
        "purpose": one["purpose"].lower(),
        "updated_at": _time(one["updated_at"]),
    }


def _contact(one: Row) -> State:
    return {
        "kind": one["kind"].lower(),
        "value": one["value"],
        "marketing_consent": bool(one["marketing_consent"]),
        "description": one["description"],
    }


def _attribute(one: Row) -> State:
    """The one value that is set; a decimal as the number it is, however it is written."""
    values = {name: one[name] for name in _VALUES if one.get(name) is not None}
    if "decimal" in values:
        values["decimal"] = Decimal(values["decimal"]).normalize()
    return values


def _time(value: Any) -> datetime:
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)
