"""Regular expressions for ordinary phone numbers and e-mail addresses, for single values and for whole columns.

The libraries in `contact_points.py` take 20 and 40 microseconds a value. These expressions accept less than the
libraries do: the one for phone numbers is made from the library's own metadata.
"""

import re
from functools import cache
from typing import Final

import email_validator
import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata

_LABEL: Final = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"

EMAIL: Final = rf"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@(?:{_LABEL}\.)+[A-Za-z]{{2,}}"
"""A dot-atom of letters, digits and a few signs; then labels without two hyphens in a row, so none that is Punycode."""

EMAIL_CHARACTERS_MAX: Final = 64
"""As long as the shortest limit of a part, so that no part can be too long."""


@cache
def special_domain() -> str:
    """The end of an address in a domain that mail cannot be sent to, in lower case, as the library lists them."""
    return rf"[@.](?:{'|'.join(map(re.escape, email_validator.SPECIAL_USE_DOMAIN_NAMES))})$"


@cache
def phone() -> str:
    """The numbers whose length is possible as written: `(?:1[0-9]{10}|49[0-9]{4}|...)`.

    Parsing may remove a trunk prefix, but only if the rest is possible too, or too long. Only transform rules that
    insert digits (Argentina's 9) can lengthen it; the longest lengths of such a country are left out.
    """
    alternatives: list[str] = []
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, regions[0])
        if metadata is None or metadata.general_desc is None:
            continue
        lengths = metadata.general_desc.possible_length
        put_in = len(re.findall("[0-9]", re.sub(r"\\[0-9]", "", metadata.national_prefix_transform_rule or "")))
        alternatives.extend(f"{code}[0-9]{{{length}}}" for length in lengths if 2 <= length <= max(lengths) - put_in)
    return rf"\+(?:{'|'.join(alternatives)})"


def is_ordinary_phone(value: str) -> bool:
    """True only for valid phone numbers, and for nearly all of them."""
    return _compiled_phone().fullmatch(value) is not None


def is_ordinary_email(value: str) -> bool:
    """True only for valid e-mail addresses, and for nearly all of them."""
    return (
        len(value) <= EMAIL_CHARACTERS_MAX
        and _COMPILED_EMAIL.fullmatch(value) is not None
        and _compiled_special_domain().search(value.lower()) is None
    )


_COMPILED_EMAIL: Final = re.compile(EMAIL)


@cache
def _compiled_phone() -> re.Pattern[str]:
    return re.compile(phone())


@cache
def _compiled_special_domain() -> re.Pattern[str]:
    return re.compile(special_domain())
