"""The rules of `field_rules.py` applied to one value, with reasons. A reason never repeats the value."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tenten.rules.contact_points import is_email
from tenten.rules.field_rules import (
    DecimalNumber,
    EmailAddress,
    FieldRule,
    Guid,
    Integer,
    Language,
    OneOf,
    Required,
    Text,
    Time,
)
from tenten.rules.limits import (
    DECIMAL_FRACTION_DIGITS_MAX,
    DECIMAL_INTEGER_DIGITS_MAX,
    EMAIL_CHARACTERS_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    TIME_MAX,
    TIME_MIN,
    is_guid,
    is_language,
)
from tenten.schemas.messages import Reason

_TOO_LONG: Final = "At most {} characters are allowed."


def violations(rule: FieldRule, field: str, value: Any) -> Iterator[Reason]:  # noqa: PLR0912 a case for each kind of rule
    """A reason for each violation of the rule by this value of the field; None where the record has no value."""
    match rule:
        case Text(characters_max):
            yield from _text_violations(field, value or "", characters_max)
        case Required(text):
            if not value:
                yield Reason(field=field, code="required", text=text)
        case OneOf(values=values, code=code, text=text, ignores_case=ignores_case):
            if (value.upper() if ignores_case else value) not in values():
                yield Reason(field=field, code=code, text=text)
        case Language():
            if value and not is_language(value):
                yield Reason(field=field, code="unknown_language", text="A language is a tag such as en-US (BCP 47).")
        case EmailAddress():
            yield from _email_violations(field, value)
        case Guid():
            if not is_guid(value):
                yield Reason(field=field, code="invalid_id", text="An id is a GUID in lower case, with hyphens.")
        case Time():
            yield from _time_violations(field, value)
        case Integer():
            if value is not None and not INTEGER_MIN <= value <= INTEGER_MAX:
                yield Reason(field=field, code="out_of_range", text="An integer has at most 64 bits.")
        case DecimalNumber():
            if value is not None:
                yield from _decimal_violations(field, value)


def _text_violations(field: str, value: str, characters_max: int) -> Iterator[Reason]:
    if len(value) > characters_max:
        yield Reason(field=field, code="too_long", text=_TOO_LONG.format(characters_max))
    if "\x00" in value:
        yield Reason(field=field, code="nul", text="The text contains a NUL character, which cannot be stored.")
    if not is_unicode(value):
        yield Reason(field=field, code="not_unicode", text="The text contains an unpaired surrogate.")


def _email_violations(field: str, value: str) -> Iterator[Reason]:
    if len(value) > EMAIL_CHARACTERS_MAX:
        yield Reason(field=field, code="too_long", text=_TOO_LONG.format(EMAIL_CHARACTERS_MAX))
    elif value and not is_email(value):
        yield Reason(field=field, code="invalid_email", text="The e-mail address is not valid.")


def _time_violations(field: str, value: datetime) -> Iterator[Reason]:
    if value.tzinfo is None or not TIME_MIN <= value <= TIME_MAX:
        yield Reason(field=field, code="invalid_time", text="A time has a zone and lies in the years 1 to 9999.")


def _decimal_violations(field: str, value: Decimal) -> Iterator[Reason]:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        yield Reason(field=field, code="out_of_range", text="A decimal is a finite number.")
    elif max(value.adjusted(), exponent) >= DECIMAL_INTEGER_DIGITS_MAX:
        text = f"A decimal has at most {DECIMAL_INTEGER_DIGITS_MAX} digits before the decimal point."
        yield Reason(field=field, code="out_of_range", text=text)
    elif exponent < -DECIMAL_FRACTION_DIGITS_MAX:
        text = f"A decimal has at most {DECIMAL_FRACTION_DIGITS_MAX} digits after the decimal point."
        yield Reason(field=field, code="too_precise", text=text)


def is_unicode(value: str) -> bool:
    """False for a text with unpaired surrogates, which result from decoding bytes with the wrong encoding."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
