"""A quick check of one customer: a customer that it accepts needs no call to the rules of `customer_rules.py`.

It accepts only valid, canonical customers, and nearly all of those; a property test proves that. The rules for single
fields come from `field_rules.py`; `customer_rules_columns.py` is the same for whole batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias

from tenten.rules import field_rules
from tenten.rules.contact_points import is_email, is_phone
from tenten.rules.field_rules import EmailAddress, FieldRule, Guid, Language, OneOf, Required, Text, Time
from tenten.rules.field_violations import is_unicode, violations
from tenten.rules.limits import COUNTS_MAX, NAME_CHARACTERS_MAX, TIME_MAX, TIME_MIN, is_guid, is_language
from tenten.rules.ordinary_contact_points import is_ordinary_email, is_ordinary_phone
from tenten.schemas.customer_fields import ScalarKind, scalar_fields
from tenten.schemas.messages import EMAIL, PHONE, CustomerState, CustomerType

_Getter: TypeAlias = Callable[[Any], Sequence[Any]]
"""Returns the values of several fields of a record."""


def record_passes(customer: Mapping[str, Any]) -> bool:
    """True only if `reasons` would be empty and the customer is canonical; `customer` is a decoded Avro record."""
    return _passes(customer, _FROM_RECORD)


def state_passes(customer: CustomerState) -> bool:
    """True only if `reasons` would be empty and the customer is canonical."""
    return _passes(customer, _FROM_STATE)


@dataclass(frozen=True, slots=True)
class _Part:
    """The rules for the fields of a customer, or of a member of one of its lists."""

    names: tuple[str, ...]
    """The fields that are read: first those with rules."""
    texts: tuple[tuple[int, int], ...]
    """Of each text: its place in `names`, and its most characters."""
    checks: tuple[tuple[int, Callable[[Any], bool]], ...]
    """Of each other rule: the place of the field in `names`, and the check of its value."""


def _part(rules: Mapping[str, Sequence[FieldRule]], *further_names: str) -> _Part:
    texts, checks = [], []
    for place, rules_of_field in enumerate(rules.values()):
        for rule in rules_of_field:
            if isinstance(rule, Text):
                texts.append((place, rule.characters_max))
            else:
                checks.append((place, _check(rule)))
    return _Part((*rules, *further_names), tuple(texts), tuple(checks))


def _check(rule: FieldRule) -> Callable[[Any], bool]:  # noqa: PLR0911 a case for each kind of rule
    match rule:
        case Required():
            return bool
        case OneOf(values=values):
            return lambda value: value in values()
        case EmailAddress():
            return lambda value: not value or is_ordinary_email(value) or is_email(value)
        case Language():
            return lambda value: not value or is_language(value)
        case Guid():
            return is_guid
        case Time():
            return _is_time
        case _:
            return lambda value: value is None or not any(violations(rule, "", value))


def _is_time(value: datetime) -> bool:
    return value.tzinfo is not None and TIME_MIN <= value <= TIME_MAX


_NULLABLE_TEXTS: Final = tuple(
    field.name for field in scalar_fields() if field.kind is ScalarKind.TEXT and field.is_nullable
)
_PRIMARIES: Final = ("primary_address", "primary_phone", "primary_email")
_LISTS: Final = ("address_books", "affiliations", "addresses", "contacts", "attributes")
_NAMES: Final = ("customer_type", "first_name", "last_name", "organization_name")

_CUSTOMER: Final = _part(field_rules.CUSTOMER)
_ADDRESS: Final = _part(field_rules.ADDRESS)
_CONTACT: Final = _part(field_rules.CONTACT)
_ATTRIBUTE: Final = _part(field_rules.ATTRIBUTE)
_CONTACT_KEYS: Final = ("contact_id", "kind", "value")
_ATTRIBUTE_VALUES: Final = ("text", "integer", "decimal", "boolean")


@dataclass(frozen=True, slots=True)
class _Getters:
    """Read the fields of a customer in one of its forms."""

    fields: _Getter
    names: _Getter
    nullable_texts: _Getter
    primaries: _Getter
    lists: _Getter
    address: _Getter
    address_id: Callable[[Any], str]
    contact: _Getter
    contact_keys: _Getter
    attribute: _Getter
    attribute_values: _Getter
    attribute_name: Callable[[Any], str]


def _getters(getter: Callable[..., Any]) -> _Getters:
    """The getters of a form; `getter` is `itemgetter` or `attrgetter`, which return a tuple only of several fields."""
    return _Getters(
        fields=getter(*_CUSTOMER.names),
        names=getter(*_NAMES),
        nullable_texts=getter(*_NULLABLE_TEXTS, _NULLABLE_TEXTS[0]),
        primaries=getter(*_PRIMARIES),
        lists=getter(*_LISTS),
        address=getter(*_ADDRESS.names),
        address_id=getter("address_id"),
        contact=getter(*_CONTACT.names),
        contact_keys=getter(*_CONTACT_KEYS),
        attribute=getter(*_ATTRIBUTE.names),
        attribute_values=getter(*_ATTRIBUTE_VALUES),
        attribute_name=getter("name"),
    )


_FROM_RECORD: Final = _getters(itemgetter)
_FROM_STATE: Final = _getters(attrgetter)


def _passes(customer: Any, get: _Getters) -> bool:
    texts: list[str] = []
    return (
        _has_name(get.names(customer))
        and "" not in get.nullable_texts(customer)
        and _fields_pass(_CUSTOMER, get.fields(customer), texts)
        and _lists_pass(customer, get, texts)
        and _are_storable(texts)
    )


def _has_name(names: Sequence[Any]) -> bool:
    customer_type, first_name, last_name, organization_name = names
    if customer_type == CustomerType.ORGANIZATION:
        return bool(organization_name.strip())
    return bool(first_name.strip() or last_name.strip())


def _fields_pass(part: _Part, values: Sequence[Any], texts: list[str]) -> bool:
    """Whether the values keep their rules; `texts` receives the texts, whose characters are checked together."""
    for place, characters_max in part.texts:
        value = values[place]
        if value:
            if len(value) > characters_max:
                return False
            texts.append(value)
    return all(check(values[place]) for place, check in part.checks)


def _lists_pass(customer: Any, get: _Getters, texts: list[str]) -> bool:
    address_books, affiliations, addresses, contacts, attributes = get.lists(customer)
    primary_address, *primary_contacts = get.primaries(customer)
    return (
        _names_pass("address_books", address_books, texts)
        and _names_pass("affiliations", affiliations, texts)
        and (not attributes or _attributes_pass(attributes, get, texts))
        and _addresses_pass(addresses, primary_address, get, texts)
        and _contacts_pass(contacts, primary_contacts, get, texts)
    )


def _are_listed(part: str, keys: Sequence[str]) -> bool:
    """Whether there are not too many members, in the order of their keys, and none twice."""
    return len(keys) <= COUNTS_MAX[part] and all(key < following for key, following in pairwise(keys))


def _names_pass(part: str, names: Sequence[str], texts: list[str]) -> bool:
    texts.extend(names)
    return _are_listed(part, names) and all(0 < len(name) <= NAME_CHARACTERS_MAX for name in names)


def _addresses_pass(addresses: Sequence[Any], primary: str | None, get: _Getters, texts: list[str]) -> bool:
    ids = [get.address_id(address) for address in addresses]
    return (
        _are_listed("addresses", ids)
        and (primary is None or primary in ids)
        and all(_fields_pass(_ADDRESS, get.address(address), texts) for address in addresses)
    )


def _contacts_pass(contacts: Sequence[Any], primaries: Sequence[str | None], get: _Getters, texts: list[str]) -> bool:
    keys = [get.contact_keys(contact) for contact in contacts]
    primary_phone, primary_email = primaries
    return (
        _are_listed("contacts", [contact_id for contact_id, _, _ in keys])
        and (primary_phone is None or any(key[:2] == (primary_phone, PHONE) for key in keys))
        and (primary_email is None or any(key[:2] == (primary_email, EMAIL) for key in keys))
        and all(_fields_pass(_CONTACT, get.contact(contact), texts) for contact in contacts)
        and all(_is_contact_point(kind, value) for _, kind, value in keys)
    )


def _is_contact_point(kind: str, value: str) -> bool:
    if kind == PHONE:
        return is_ordinary_phone(value) or is_phone(value)
    return is_ordinary_email(value) or is_email(value)


def _attributes_pass(attributes: Sequence[Any], get: _Getters, texts: list[str]) -> bool:
    return (
        _are_listed("attributes", [get.attribute_name(attribute) for attribute in attributes])
        and all(sum(value is not None for value in get.attribute_values(attribute)) == 1 for attribute in attributes)
        and all(_fields_pass(_ATTRIBUTE, get.attribute(attribute), texts) for attribute in attributes)
    )


def _are_storable(texts: Sequence[str]) -> bool:
    """Whether a database can store all these texts."""
    joined = "".join(texts)
    return "\x00" not in joined and (joined.isascii() or is_unicode(joined))
