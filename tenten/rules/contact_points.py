"""Phone numbers and e-mail addresses: what is one, and how they are written.

The libraries decide. They take 20 and 40 microseconds a value, so for columns two regular expressions know the ordinary
ones: that for phone numbers is made from the library's own metadata, that for e-mail addresses takes less than the
library does.
"""

import re
from functools import cache
from typing import Final

import email_validator
import phonenumbers
import polars as pl
from phonenumbers.phonemetadata import PhoneMetadata

from tenten.rules.limits import EMAIL_CHARACTERS_MAX

_INTERNATIONAL: Final = re.compile(r"\+[1-9][0-9]{1,18}")

_LABEL: Final = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_ORDINARY_EMAIL: Final = rf"^[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@(?:{_LABEL}\.)+[A-Za-z]{{2,}}$"
"""A dot-atom of letters, digits and a few signs; then labels without two hyphens in a row, so none that is Punycode."""
_ORDINARY_EMAIL_CHARACTERS_MAX: Final = 64
"""As long as the shortest limit of a part, so that no part can be too long."""


def is_phone(value: str) -> bool:
    """True for a plus sign and digits that may be a phone number somewhere.

    What counts is a possible length, not an allotted range: new ranges are opened every month, and a customer whose
    number is newer than the installed metadata must not be refused. For the same reason nothing is said against a trunk
    prefix behind the country code: where one begins and a number does not is in the same metadata.
    """
    if not _INTERNATIONAL.fullmatch(value):
        return False
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(value, None))
    except phonenumbers.NumberParseException:
        return False


def is_email(value: str) -> bool:
    """True for an address that mail could be sent to, by its form alone: no name server is asked."""
    return _validated_email(value) is not None


def _validated_email(value: str) -> str | None:
    if len(value) > EMAIL_CHARACTERS_MAX:
        return None
    try:
        return email_validator.validate_email(value, check_deliverability=False).normalized
    except (email_validator.EmailNotValidError, UnicodeError):
        return None


def normal_phone(text: str, country: str) -> str | None:
    """A phone number as someone writes it, in E.164; None when it is none.

    The country (ISO 3166-1 alpha-2) is where a number without a country code is from. None as well for a number without
    its area code, which nobody elsewhere can dial, and for one with an extension, which E.164 cannot hold.

    >>> normal_phone("(713) 555-0123", "US"), normal_phone("+49 30 901820", "US"), normal_phone("555-0123", "US")
    ('+17135550123', '+4930901820', None)
    """
    try:
        number = phonenumbers.parse(text, country.upper() or None)
    except phonenumbers.NumberParseException:
        return None
    length = phonenumbers.is_possible_number_with_reason(number)
    if length != phonenumbers.ValidationResult.IS_POSSIBLE or number.extension:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def normal_email(text: str) -> str | None:
    """An e-mail address as someone writes it, with its domain in lower case; None when it is none.

    >>> normal_email(" Ann.Mueller@Example.COM "), normal_email("ann at example")
    ('Ann.Mueller@example.com', None)
    """
    return _validated_email(text.strip())


def is_ordinary_phone(values: pl.Expr) -> pl.Expr:
    """True only where `is_phone` is, and of nearly all of those."""
    return values.str.contains(_ordinary_phone())


def is_ordinary_email(values: pl.Expr) -> pl.Expr:
    """True only where `is_email` is, and of nearly all of those."""
    short = values.str.len_bytes() <= _ORDINARY_EMAIL_CHARACTERS_MAX
    return short & values.str.contains(_ORDINARY_EMAIL) & ~values.str.contains(_special_domain())


@cache
def _ordinary_phone() -> str:
    """A regular expression for the numbers whose length is possible as they stand: `(?:1[0-9]{10}|49[0-9]{4}|...)`.

    Parsing may take a trunk prefix off: it does so only if what remains is possible too, or too long. Too long it can
    only become by a rule that puts digits in (Argentina's 9); the longest lengths of such a country are left out.
    """
    alternatives: list[str] = []
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, regions[0])
        if metadata is None or metadata.general_desc is None:
            continue
        lengths = metadata.general_desc.possible_length
        put_in = len(re.findall("[0-9]", re.sub(r"\\[0-9]", "", metadata.national_prefix_transform_rule or "")))
        alternatives.extend(f"{code}[0-9]{{{length}}}" for length in lengths if 2 <= length <= max(lengths) - put_in)
    return rf"^\+(?:{'|'.join(alternatives)})$"


@cache
def _special_domain() -> str:
    """A regular expression for domains that mail cannot be sent to, as the library lists them."""
    return rf"(?i)[@.](?:{'|'.join(map(re.escape, email_validator.SPECIAL_USE_DOMAIN_NAMES))})$"
