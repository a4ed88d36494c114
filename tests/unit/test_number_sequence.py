"""Number sequences: the form of an account number, and what happens at the end."""

import polars as pl
import pytest

from tenten.rules.number_sequence import FormatRefused, number_format, take
from tenten.rules.number_sequence_columns import account_numbers


def test_column_of_numbers_is_formatted_like_single_ones() -> None:
    """The columnar way and the plain way give the same account numbers."""
    shape = number_format("C-####")

    assert account_numbers(shape, pl.Series([0, 7, 42, 9999])).to_list() == ["C-0000", "C-0007", "C-0042", "C-9999"]
    assert [shape.account_number(number) for number in (0, 7, 42, 9999)] == ["C-0000", "C-0007", "C-0042", "C-9999"]


@pytest.mark.parametrize("text", ["", "C-", "##-##", "ü###", "#" * 19, "C-\n##"])
def test_format_without_one_run_of_digits_is_refused(text: str) -> None:
    """A format is one run of # between printable ASCII."""
    with pytest.raises(FormatRefused):
        number_format(text)


def test_sequence_gives_what_it_has_and_says_what_is_missing() -> None:
    """At its end a sequence gives the last numbers and counts the rest as missing."""
    shape = number_format("##")

    taken = take(shape, 98, 5)

    assert list(taken.numbers) == [98, 99]
    assert taken.missing == 3


def test_sequence_that_has_run_out_gives_nothing() -> None:
    """Past its end a sequence gives no number again."""
    taken = take(number_format("##"), 100, 1)

    assert list(taken.numbers) == []
    assert taken.missing == 1
