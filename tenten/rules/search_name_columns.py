"""The search names of a batch of customers. `customer.py` has the rule."""

import polars as pl

from tenten.rules.customer import SEARCHED_NAMES, fold_for_search


def search_names(customers: pl.DataFrame) -> pl.Series:
    """The column `search_name` of customers that have the names as columns, in the order of the frame.

    Names in ASCII only need lower case. Others are folded one by one, each distinct name once, so that both ways know
    the same version of Unicode.
    """
    names = [pl.when(pl.col(name) != "").then(pl.col(name)) for name in SEARCHED_NAMES]
    joined = customers.select(pl.concat_str(names, separator=" ", ignore_nulls=True).alias("search_name")).to_series()
    lower = joined.str.to_lowercase()
    other = joined.filter(joined.str.len_bytes() != joined.str.len_chars()).unique().to_list()
    return (
        lower
        if not other
        else lower.to_frame()
        .select(
            pl.when(joined.is_in(other))
            .then(joined.replace_strict(other, list(map(fold_for_search, other)), default=None, return_dtype=pl.String))
            .otherwise(lower)
            .alias("search_name")
        )
        .to_series()
    )
