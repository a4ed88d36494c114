"""The rules for a customer, the same in stores and at headquarters: `reasons` names every rule that a customer breaks.

The rules for single fields are data, in `field_rules.py`. At headquarters `customer_rules_columns.py` accepts ordinary
customers a batch at a time; the others come here. A reason names the field and the rule, never the value: reasons are
sent to other places and kept.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from tenten.rules import field_rules
from tenten.rules.contact_points import is_phone
from tenten.rules.customer import is_path
from tenten.rules.customer_fast_path import state_passes
from tenten.rules.field_rules import EmailAddress, FieldRule
from tenten.rules.field_violations import is_unicode, violations
from tenten.rules.limits import COUNTS_MAX, NAME_CHARACTERS_MAX, REASONS_MAX
from tenten.schemas.messages import EMAIL, PHONE, Address, Attribute, Contact, CustomerState, CustomerType, Reason

UNKNOWN_PATHS_MAX: Final = 100
"""Reasons for unknown paths in one reply."""


def reasons(state: CustomerState) -> tuple[Reason, ...]:
    """The rules that a customer breaks, in the order of the fields, at most `REASONS_MAX`; empty for a valid customer.

    Nearly all valid customers pass the quick check of `customer_fast_path.py`. Of a list that is too long, only as many
    members are checked as it may have.
    """
    if state_passes(state):
        return ()
    return all_violations(state)


def all_violations(state: CustomerState) -> tuple[Reason, ...]:
    """The same as `reasons`, without the quick check."""
    found = chain(
        _name(state),
        _fields(state, field_rules.CUSTOMER),
        _primaries(state),
        _names_in_list("address_books", state.address_books),
        _names_in_list("affiliations", state.affiliations),
        _addresses(state.addresses),
        _contacts(state.contacts),
        attribute_reasons(state.attributes),
    )
    return tuple(islice(found, REASONS_MAX))


def path_reasons(paths: Iterable[str]) -> tuple[Reason, ...]:
    """A reason for each path that is not a field of a customer, at most `UNKNOWN_PATHS_MAX`."""
    unknown = ((position, path) for position, path in enumerate(paths, start=1) if not is_path(path))
    return tuple(
        Reason(
            field=_printable(path, f"changed/#{position}"), code="unknown_path", text="A customer has no such field."
        )
        for position, path in islice(unknown, UNKNOWN_PATHS_MAX)
    )


def _fields(
    record: object, rules: Mapping[str, Sequence[FieldRule]], path: str = "", whole: Collection[str] = ()
) -> Iterator[Reason]:
    """The reasons of a record's fields; those of the fields in `whole` name the record itself, by its path."""
    for name, rules_of_field in rules.items():
        field = path if name in whole else f"{path}/{name}" if path else name
        value = getattr(record, name)
        for rule in rules_of_field:
            yield from violations(rule, field, value)


def _name(state: CustomerState) -> Iterator[Reason]:
    if state.customer_type is CustomerType.ORGANIZATION:
        if not state.organization_name.strip():
            yield Reason(field="organization_name", code="required", text="An organization needs a name.")
    elif not (state.first_name.strip() or state.last_name.strip()):
        yield Reason(field="last_name", code="required", text="A person needs a first name or a last name.")


def _primaries(state: CustomerState) -> Iterator[Reason]:
    addresses = {address.address_id for address in state.addresses}
    phones = {contact.contact_id for contact in state.contacts if contact.kind.upper() == PHONE}
    emails = {contact.contact_id for contact in state.contacts if contact.kind.upper() == EMAIL}
    for field, primary, own, noun in (
        ("primary_address", state.primary_address, addresses, "address"),
        ("primary_phone", state.primary_phone, phones, "phone number"),
        ("primary_email", state.primary_email, emails, "e-mail address"),
    ):
        if primary is not None and primary not in own:
            text = f"The primary {noun} is not one of the customer's own."
            yield Reason(field=field, code="unknown_reference", text=text)


def _names_in_list(part: str, names: Sequence[str]) -> Iterator[Reason]:
    yield from _too_many(part, names)
    for path, name in _members(part, names):
        for rule in field_rules.NAME:
            yield from violations(rule, path, name)
    yield from _duplicates(part, names)


def _addresses(addresses: Sequence[Address]) -> Iterator[Reason]:
    yield from _too_many("addresses", addresses)
    ids = [address.address_id for address in addresses]
    for address, (path, _) in zip(addresses, _members("addresses", ids), strict=False):
        yield from _fields(address, field_rules.ADDRESS, path, whole=("address_id",))
    yield from _duplicates("addresses", ids)


def _contacts(contacts: Sequence[Contact]) -> Iterator[Reason]:
    yield from _too_many("contacts", contacts)
    ids = [contact.contact_id for contact in contacts]
    for contact, (path, _) in zip(contacts, _members("contacts", ids), strict=False):
        yield from _fields(contact, field_rules.CONTACT, path, whole=("contact_id",))
        yield from _contact_value(path, contact)
    yield from _duplicates("contacts", ids)


def _contact_value(path: str, contact: Contact) -> Iterator[Reason]:
    kind = contact.kind.upper()
    if kind not in (PHONE, EMAIL):
        return
    if not contact.value:
        yield Reason(field=path, code="required", text="A contact needs a phone number or an e-mail address.")
    elif kind == EMAIL:
        yield from violations(EmailAddress(), path, contact.value)
    elif not is_phone(contact.value):
        text = (
            "The phone number is not valid: give it as it is dialled in the country of the store, or as +17135550123."
        )
        yield Reason(field=path, code="invalid_phone", text=text)


def attribute_reasons(attributes: Sequence[Attribute]) -> Iterator[Reason]:
    """The rules that attributes break, whatever is defined: of a customer, an order or a sale."""
    yield from _too_many("attributes", attributes)
    names = [attribute.name for attribute in attributes]
    for attribute, (path, _) in zip(attributes, _members("attributes", names), strict=False):
        values = (attribute.text, attribute.integer, attribute.decimal, attribute.boolean)
        if sum(value is not None for value in values) != 1:
            text = "An attribute has exactly one value: a text, an integer, a decimal, or yes or no."
            yield Reason(field=path, code="one_value", text=text)
        yield from _fields(attribute, field_rules.ATTRIBUTE, path, whole=field_rules.ATTRIBUTE)
    yield from _duplicates("attributes", names)


def _too_many(part: str, members: Sequence[object]) -> Iterator[Reason]:
    if len(members) > COUNTS_MAX[part]:
        text = f"At most {COUNTS_MAX[part]} {part.replace('_', ' ')} are allowed."
        yield Reason(field=part, code="too_many", text=text)


def _members(part: str, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Path and key of each member, of as many as the list may have.

    A path is `contacts/<id>`; with the position, `contacts/#2`, where the id cannot be printed.
    """
    for position, key in enumerate(keys[: COUNTS_MAX[part]], start=1):
        yield f"{part}/{_printable(key, f'#{position}')}", key


def _duplicates(part: str, keys: Sequence[str]) -> Iterator[Reason]:
    seen: set[str] = set()
    for path, key in _members(part, keys):
        if key in seen:
            yield Reason(field=path, code="duplicate", text="This occurs more than once.")
        seen.add(key)


def _printable(name: str, otherwise: str) -> str:
    """The name, if it is short and can be stored."""
    return name if 0 < len(name) <= NAME_CHARACTERS_MAX and "\x00" not in name and is_unicode(name) else otherwise
