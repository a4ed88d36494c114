"""The short reference by which people name a customer or an order without a number: `K7-3QD`.

It is the last 25 bits of the GUID in a readable alphabet, so every place that has the record shows the same one. In
GUIDs of versions 4, 5 and 7 these bits are random or a hash. It is not unique: of a thousand records in a store two
share one with a probability of 1.5 percent. Search shows both then.
"""

import re
from typing import Final
from uuid import UUID

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's Base32, which has no I, L, O and U."""

_BITS: Final = 25
_LETTER_BITS: Final = 5
_ENTERED: Final = re.compile(f"([{_ALPHABET}ILO]{{2}})[- ]?([{_ALPHABET}ILO]{{3}})", re.IGNORECASE)
_ALIKE: Final = str.maketrans("ILO", "110")

ENDING_CHARACTERS: Final = 6
"""The hexadecimal digits that a reference determines at the end of a GUID."""


def reference(guid: str) -> str:
    """The reference of the record with this GUID.

    >>> reference("0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f")
    '2T-FJF'
    """
    number = UUID(guid).int & ((1 << _BITS) - 1)
    letters = [_ALPHABET[(number >> shift) & 31] for shift in range(_BITS - _LETTER_BITS, -1, -_LETTER_BITS)]
    return f"{''.join(letters[:2])}-{''.join(letters[2:])}"


def entered_reference(text: str) -> str | None:
    """The reference that a person has typed, in any case, with or without its hyphen; None for any other text.

    >>> entered_reference(" 2t fjf "), entered_reference("oTFJF"), entered_reference("Ada")
    ('2T-FJF', '0T-FJF', None)
    """
    match = _ENTERED.fullmatch(text.strip())
    return None if match is None else "-".join(match.groups()).upper().translate(_ALIKE)


def ending_of(reference: str) -> str:
    """The last six hexadecimal digits of each GUID that has this reference, with which other GUIDs may end, too.

    >>> ending_of("2T-FJF")
    '2d3e4f'
    """
    number = 0
    for letter in reference.replace("-", ""):
        number = (number << _LETTER_BITS) | _ALPHABET.index(letter)
    return f"{number & 0xFFFFFF:06x}"
