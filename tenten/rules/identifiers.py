"""The form of identifiers: channel ids, legal entities, and the ids of events that another event supersedes.

Identifiers go into record keys, replies, rows and texts. A record with one that is too long cannot be answered.
"""

import re
from typing import Final

IDENTIFIER_CHARACTERS_MAX: Final = 64

_CONTROL_CHARACTER: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


def is_identifier(text: str) -> bool:
    """Whether the text has at most `IDENTIFIER_CHARACTERS_MAX` characters, and no control character."""
    return len(text) <= IDENTIFIER_CHARACTERS_MAX and (text.isprintable() or not _CONTROL_CHARACTER.search(text))
