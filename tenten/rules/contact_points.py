"""Phone numbers and e-mail addresses: whether they are valid, and their normal form. Two libraries decide."""

import re
from typing import Final

import email_validator
import phonenumbers

from tenten.rules.limits import EMAIL_CHARACTERS_MAX

_INTERNATIONAL: Final = re.compile(r"\+[1-9][0-9]{1,18}")


def is_phone(value: str) -> bool:
    """True for a possible phone number in E.164 form.

    Its length must be possible, its range need not be allotted: new ranges are opened every month, and a customer whose
    number is newer than the installed metadata must not be rejected. For the same reason a trunk prefix after the
    country code is not rejected: only that metadata could tell it from the number.
    """
    if not _INTERNATIONAL.fullmatch(value):
        return False
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(value, None))
    except phonenumbers.NumberParseException:
        return False


def is_email(value: str) -> bool:
    """True for a valid e-mail address, by its form alone: no name server is queried."""
    return _validated_email(value) is not None


def _validated_email(value: str) -> str | None:
    if len(value) > EMAIL_CHARACTERS_MAX:
        return None
    try:
        return email_validator.validate_email(value, check_deliverability=False).normalized
    except (email_validator.EmailNotValidError, UnicodeError):
        return None


def normal_phone(text: str, country: str) -> str | None:
    """The E.164 form of a phone number in any notation; None for an invalid number.

    The country (ISO 3166-1 alpha-2) applies to numbers without a country code. None as well for a number without
    its area code, which cannot be dialled from elsewhere, and for one with an extension, which E.164 cannot hold.

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
    """The e-mail address with its domain in lower case; None for an invalid address.

    >>> normal_email(" Ann.Mueller@Example.COM "), normal_email("ann at example")
    ('Ann.Mueller@example.com', None)
    """
    return _validated_email(text.strip())
