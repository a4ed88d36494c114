"""The rules for single fields of a customer, as data.

Two interpreters apply them: `field_violations.py` to one value, with reasons, and `customer_rules_columns.py` to whole
columns. Rules that look at several fields at once are written in both. A property test proves both equal.

The empty text breaks no rule but `Required`, and `OneOf` where it is not among the values.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import cache
from typing import Final

from tenten.rules.limits import (
    ADDRESS_CHARACTERS_MAX,
    ATTRIBUTE_CHARACTERS_MAX,
    CONTACT_CHARACTERS_MAX,
    CUSTOMER_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    PURPOSES,
    countries,
    currencies,
)
from tenten.schemas.messages import EMAIL, PHONE


@dataclass(frozen=True, slots=True)
class Required:
    """Not empty."""

    text: str
    """The text of the reason."""


@dataclass(frozen=True, slots=True)
class Text:
    """At most this many characters, all of which a database can store."""

    characters_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """One of these values."""

    values: Callable[[], Set[str]]
    code: str
    text: str
    ignores_case: bool = False
    """True: other cases are valid as well, but canonical only in upper case."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language tag (BCP 47)."""


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """A valid e-mail address."""


@dataclass(frozen=True, slots=True)
class Guid:
    """A GUID in lower case, with hyphens."""


@dataclass(frozen=True, slots=True)
class Time:
    """A time with a zone, in the years 1 to 9999 in every time zone."""


@dataclass(frozen=True, slots=True)
class Integer:
    """A signed integer of 64 bits, or None."""


@dataclass(frozen=True, slots=True)
class DecimalNumber:
    """A finite decimal within the precision and scale of Avro and the databases, or None."""


FieldRule = Required | Text | OneOf | Language | EmailAddress | Guid | Time | Integer | DecimalNumber


@cache
def _currencies() -> Set[str]:
    return currencies() | {""}


@cache
def _countries() -> Set[str]:
    return countries() | {""}


@cache
def _kinds() -> Set[str]:
    return {PHONE, EMAIL}


CUSTOMER: Final[Mapping[str, tuple[FieldRule, ...]]] = {
    "legal_entity": (
        Required("A customer belongs to a legal entity."),
        Text(CUSTOMER_CHARACTERS_MAX["legal_entity"]),
    ),
    **{name: (Text(longest),) for name, longest in CUSTOMER_CHARACTERS_MAX.items() if name != "legal_entity"},
    "language": (Text(CUSTOMER_CHARACTERS_MAX["language"]), Language()),
    "currency": (
        OneOf(values=_currencies, code="unknown_currency", text="A currency is a code such as USD (ISO 4217)."),
    ),
    "receipt_email": (EmailAddress(),),
}
"""By field, those of the table of customer fields."""

NAME: Final[tuple[FieldRule, ...]] = (Required("The name is empty."), Text(NAME_CHARACTERS_MAX))
"""For the name of an address book, an affiliation or an attribute."""

ADDRESS: Final[Mapping[str, tuple[FieldRule, ...]]] = {
    "address_id": (Guid(),),
    "purpose": (
        OneOf(
            values=lambda: PURPOSES,
            code="unknown_purpose",
            text=f"A purpose is {', '.join(sorted(PURPOSES - {''}))}, or empty.",
            ignores_case=True,
        ),
    ),
    **{name: (Text(longest),) for name, longest in ADDRESS_CHARACTERS_MAX.items()},
    "country": (
        Required("An address needs a country."),
        OneOf(values=_countries, code="unknown_country", text="A country is a code such as US (ISO 3166-1 alpha-2)."),
    ),
    "updated_at": (Time(),),
}
CONTACT: Final[Mapping[str, tuple[FieldRule, ...]]] = {
    "contact_id": (Guid(),),
    "kind": (OneOf(values=_kinds, code="unknown_kind", text="A contact is a PHONE or an EMAIL.", ignores_case=True),),
    **{name: (Text(longest),) for name, longest in CONTACT_CHARACTERS_MAX.items()},
}
"""The rules for `value` depend on the kind."""

ATTRIBUTE: Final[Mapping[str, tuple[FieldRule, ...]]] = {
    "name": NAME,
    "text": (Text(ATTRIBUTE_CHARACTERS_MAX["text"]),),
    "integer": (Integer(),),
    "decimal": (DecimalNumber(),),
}
