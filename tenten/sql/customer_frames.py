"""The columnar way from decoded customers to the rows of a database: one frame a table, one COPY a frame.

A frame of customers has the columns `customer_id`, `account_number`, `version`, `updated_at` and `customer`, as
decoded from `Customer` snapshots or put together from events. The per-record way is `tenten/sql/customer_rows.py`; both
write the same rows.
"""

from dataclasses import dataclass
from typing import Final, Literal

import polars as pl
from sqlalchemy import Table

from tenten.rules.search_name_columns import search_names
from tenten.schemas.customer_fields import scalar_fields
from tenten.schemas.tables import channel, headquarters
from tenten.schemas.tables.types import Guid, UtcTime

Dialect = Literal["postgresql", "sqlite"]

_ISO_8601: Final = "%Y-%m-%dT%H:%M:%S%.6f+00:00"
_LOWER_CASE: Final = (*(field.name for field in scalar_fields() if field.symbols is not None), "purpose", "kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFrames:
    """The rows of a batch of customers, a frame a table, with exactly that table's columns in its order."""

    customers: pl.DataFrame
    addresses: pl.DataFrame
    contacts: pl.DataFrame


def headquarters_frames(frame: pl.DataFrame) -> TableFrames:
    """Customers as rows of headquarters' tables, ready for `copy_into`."""
    with_erasure = frame.with_columns(pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias("erased_at"))
    return _frames(with_erasure, headquarters.customers, "postgresql")


def channel_frames(frame: pl.DataFrame, dialect: Dialect) -> TableFrames:
    """Customers as rows of a channel's tables: ready for `copy_into`, or for `executemany` of `frame.rows()` in
    SQLite.
    """
    return _frames(frame, channel.customers, dialect)


def _frames(frame: pl.DataFrame, customers: Table, dialect: Dialect) -> TableFrames:
    unnested = frame.select("customer_id", pl.exclude("customer_id", "customer"), "customer").unnest("customer")
    addresses = unnested.select("customer_id", pl.col("addresses")).explode("addresses", empty_as_null=False)
    contacts = unnested.select("customer_id", pl.col("contacts")).explode("contacts", empty_as_null=False)
    flat = unnested.with_columns(
        _json_texts("address_books"),
        _json_texts("affiliations"),
        _json_attributes(unnested["attributes"]),
        search_names(unnested),
    )
    return TableFrames(
        customers=as_rows(flat, customers, dialect),
        addresses=as_rows(addresses.unnest("addresses"), channel.customer_addresses, dialect),
        contacts=as_rows(contacts.unnest("contacts"), channel.customer_contacts, dialect),
    )


def as_rows(frame: pl.DataFrame, table: Table, dialect: Dialect) -> pl.DataFrame:
    """The table's columns from a frame that has them by name, in the form that the database's bulk interface takes.

    PostgreSQL's binary COPY wants GUIDs as 16 bytes; SQLite has them as text, like times.
    """
    return frame.select(_as_column(column.name, column.type, dialect) for column in table.columns)


def _as_column(name: str, kind: object, dialect: Dialect) -> pl.Expr:
    value = pl.col(name)
    if isinstance(kind, Guid) and dialect == "postgresql":
        return _guid_bytes(value)
    if isinstance(kind, UtcTime) and dialect == "sqlite":
        return value.dt.strftime(_ISO_8601)
    return value.str.to_lowercase() if name in _LOWER_CASE else value


def _guid_bytes(guid: pl.Expr) -> pl.Expr:
    """GUIDs as the 16 bytes that PostgreSQL's binary COPY wants."""
    return guid.str.replace_all("-", "", literal=True).str.decode("hex")


def _json_texts(name: str) -> pl.Expr:
    """A list of texts as a JSON array."""
    return _json(name, pl.col(name))


def _json(name: str, value: pl.Expr) -> pl.Expr:
    wrapped = pl.struct(value.alias(name)).struct.json_encode()
    return wrapped.str.strip_prefix(f'{{"{name}":').str.strip_suffix("}").alias(name)


def _json_attributes(attributes: pl.Series) -> pl.Expr:
    """Attributes as a JSON array of objects with the name and the one value that is set; decimals as text."""
    if attributes.list.len().sum() == 0:
        return pl.lit("[]").alias("attributes")
    decimals = pl.element().struct.field("decimal").cast(pl.String).str.strip_chars_end("0").str.strip_suffix(".")
    encoded = _json(
        "attributes", pl.col("attributes").list.eval(pl.element().struct.with_fields(decimals.alias("decimal")))
    )
    # Within a JSON text every quote is escaped, so none of these can be part of a value.
    for absent in ("text", "integer", "decimal", "boolean"):
        encoded = encoded.str.replace_all(f',"{absent}":null', "", literal=True)
    return encoded.alias("attributes")
