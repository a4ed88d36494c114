"""New customers against the definitions of their legal entities: attributes and customer groups.

Where no legal entity defines anything this costs nothing.
"""

from collections.abc import Mapping

import polars as pl

from tenten.avro.wire import Json
from tenten.rules.definitions import CustomerDefinitions, is_as_defined


def is_defined(customer: Json, definitions: Mapping[str, CustomerDefinitions]) -> bool:
    """Whether a new customer, as a decoded record, breaks no definition of its legal entity."""
    found = definitions.get(customer["legal_entity"]) if definitions else None
    return found is None or is_as_defined(found, customer["customer_group"], customer["attributes"])


def are_defined(frame: pl.DataFrame, definitions: Mapping[str, CustomerDefinitions]) -> pl.Series:
    """The same for the column `customer` of a decoded frame: one boolean a row; true for a row without a customer."""
    if not definitions:
        return pl.repeat(True, frame.height, eager=True)
    state = pl.col("customer").struct
    names = ("legal_entity", "customer_group", "attributes")
    rows = frame.select(state.field(name) for name in names).iter_rows(named=True)
    return pl.Series([row["legal_entity"] is None or is_defined(row, definitions) for row in rows], dtype=pl.Boolean)
