"""The rules for a customer. Stores and headquarters judge by the same ones: `reasons` names every rule that one breaks.

`surely_valid` (from `customer_rules_columns.py`) spares ordinary customers the asking, a batch at a time.
A reason says which field and which rule, never what stands in the field: reasons travel, and are kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final

from tenten.rules.contact_points import is_email, is_phone, normal_email, normal_phone
from tenten.rules.customer import is_path
from tenten.rules.limits import (
    ADDRESS_CHARACTERS_MAX,
    ATTRIBUTE_CHARACTERS_MAX,
    CONTACT_CHARACTERS_MAX,
    COUNTS_MAX,
    CUSTOMER_CHARACTERS_MAX,
    DECIMAL_FRACTION_DIGITS_MAX,
    DECIMAL_INTEGER_DIGITS_MAX,
    EMAIL_CHARACTERS_MAX,
    GUID,
    INTEGER_MAX,
    INTEGER_MIN,
    NAME_CHARACTERS_MAX,
    PURPOSES,
    TIME_MAX,
    TIME_MIN,
    countries,
    currencies,
    is_language,
)
from tenten.schemas.messages import EMAIL, PHONE, Address, Attribute, Contact, CustomerState, CustomerType, Reason

__all__ = ["normal_email", "normal_phone", "path_reasons", "reasons"]

UNKNOWN_PATHS_MAX: Final = 100
"""Reasons for unknown paths in one reply."""


def reasons(state: CustomerState) -> tuple[Reason, ...]:
    """Every rule that the customer breaks, in the order of the customer's fields; empty for a valid customer.

    Of a list that is too long only the first members are looked at, so that an answer has an end.
    """
    return tuple(
        chain(
            _names(state),
            _texts(state),
            _codes(state),
            _receipt_email(state),
            _primaries(state),
            _names_of_lists(state),
            _addresses(state.addresses),
            _contacts(state.contacts),
            _attributes(state.attributes),
        )
    )


def path_reasons(paths: Iterable[str]) -> tuple[Reason, ...]:
    """A reason for each path that names nothing a customer has, of the first so many; empty if all are known."""
    unknown = ((position, path) for position, path in enumerate(paths, start=1) if not is_path(path))
    return tuple(
        Reason(field=_shown(path, f"changed/#{position}"), code="unknown_path", text="Not a field of a customer.")
        for position, path in islice(unknown, UNKNOWN_PATHS_MAX)
    )


def _shown(name: str, otherwise: str) -> str:
    """The name where it can be shown: short, and text that can be stored."""
    return name if 0 < len(name) <= NAME_CHARACTERS_MAX and "\x00" not in name and _is_unicode(name) else otherwise


def _names(state: CustomerState) -> Iterator[Reason]:
    if not state.legal_entity:
        yield Reason(field="legal_entity", code="required", text="A customer belongs to a legal entity.")
    if state.customer_type is CustomerType.ORGANIZATION:
        if not state.organization_name.strip():
            yield Reason(field="organization_name", code="required", text="An organization needs a name.")
    elif not (state.first_name.strip() or state.last_name.strip()):
        yield Reason(field="last_name", code="required", text="A person needs a first name or a last name.")


def _texts(state: CustomerState) -> Iterator[Reason]:
    for name, characters_max in CUSTOMER_CHARACTERS_MAX.items():
        yield from _text(name, getattr(state, name) or "", characters_max)


def _text(field: str, value: str, characters_max: int) -> Iterator[Reason]:
    """What is wrong with any text: its length, and what databases cannot hold."""
    if len(value) > characters_max:
        yield Reason(field=field, code="too_long", text=f"This may have {characters_max} characters at most.")
    if "\x00" in value:
        yield Reason(field=field, code="nul", text="This has a NUL character, which cannot be stored.")
    if not _is_unicode(value):
        yield Reason(field=field, code="not_unicode", text="This has half a character (a surrogate), which is no text.")


def _is_unicode(value: str) -> bool:
    """False for a text with lone surrogates: what Python makes of bytes that are not in the encoding they claim."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _codes(state: CustomerState) -> Iterator[Reason]:
    if state.language and not is_language(state.language):
        yield Reason(field="language", code="unknown_language", text="A language is a tag such as en-US (BCP 47).")
    if state.currency and state.currency not in currencies():
        yield Reason(field="currency", code="unknown_currency", text="A currency is a code such as USD (ISO 4217).")


