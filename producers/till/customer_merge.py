"""Merge customer input into a customer, normalised. Pure: no database, no clock.

Texts are trimmed and composed (Unicode NFC), phone numbers become E.164, e-mail addresses and countries their normal
form. A value without a normal form is kept as entered, and the rules reject it with a reason.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from tenten.producers.till.customer_input import AttributeValue, CustomerFields, NewAddress
from tenten.rules.contact_points import normal_email, normal_phone
from tenten.rules.definitions import ANYTHING, CustomerDefinitions, as_defined
from tenten.rules.limits import country_code
from tenten.rules.ordinary_contact_points import is_ordinary_email
from tenten.schemas.customer_fields import plain_texts
from tenten.schemas.messages import (
    EMAIL,
    PHONE,
    Address,
    Attribute,
    Contact,
    CustomerState,
    CustomerType,
    ReceiptPreference,
    canonical,
)

ADDRESS_PARTS: Final = ("purpose", "name", "street", "city", "county", "state", "postal_code", "country")

_PRIMARIES: Final = ("primary_address", "primary_phone", "primary_email")

_PRIMARY: Final = {PHONE: "primary_phone", EMAIL: "primary_email"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputContext:
    """The context in which input is read."""

    country: str
    """ISO 3166 alpha-2: the default for new addresses and for phone numbers without `+`."""
    now: datetime
    new_id: Callable[[], str]
    """Returns the id for the next new address or contact."""
    definitions: CustomerDefinitions = ANYTHING
    """Of the legal entity: the kinds of its attributes."""


def merge_input(state: CustomerState, fields: CustomerFields, context: InputContext) -> CustomerState:
    """The customer with the input merged in. Idempotent, except for `add_` fields.

    Raises: `TypeError` for an unknown field.
    """
    unknown = sorted(fields.keys() - CustomerFields.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown customer field: {', '.join(unknown)}")
    # Each part has its own type, which a dict type cannot express. Copying the customer once is a tenth of the work.
    changes: dict[str, Any] = _scalars(fields)
    changes |= _addresses(state, changes.get("customer_type", state.customer_type), fields, context)
    changes |= _contacts(state, fields, context)
    changes |= {name: value or None for name in _PRIMARIES if (value := fields.get(name)) is not None}
    affiliations = {*state.affiliations, *map(clean, fields.get("add_affiliations", ()))}
    affiliations -= set(map(clean, fields.get("remove_affiliations", ())))
    changes["affiliations"] = tuple(sorted(affiliations))
    changes["attributes"] = _attributes(state.attributes, fields.get("attributes", {}), context.definitions)
    return canonical(replace(state, **changes))


def clean(text: str) -> str:
    """The text without surrounding space, in Unicode's composed form, so that equal names look and sort the same."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def _scalars(fields: CustomerFields) -> dict[str, Any]:
    """The scalar fields and the address books that the input has."""
    values: dict[str, Any] = {
        name: clean(text) for name, text in fields.items() if name in plain_texts() and isinstance(text, str)
    }
    if "receipt_email" in fields:
        values["receipt_email"] = _email(fields["receipt_email"])
    if "receipt_preference" in fields:
        values["receipt_preference"] = ReceiptPreference(fields["receipt_preference"])
    if "customer_type" in fields:
        values["customer_type"] = CustomerType(fields["customer_type"])
    if "address_books" in fields:
        values["address_books"] = tuple(dict.fromkeys(map(clean, fields["address_books"])))
    return values


def _addresses(
    state: CustomerState, customer_type: CustomerType, fields: CustomerFields, context: InputContext
) -> dict[str, Any]:
    """The addresses after the input, and the id of the primary one."""
    addresses = {address.address_id: address for address in state.addresses}
    primary = state.primary_address
    for address in fields.get("put_addresses", ()):
        addresses[address.address_id] = _changed_address(addresses.get(address.address_id), address, context)
    if "address" in fields:
        existing = addresses.get(primary) if primary is not None else None
        address = _entered_address(customer_type, existing, fields["address"], context)
        addresses[address.address_id] = address
        primary = address.address_id
    for new in fields.get("add_addresses", ()):
        address = _entered_address(customer_type, None, new, context)
        addresses[address.address_id] = address
        primary = primary or address.address_id
    for address_id in fields.get("remove_addresses", ()):
        addresses.pop(address_id, None)
    return {"addresses": tuple(addresses.values()), "primary_address": primary if primary in addresses else None}


def _entered_address(
    customer_type: CustomerType, existing: Address | None, new: NewAddress, context: InputContext
) -> Address:
    """The existing address with the entered parts, or a new one."""
    entered: dict[str, Any] = {part: text for part in ADDRESS_PARTS if (text := getattr(new, part)) is not None}
    if existing is not None:
        return _changed_address(existing, replace(existing, **entered), context)
    purpose = "HOME" if customer_type is CustomerType.PERSON else "BUSINESS"
    default = {"purpose": purpose, "country": context.country} | entered
    return Address(address_id=context.new_id(), updated_at=context.now, **_normal_parts(default))


