"""Number sequences: how a number becomes an account number, and when a sequence has run out. Pure rules."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_FORMAT: Final = re.compile(r"([ -\"$-~]*)(#{1,18})([ -\"$-~]*)")
"""One run of # between texts of printable ASCII."""

NEARLY_USED_UP: Final = 0.9
"""The share of its numbers above which a sequence counts as nearly used up."""


class FormatRefused(ValueError):
    """An account number format is one run of #, each a digit, between printable ASCII: C-########."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """`C-########`: a text, digits with leading zeros, a text."""

    before: str
    digits: int
    after: str

    @property
    def number_max(self) -> int:
        """The last number that the format has room for."""
        return int(10**self.digits) - 1

    def account_number(self, number: int) -> str:
        """The number in this format. The caller keeps within `number_max`."""
        return f"{self.before}{number:0{self.digits}d}{self.after}"


def number_format(text: str) -> NumberFormat:
    """The format that a text describes. Raises: `FormatRefused`."""
    match = _FORMAT.fullmatch(text)
    if match is None:
        raise FormatRefused(f"{text!r} is not a valid account number format: {FormatRefused.__doc__}")
    before, digits, after = match.groups()
    return NumberFormat(before=before, digits=len(digits), after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Numbers taken from a sequence, in order, and how many are missing because it is used up."""

    numbers: Sequence[int]
    missing: int


def take(number_format: NumberFormat, next_number: int, count: int) -> Taken:
    """The next `count` numbers, or as many as are left."""
    end = min(next_number + count, number_format.number_max + 1)
    numbers = range(next_number, max(end, next_number))
    return Taken(numbers=numbers, missing=count - len(numbers))