def _receipt_email(state: CustomerState) -> Iterator[Reason]:
    if state.receipt_email:
        yield from _email("receipt_email", state.receipt_email)


def _email(field: str, value: str) -> Iterator[Reason]:
    if len(value) > EMAIL_CHARACTERS_MAX:
        yield Reason(field=field, code="too_long", text=f"This may have {EMAIL_CHARACTERS_MAX} characters at most.")
    elif not is_email(value):
        yield Reason(field=field, code="invalid_email", text="This is no e-mail address that mail could be sent to.")


def _primaries(state: CustomerState) -> Iterator[Reason]:
    addresses = {address.address_id for address in state.addresses}
    phones = {contact.contact_id for contact in state.contacts if contact.kind.upper() == PHONE}
    emails = {contact.contact_id for contact in state.contacts if contact.kind.upper() == EMAIL}
    for field, primary, existing, what in (
        ("primary_address", state.primary_address, addresses, "address"),
        ("primary_phone", state.primary_phone, phones, "phone number"),
        ("primary_email", state.primary_email, emails, "e-mail address"),
    ):
        if primary is not None and primary not in existing:
            text = f"The primary {what} must be one of the customer's own."
            yield Reason(field=field, code="unknown_reference", text=text)


def _names_of_lists(state: CustomerState) -> Iterator[Reason]:
    for part, names in (("address_books", state.address_books), ("affiliations", state.affiliations)):
        yield from _count(part, names)
        for path, name in _members(part, names):
            yield from _name(path, name)
        yield from _unique(part, names)


def _count(part: str, members: Sequence[object]) -> Iterator[Reason]:
    if len(members) > COUNTS_MAX[part]:
        what = part.replace("_", " ")
        yield Reason(field=part, code="too_many", text=f"A customer may have {COUNTS_MAX[part]} {what} at most.")