def _changed_address(before: Address | None, after: Address, context: InputContext) -> Address:
    """The normal form of an address, with the time of the change if it differs from before."""
    normal = _normal_address(after)
    if before is not None and replace(normal, updated_at=before.updated_at) == before:
        return before
    return replace(normal, updated_at=context.now)


def _normal_address(address: Address) -> Address:
    return replace(address, **_normal_parts({part: getattr(address, part) for part in ADDRESS_PARTS}))


def _normal_parts(parts: Mapping[str, str]) -> dict[str, Any]:
    cleaned: dict[str, Any] = {part: clean(text) for part, text in parts.items()}
    return cleaned | {"purpose": cleaned["purpose"].upper(), "country": normal_country(cleaned["country"])}


@lru_cache(maxsize=1000)
def normal_country(text: str) -> str:
    """The ISO 3166 alpha-2 code of a country's code or name; unknown text is unchanged.

    >>> normal_country("us"), normal_country("Germany"), normal_country("FRA"), normal_country("Atlantis")
    ('US', 'DE', 'FR', 'Atlantis')
    """
    return country_code(text) or text


def _contacts(state: CustomerState, fields: CustomerFields, context: InputContext) -> dict[str, Any]:
    """The contacts after the input, and the ids of the primary ones."""
    contacts = {contact.contact_id: contact for contact in state.contacts}
    primaries = {PHONE: state.primary_phone, EMAIL: state.primary_email}
    for contact in fields.get("put_contacts", ()):
        contacts[contact.contact_id] = _normal_contact(contact, context)
    for kind, value in ((EMAIL, fields.get("email")), (PHONE, fields.get("phone"))):
        if value is not None:
            primaries[kind] = _put_primary(contacts, kind, primaries[kind], value, context)
    for new in fields.get("add_contacts", ()):
        contact = _normal_contact(
            Contact(
                contact_id=context.new_id(),
                kind=new.kind,
                value=new.value,
                marketing_consent=new.marketing_consent,
                description=new.description,
            ),
            context,
        )
        contacts[contact.contact_id] = contact
        primaries[contact.kind] = primaries.get(contact.kind) or contact.contact_id
    for contact_id in fields.get("remove_contacts", ()):
        contacts.pop(contact_id, None)
    remaining = {name: primaries[kind] if primaries[kind] in contacts else None for kind, name in _PRIMARY.items()}
    return {"contacts": tuple(contacts.values()), **remaining}


def _put_primary(
    contacts: dict[str, Contact], kind: str, primary: str | None, value: str, context: InputContext
) -> str | None:
    """Make this value the primary one of its kind, in `contacts`, and return the id of its contact.

    A contact that already has the value becomes the primary one; else the value of the primary contact changes.
    """
    normal = _phone(value, context.country) if kind == PHONE else _email(value)
    if normal == "":
        contacts.pop(primary or "", None)
        return None
    for contact in contacts.values():
        if contact.kind == kind and contact.value == normal:
            return contact.contact_id
    existing = contacts.get(primary or "")
    if existing is None:
        contact = Contact(contact_id=context.new_id(), kind=kind, value=normal)
    else:
        contact = replace(existing, value=normal)
    contacts[contact.contact_id] = contact
    return contact.contact_id


def _normal_contact(contact: Contact, context: InputContext) -> Contact:
    kind = contact.kind.upper()
    value = _phone(contact.value, context.country) if kind == PHONE else _email(contact.value)
    return replace(contact, kind=kind, value=value, description=clean(contact.description))


def _phone(text: str, country: str) -> str:
    cleaned = clean(text)
    return normal_phone(cleaned, country) or cleaned


def _email(text: str) -> str:
    cleaned = clean(text)
    if is_ordinary_email(cleaned):
        # As `normal_email` has it, at a twentieth of the time.
        local_part, _, domain = cleaned.rpartition("@")
        return f"{local_part}@{domain.lower()}"
    return normal_email(cleaned) or cleaned


def _attributes(
    attributes: Iterable[Attribute], changes: Mapping[str, AttributeValue | None], definitions: CustomerDefinitions
) -> tuple[Attribute, ...]:
    by_name = {attribute.name: attribute for attribute in attributes}
    for name, value in changes.items():
        by_name.pop(name, None)
        if value is not None:
            by_name[name] = as_defined(definitions.attributes.get(name), attribute_of(name, value))
    return tuple(by_name.values())


def attribute_of(name: str, value: AttributeValue) -> Attribute:
    """The attribute of this name with a value as entered."""
    # A bool is an int in Python.
    if isinstance(value, bool):
        return Attribute(name=name, boolean=value)
    if isinstance(value, int):
        return Attribute(name=name, integer=value)
    if isinstance(value, Decimal):
        return Attribute(name=name, decimal=value)
    return Attribute(name=name, text=clean(value))
