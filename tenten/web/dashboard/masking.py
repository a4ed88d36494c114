"""Personal data as the dashboard shows it: only its kind, until an operator asks to see it."""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from tenten.schemas.messages import Address, Contact, CustomerState

HIDDEN: Final = "••••••"

_PLAIN: Final = frozenset(
    {
        "legal_entity",
        "customer_type",
        "language",
        "currency",
        "customer_group",
        "receipt_preference",
        "address_books",
        "affiliations",
    }
)
"""Fields, and paths of the audit, that say nothing about a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownField:
    """A field of a customer, as it is shown."""

    label: str
    value: str
    is_hidden: bool


def shown_fields(state: CustomerState, *, is_open: bool) -> list[ShownField]:
    """The fields that have a value."""
    shown = []
    for field in fields(CustomerState):
        value = getattr(state, field.name)
        if field.name in ("addresses", "contacts", "attributes", "primary_address", "primary_phone", "primary_email"):
            continue
        if value not in (None, "", ()):
            text = ", ".join(value) if isinstance(value, tuple) else str(value)
            text = text.lower() if isinstance(value, StrEnum) else text
            shown.append(_field(field.name.replace("_", " "), text, is_open=is_open or field.name in _PLAIN))
    shown += [_field(_kind(contact), contact.value, is_open=is_open) for contact in state.contacts]
    shown += [_field("address", _line(address), is_open=is_open) for address in state.addresses]
    for attribute in state.attributes:
        values = (attribute.text, attribute.integer, attribute.decimal, attribute.boolean)
        value = next((str(value) for value in values if value is not None), "")
        shown.append(_field(attribute.name, value, is_open=is_open))
    return shown


def shown_name(state: CustomerState, *, is_open: bool) -> str:
    """The name, or the first letters of its words."""
    name = " ".join(filter(None, (state.first_name, state.middle_name, state.last_name))) or state.organization_name
    if is_open or not name:
        return name
    return " ".join(f"{word[0]}{HIDDEN[:3]}" for word in name.split())


def shown_value(path: str, value: Any, *, is_open: bool) -> str:
    """The value at a path of the audit."""
    if value in (None, "", [], {}):
        return ""
    if not is_open and path.strip("/").split("/")[0] not in _PLAIN:
        return HIDDEN
    if isinstance(value, dict):
        return ", ".join(f"{name}: {part}" for name, part in value.items() if part not in (None, ""))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def masked(value: Any) -> Any:
    """A decoded record in which every text, number and time is hidden: its form remains."""
    if isinstance(value, dict):
        return {name: masked(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [masked(part) for part in value]
    return value if value is None or isinstance(value, bool) else HIDDEN


def plain(value: Any) -> Any:
    """A decoded record in values that JSON has."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _field(label: str, value: str, *, is_open: bool) -> ShownField:
    return ShownField(label=label, value=value if is_open else HIDDEN, is_hidden=not is_open)


def _kind(contact: Contact) -> str:
    return "phone" if contact.kind == "PHONE" else "e-mail"


def _line(address: Address) -> str:
    parts = (address.name, address.street, address.postal_code, address.city, address.state, address.country)
    return ", ".join(filter(None, parts))
