"""Languages of the IANA registry."""

from itertools import product
from string import ascii_lowercase

import langcodes
import pytest

from tenten.rules.limits import is_language


def test_two_letter_languages_are_those_of_the_registry() -> None:
    """The list that spares a till the import of the registry is complete, and has no other language."""
    codes = ["".join(letters) for letters in product(ascii_lowercase, repeat=2)]
    assert [code for code in codes if is_language(code)] == [code for code in codes if langcodes.tag_is_valid(code)]


@pytest.mark.parametrize(
    ("tag", "valid"), [("en-US", True), ("EN", True), ("fil-PH", True), ("xx-US", False), ("1n", False), ("", False)]
)
def test_language_of_a_tag(tag: str, valid: bool) -> None:
    """Its first part decides, in any case."""
    assert is_language(tag) is valid
