"""A column of account numbers at once. `number_sequence.py` has the rules."""

import polars as pl

from tenten.rules.number_sequence import NumberFormat


def account_numbers(number_format: NumberFormat, numbers: pl.Series) -> pl.Series:
    """The numbers in this format. The caller keeps within `number_max`."""
    text = numbers.cast(pl.String).str.zfill(number_format.digits)
    return (pl.Series([number_format.before]) + text + pl.Series([number_format.after])).alias("account_number")