def _members(part: str, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The path and the key of each member, as far as there may be members."""
    for place, key in enumerate(keys[: COUNTS_MAX[part]], start=1):
        yield _path(part, key, place), key


def _path(part: str, key: str, place: int) -> str:
    """`contacts/<id>`; by its place, `contacts/#2`, where the id is nothing that could be shown."""
    return f"{part}/{_shown(key, f'#{place}')}"


def _name(path: str, name: str) -> Iterator[Reason]:
    if not name:
        yield Reason(field=path, code="required", text="This needs a name.")
    yield from _text(path, name, NAME_CHARACTERS_MAX)


def _unique(part: str, keys: Sequence[str]) -> Iterator[Reason]:
    """One reason for each member that is there already."""
    seen: set[str] = set()
    for path, key in _members(part, keys):
        if key in seen:
            yield Reason(field=path, code="duplicate", text="This is there more than once.")
        seen.add(key)


def _id(path: str, guid: str) -> Iterator[Reason]:
    if not GUID.fullmatch(guid):
        yield Reason(field=path, code="invalid_id", text="An id is a GUID in lower case, with hyphens.")


def _addresses(addresses: Sequence[Address]) -> Iterator[Reason]:
    yield from _count("addresses", addresses)
    ids = [address.address_id for address in addresses]
    for address, (path, address_id) in zip(addresses, _members("addresses", ids), strict=False):
        yield from _id(path, address_id)
        if address.purpose.upper() not in PURPOSES:
            text = f"A purpose is one of {', '.join(sorted(PURPOSES - {''}))}, or empty."
            yield Reason(field=f"{path}/purpose", code="unknown_purpose", text=text)
        for name, characters_max in ADDRESS_CHARACTERS_MAX.items():
            yield from _text(f"{path}/{name}", getattr(address, name), characters_max)
        yield from _country(f"{path}/country", address.country)
        # A time without a zone is no moment; one at the very edge cannot be shown in every zone.
        if address.updated_at.tzinfo is None or not TIME_MIN <= address.updated_at <= TIME_MAX:
            yield Reason(
                field=f"{path}/updated_at", code="invalid_time", text="This is no moment of the years 1 to 9999."
            )
    yield from _unique("addresses", ids)


def _country(path: str, country: str) -> Iterator[Reason]:
    if not country:
        yield Reason(field=path, code="required", text="An address needs a country.")
    elif country not in countries():
        yield Reason(field=path, code="unknown_country", text="A country is a code such as US (ISO 3166-1 alpha-2).")


def _contacts(contacts: Sequence[Contact]) -> Iterator[Reason]:
    yield from _count("contacts", contacts)
    ids = [contact.contact_id for contact in contacts]
    for contact, (path, contact_id) in zip(contacts, _members("contacts", ids), strict=False):
        yield from _id(path, contact_id)
        yield from _contact_value(path, contact)
        for name, characters_max in CONTACT_CHARACTERS_MAX.items():
            yield from _text(f"{path}/{name}", getattr(contact, name), characters_max)
    yield from _unique("contacts", ids)


def _contact_value(path: str, contact: Contact) -> Iterator[Reason]:
    kind = contact.kind.upper()
    if kind not in (PHONE, EMAIL):
        yield Reason(field=f"{path}/kind", code="unknown_kind", text="A contact is a PHONE or an EMAIL.")
    elif not contact.value:
        yield Reason(field=path, code="required", text="A contact needs a phone number or an e-mail address.")
    elif kind == EMAIL:
        yield from _email(path, contact.value)
    elif not is_phone(contact.value):
        text = "This is no phone number in international form: plus sign, country code, number, digits only."
        yield Reason(field=path, code="invalid_phone", text=text)


def _attributes(attributes: Sequence[Attribute]) -> Iterator[Reason]:
    yield from _count("attributes", attributes)
    names = [attribute.name for attribute in attributes]
    for attribute, (path, name) in zip(attributes, _members("attributes", names), strict=False):
        yield from _name(path, name)
        yield from _attribute_value(path, attribute)
    yield from _unique("attributes", names)


def _attribute_value(path: str, attribute: Attribute) -> Iterable[Reason]:
    values = (attribute.text, attribute.integer, attribute.decimal, attribute.boolean)
    if sum(value is not None for value in values) != 1:
        text = "An attribute has exactly one value: a text, an integer, a decimal or yes or no."
        yield Reason(field=path, code="one_value", text=text)
    if attribute.text is not None:
        yield from _text(path, attribute.text, ATTRIBUTE_CHARACTERS_MAX["text"])
    if attribute.integer is not None and not INTEGER_MIN <= attribute.integer <= INTEGER_MAX:
        yield Reason(field=path, code="out_of_range", text="An integer may have 64 bits at most.")
    if attribute.decimal is not None:
        exponent = attribute.decimal.as_tuple().exponent
        if not isinstance(exponent, int):
            yield Reason(field=path, code="out_of_range", text="A decimal is a number.")
        elif max(attribute.decimal.adjusted(), exponent) >= DECIMAL_INTEGER_DIGITS_MAX:
            text = f"A decimal may have {DECIMAL_INTEGER_DIGITS_MAX} digits before the point at most."
            yield Reason(field=path, code="out_of_range", text=text)
        elif exponent < -DECIMAL_FRACTION_DIGITS_MAX:
            text = f"A decimal may have {DECIMAL_FRACTION_DIGITS_MAX} digits behind the point at most."
            yield Reason(field=path, code="too_precise", text=text)
