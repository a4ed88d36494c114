"""Limits on customer data: lengths, counts, ranges and valid codes. `customer_rules.py` applies them."""

import re
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Final

import iso3166
import iso4217

from tenten.schemas.customer_fields import scalar_fields

CUSTOMER_CHARACTERS_MAX: Final = {
    field.name: field.characters_max for field in scalar_fields() if field.characters_max is not None
}
"""The longest text of each scalar field, in characters; without the fields that only accept codes."""

ADDRESS_CHARACTERS_MAX: Final = {
    "name": 100,
    "street": 250,
    "city": 60,
    "county": 60,
    "state": 60,
    "postal_code": 20,
}
CONTACT_CHARACTERS_MAX: Final = {"description": 60}
EMAIL_CHARACTERS_MAX: Final = 254
NAME_CHARACTERS_MAX: Final = 60
"""The longest name of an address book or an affiliation."""
OPERATOR_CHARACTERS_MAX: Final = 64
ATTRIBUTE_CHARACTERS_MAX: Final = {"name": NAME_CHARACTERS_MAX, "text": 1000}

COUNTS_MAX: Final = {"address_books": 50, "affiliations": 50, "addresses": 100, "contacts": 100, "attributes": 100}
"""The most members that each list of a customer may have."""

MEMBERS_READ_MAX: Final = 1_000
"""The most members of a list of a customer that headquarters reads; a customer with fewer, but too many, is rejected
with a reason."""
PATHS_READ_MAX: Final = 50_000
"""The most paths that an event may name, for itself and for the events that it supersedes."""

REASONS_MAX: Final = 500
"""The most reasons that a rejection names, so that each reply fits its topic."""
SUPERSEDED_MAX: Final = 10_000
"""The most events that one event may supersede; each of them is answered."""

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
DECIMAL_INTEGER_DIGITS_MAX: Final = 22
DECIMAL_FRACTION_DIGITS_MAX: Final = 6
TIME_MIN: Final = datetime(1, 1, 2, tzinfo=UTC)
TIME_MAX: Final = datetime(9999, 12, 30, tzinfo=UTC)
"""One day less than Python's range at both ends, so that a time can be shown in every time zone."""

PURPOSES: Final = frozenset(("", "HOME", "BUSINESS", "DELIVERY", "INVOICE", "OTHER"))
"""The purposes of an address."""

GUID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""A GUID in the form that contracts and tables use: lower case, with hyphens."""
GUID_PATTERN: Final = f"^{GUID.pattern}$"
"""The same for polars, whose `contains` also matches parts of a text."""


def is_guid(text: str) -> bool:
    """Whether the text is a GUID in lower case with hyphens."""
    return GUID.fullmatch(text) is not None


_COUNTRY_NAMES: Final = {
    "bolivia": "BO",
    "brunei": "BN",
    "czech republic": "CZ",
    "great britain": "GB",
    "holy see (vatican city state)": "VA",
    "iran": "IR",
    "laos": "LA",
    "macedonia": "MK",
    "moldova": "MD",
    "nauru": "NR",
    "north korea": "KP",
    "russia": "RU",
    "south korea": "KR",
    "syria": "SY",
    "taiwan": "TW",
    "tanzania": "TZ",
    "uk": "GB",
    "united kingdom": "GB",
    "united states": "US",
    "venezuela": "VE",
    "vietnam": "VN",
}
"""Common English names of countries that ISO 3166 lists under a longer name."""


@cache
def countries() -> frozenset[str]:
    """The ISO 3166-1 alpha-2 codes; without XK (Kosovo), which ISO has not assigned."""
    return frozenset(iso3166.countries_by_alpha2) - {"XK"}


def country_code(text: str) -> str | None:
    """The ISO 3166-1 alpha-2 code of a country's code, number or English name, in any case; None if it has none."""
    known = _COUNTRY_NAMES.get(text.lower())
    if known is not None:
        return known
    try:
        code = iso3166.countries.get(text).alpha2
    except KeyError:
        return None
    return code if code in countries() else None


@cache
def currencies() -> frozenset[str]:
    """The alphabetic ISO 4217 codes."""
    return frozenset(currency.code.upper() for currency in iso4217.Currency)


_TWO_LETTER_LANGUAGES: Final = {
    "a": "abefkmnrsvyz",
    "b": "aeghimnors",
    "c": "aehorsuvy",
    "d": "aevz",
    "e": "elnostu",
    "f": "afijory",
    "g": "adlnuv",
    "h": "aeiortuyz",
    "i": "adegiknostuw",
    "j": "aivw",
    "k": "agijklmnorsuvwy",
    "l": "abginotuv",
    "m": "ghiklnorsty",
    "n": "abdeglnorvy",
    "o": "cjmrs",
    "p": "ailst",
    "q": "u",
    "r": "mnouw",
    "s": "acdeghiklmnoqrstuvw",
    "t": "aeghiklnorstwy",
    "u": "gkrz",
    "v": "eio",
    "w": "ao",
    "x": "h",
    "y": "io",
    "z": "ahu",
}
"""Two-letter languages of the IANA registry: second letters by first letter. A test compares with `langcodes`."""


@lru_cache(maxsize=1_000)
def is_language(tag: str) -> bool:
    """Whether a language tag begins with a language of the IANA registry. Source: BCP 47 (RFC 5646), section 2.2.1."""
    primary = tag.partition("-")[0].lower()
    if len(primary) == 2 and primary[1] in _TWO_LETTER_LANGUAGES.get(primary[0], ""):
        return True
    # Rarely needed, and its import takes some 100 ms of CPU.
    import langcodes

    return primary.isalpha() and langcodes.tag_is_valid(primary)
