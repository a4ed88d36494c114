"""The rule for the operator of an event, on the column `operator` of a batch."""

import polars as pl

from tenten.rules.limits import OPERATOR_CHARACTERS_MAX


def operator_is_valid() -> pl.Expr:
    """One boolean a row: `operator_violations` finds none."""
    operator = pl.col("operator")
    is_short = operator.str.len_chars() <= OPERATOR_CHARACTERS_MAX
    return (is_short & ~operator.str.contains("\x00", literal=True)).fill_null(True)


def storable_operator() -> pl.Expr:
    """The column, with null for an invalid operator: its record is rejected, and stored without it."""
    return pl.when(operator_is_valid()).then(pl.col("operator")).alias("operator")
