"""Merge edits into a customer: headquarters with its current customer, a channel with the last snapshot (the overlay).

An edit has the whole customer, as its author saw it, and the changed paths. Paths are `last_name`, `addresses/<id>`,
`contacts/<id>`, `address_books/<name>`, `affiliations/<name>`, `attributes/<name>`; names may contain slashes. So what
two stores add to the same list is merged. `address_books` as a whole is also understood: release 0.1.0 wrote it.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any, Final

from tenten.schemas.customer_fields import scalar_fields
from tenten.schemas.messages import Address, Attribute, Contact, CustomerState, CustomerType, canonical

SCALARS: Final = tuple(field.name for field in scalar_fields() if field.name != "legal_entity")
"""The fields with a path of their own. The legal entity never changes."""

_NAMES: Final = ("address_books", "affiliations")
"""The lists of names: each is its own key."""

PARTS: Final = (*_NAMES, "addresses", "contacts", "attributes")
"""The lists whose members have a path each."""

PATH_CHARACTERS_MAX: Final = 100

_WHOLE: Final = frozenset((*SCALARS, "address_books"))


def apply_paths(base: CustomerState, edited: CustomerState, paths: Iterable[str]) -> CustomerState:
    """The base with the values of `edited` at these paths; members that `edited` lacks are removed. The result is
    canonical.

    Idempotent. A primary address, phone or e-mail whose member was removed becomes None.
    Unknown paths change nothing (see `is_path`), and the legal entity stays the base's.
    """
    fields: dict[str, Any] = {}
    ours: dict[str, dict[str, Any]] = {}
    theirs: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        name, slash, key = path.partition("/")
        if not slash and name in _WHOLE:
            fields[name] = getattr(edited, name)
        elif slash and name in PARTS:
            if name not in ours:
                ours[name], theirs[name] = _by_key(base, name), _by_key(edited, name)
            if key in theirs[name]:
                ours[name][key] = theirs[name][key]
            else:
                ours[name].pop(key, None)
    for name, members in ours.items():
        fields.setdefault(name, tuple(members.values()))
    return canonical(_without_dangling_primaries(replace(base, **fields)))


def _by_key(state: CustomerState, part: str) -> dict[str, Any]:
    """The members of a list by their keys in paths."""
    if part in _NAMES:
        return {name: name for name in getattr(state, part)}
    if part == "addresses":
        return {address.address_id: address for address in state.addresses}
    if part == "contacts":
        return {contact.contact_id: contact for contact in state.contacts}
    return {attribute.name: attribute for attribute in state.attributes}


def _without_dangling_primaries(state: CustomerState) -> CustomerState:
    addresses = {address.address_id for address in state.addresses}
    contacts = {contact.contact_id for contact in state.contacts}
    return replace(
        state,
        primary_address=state.primary_address if state.primary_address in addresses else None,
        primary_phone=state.primary_phone if state.primary_phone in contacts else None,
        primary_email=state.primary_email if state.primary_email in contacts else None,
    )


def changed_paths(before: CustomerState | None, after: CustomerState) -> tuple[str, ...]:
    """The paths at which the two differ, in a stable order; for a new customer everything that is not empty."""
    old = CustomerState(legal_entity=after.legal_entity) if before is None else canonical(before)
    new = canonical(after)
    if old == new:
        return ()
    paths = [name for name in SCALARS if getattr(old, name) != getattr(new, name)]
    for part in PARTS:
        if getattr(old, part) != getattr(new, part):
            had, has = _by_key(old, part), _by_key(new, part)
            paths.extend(f"{part}/{key}" for key in sorted(had.keys() | has.keys()) if had.get(key) != has.get(key))
    return tuple(paths)


def is_path(path: str) -> bool:
    """True if the path names a field of a customer, or may name a member of a list.

    `legal_entity` is known, though no path changes it.
    """
    name, slash, key = path.partition("/")
    if not slash:
        return name in _WHOLE or name == "legal_entity"
    return name in PARTS and key != "" and "\x00" not in key and len(path) <= PATH_CHARACTERS_MAX


def value_at(state: CustomerState, path: str) -> object:
    """The value at a path, for the audit, as JSON: a text, a list or an object; None if it is absent.

    An affiliation or address book is its name, an attribute `{"decimal": "1.5"}`, an address or a contact an object
    without its id.
    """
    name, slash, key = path.partition("/")
    if not slash and name in _WHOLE:
        value = getattr(state, name)
        return list(value) if name == "address_books" else value if value is None else str(value)
    member = _by_key(state, name).get(key) if slash and name in PARTS else None
    if isinstance(member, Address):
        return {**_without(member, "address_id"), "updated_at": member.updated_at.isoformat()}
    if isinstance(member, Contact):
        return _without(member, "contact_id")
    if isinstance(member, Attribute):
        return attribute_value(member)
    return member


def _without(member: Address | Contact, name: str) -> dict[str, Any]:
    return {field: value for field, value in asdict(member).items() if field != name}


def attribute_value(attribute: Attribute) -> dict[str, str | int | bool]:
    """The value of an attribute under the name of its kind, as JSON: `{"text": "blue"}`, `{"decimal": "1.5"}`."""
    value: dict[str, str | int | bool] = {}
    if attribute.text is not None:
        value["text"] = attribute.text
    if attribute.integer is not None:
        value["integer"] = attribute.integer
    if attribute.decimal is not None:
        value["decimal"] = plain_decimal(attribute.decimal)
    if attribute.boolean is not None:
        value["boolean"] = attribute.boolean
    return value


def plain_decimal(value: Decimal) -> str:
    """A decimal as text without exponent and trailing zeros.

    >>> plain_decimal(Decimal("1.500000")), plain_decimal(Decimal("1E+2")), plain_decimal(Decimal("-0.0"))
    ('1.5', '100', '0')
    """
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def display_name(state: CustomerState) -> str:
    """The name shown to clerks: that of an organization; first, middle and last name of a person.

    >>> display_name(CustomerState(legal_entity="usrt", first_name="Ann", last_name="Müller"))
    'Ann Müller'
    """
    person = " ".join(filter(None, (state.first_name, state.middle_name, state.last_name)))
    if state.customer_type is CustomerType.ORGANIZATION:
        return state.organization_name or person
    return person or state.organization_name


SEARCHED_NAMES: Final = tuple(field.name for field in scalar_fields() if field.is_searched)
"""The fields of the clerk's search, in the order of `search_name`."""


def search_name(state: CustomerState) -> str:
    """All names of the customer as the search stores them: folded, with a space between them."""
    return fold_for_search(" ".join(filter(None, (getattr(state, name) for name in SEARCHED_NAMES))))


_WITHOUT_DECOMPOSITION: Final = str.maketrans(
    {
        "ß": "ss",
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "ħ": "h",
        "\u0131": "i",
        "ł": "l",
        "ŧ": "t",
        "þ": "th",
    }
)
"""Latin letters, in lower case, that Unicode does not decompose into a letter and an accent."""


def fold_for_search(text: str) -> str:
    """The text without case, accents and compatibility forms, so that typing `muller` finds Müller. Idempotent.

    >>> fold_for_search("Müller-Søgård"), fold_for_search("Łukasz Weiß")
    ('muller-sogard', 'lukasz weiss')
    """
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    folded = "".join(character for character in decomposed if not unicodedata.combining(character))
    return folded.translate(_WITHOUT_DECOMPOSITION)
