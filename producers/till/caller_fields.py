"""The fields of reasons as the caller named them in the input, instead of the paths that events use.

A path names an address or a contact by its GUID, which no caller has entered: `contacts/<id>`, `addresses/<id>/city`.
Positions in brackets count from 0, as in the lists of `CustomerView.state` and in the arguments of the API.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from tenten.schemas.messages import Address, Contact, CustomerState, Reason

_NUMBERED: Final = frozenset(("lines", "charges", "taxes", "payments", "control_totals"))
"""The lists of a transaction; in paths, their members are counted from 1."""

_ABOUT_IDS: Final = frozenset(("invalid_id", "duplicate"))
"""The codes of reasons about the id of an address or a contact, not about its content."""


def customer_reasons(reasons: Iterable[Reason], state: CustomerState) -> tuple[Reason, ...]:
    """The reasons with the fields of this customer as the caller named them."""
    return tuple(replace(reason, field=_field_of_customer(reason, state)) for reason in reasons)


def transaction_reasons(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The reasons with the fields of an order, a sale or an end of day as the caller named them."""
    return tuple(replace(reason, field=caller_field(reason.field)) for reason in reasons)


def _field_of_customer(reason: Reason, state: CustomerState) -> str:
    part, _, rest = reason.field.partition("/")
    if reason.code in _ABOUT_IDS and part in ("addresses", "contacts") and rest and "/" not in rest:
        member = {"addresses": "address_id", "contacts": "contact_id"}[part]
        return f"{_numbered(part, _position(_members(state, part), rest))}.{member}"
    return caller_field(reason.field, state)


def caller_field(path: str, state: CustomerState | None = None) -> str:
    """The caller's name of a path: the primary contacts of `state` are `email` and `phone`, its primary address is
    `address`, other members of lists have their position. Other paths are unchanged.

    >>> caller_field("lines/4/quantity"), caller_field("attributes/size"), caller_field("last_name")
    ('lines[3].quantity', 'attributes/size', 'last_name')
    """
    part, _, rest = path.partition("/")
    key, _, name = rest.partition("/")
    if part == "delivery_address" and rest:
        return f"{part}.{rest}"
    if part in _NUMBERED and key.isdecimal():
        return _with_name(_numbered(part, int(key) - 1), name)
    if part == "addresses" and key:
        return _address_field(key, name, state)
    if part == "contacts" and key:
        return _contact_field(key, name, state)
    return path


def _address_field(key: str, name: str, state: CustomerState | None) -> str:
    addresses = _members(state, "addresses")
    position = _position(addresses, key)
    if state is not None and position is not None and _id(addresses[position]) == state.primary_address:
        return _with_name("address", name)
    return _with_name(_numbered("addresses", position), name)


def _contact_field(key: str, name: str, state: CustomerState | None) -> str:
    contacts = _members(state, "contacts")
    position = _position(contacts, key)
    if state is not None and position is not None and not name:
        primary = {state.primary_email: "email", state.primary_phone: "phone"}
        if (contact_id := _id(contacts[position])) in primary:
            return primary[contact_id]
    return _with_name(_numbered("contacts", position), name or "value")


def _members(state: CustomerState | None, part: str) -> Sequence[Address | Contact]:
    if state is None:
        return ()
    return state.addresses if part == "addresses" else state.contacts


def _position(members: Sequence[Address | Contact], key: str) -> int | None:
    """The index of the member with this id, or with this number (`#1` is the first); None without such a member."""
    if key.startswith("#") and key[1:].isdecimal():
        index = int(key[1:]) - 1
        return index if 0 <= index < len(members) else None
    return next((index for index, member in enumerate(members) if _id(member) == key), None)


def _id(member: Address | Contact) -> str:
    return member.address_id if isinstance(member, Address) else member.contact_id


def _numbered(part: str, index: int | None) -> str:
    return part if index is None else f"{part}[{index}]"


def _with_name(field: str, name: str) -> str:
    return f"{field}.{name}" if name else field
