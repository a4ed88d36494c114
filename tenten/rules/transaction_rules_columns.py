"""A columnar fast path for the rules of sales: rows that pass need no call to `transaction_violations`.

Valid sales do not pass only where numbers or texts are very large, where they have attributes, and where their legal
entity has defined some. Numbers are counted in millionths, as 128-bit
integers, so that every sum and product is exact.
"""

import sys
from collections.abc import Collection, Mapping
from typing import Final

import polars as pl

from tenten.rules.limits import GUID_PATTERN, currencies
from tenten.rules.operator_rule_columns import operator_is_valid
from tenten.rules.transaction_rules import CHARACTERS_MAX, LINES_MAX, minor_unit
from tenten.schemas.messages import ROW

_MILLION: Final = 1_000_000
_NUMBER_END: Final = 10**9 * _MILLION
"""Larger numbers do not pass; the product of two smaller ones is exact."""

_CHARACTERS_MAX: Final = min(CHARACTERS_MAX.values())
_WHITESPACE: Final = "".join(char for char in map(chr, range(sys.maxunicode + 1)) if char.isspace())
"""The characters that `str.strip` removes; without an argument, polars leaves some of them."""

_ADDRESS_TEXTS: Final = ("name", "street", "city", "county", "state", "postal_code", "country")


def passes_fast_path(
    frame: pl.DataFrame, legal_entity_by_channel: Mapping[str, str], defining: Collection[str] = ()
) -> pl.Series:
    """One boolean per row of decoded orders and cash-and-carry sales, in the order of the frame.

    `defining`: the legal entities that have defined attributes of orders or sales.
    """
    unit = {code: int(minor_unit(code) * _MILLION) for code in currencies()}
    base = frame.select(
        ROW,
        pl.col("kind") == "CASH_AND_CARRY",
        pl.col("currency").replace_strict(unit, default=None, return_dtype=pl.Int64).cast(pl.Int128).alias("unit"),
        pl.col("total").to_physical().cast(pl.Int128),
        (_header(legal_entity_by_channel) & ~pl.col("legal_entity").is_in(list(defining))).alias("valid"),
    )
    parts = base.select(ROW, "kind", "unit")
    lines = _lines(frame, parts)
    charges, taxes = _coded(frame, parts, "charges", "code"), _coded(frame, parts, "taxes", "code")
    payments = _coded(frame, parts, "payments", "method")
    joined = base
    for name, part in (("lines", lines), ("charges", charges), ("taxes", taxes), ("payments", payments)):
        joined = joined.join(part.rename({"valid": f"{name}_valid", "sum": f"{name}_sum"}), on=ROW, how="left")
    joined = joined.with_columns(
        *(pl.col(f"{name}_valid").fill_null(True) for name in ("charges", "taxes", "payments")),
        *(pl.col(f"{name}_sum").fill_null(0) for name in ("charges", "taxes", "payments")),
    )
    paid = pl.col("payments_sum")
    valid = (
        pl.all_horizontal("valid", "lines_valid", "charges_valid", "taxes_valid", "payments_valid")
        & (pl.col("total") == pl.col("lines_sum") + pl.col("charges_sum") + pl.col("taxes_sum"))
        & _in_range(pl.col("total"))
        & pl.when("kind")
        .then(paid == pl.col("total"))
        .otherwise((paid >= 0) & (paid <= pl.max_horizontal(pl.col("total"), 0)))
    )
    by_row = joined.select(ROW, valid.fill_null(False).alias("valid"))
    return frame.select(ROW).join(by_row, on=ROW, how="left", maintain_order="left")["valid"]


def _header(legal_entity_by_channel: Mapping[str, str]) -> pl.Expr:
    """Checks of channel, customer, delivery, and the lengths of lists."""
    owner = pl.col("channel_id").replace_strict(dict(legal_entity_by_channel), default=None, return_dtype=pl.String)
    customer, event = pl.col("customer_id"), pl.col("customer_event_id")
    return (
        (owner == pl.col("legal_entity"))
        & operator_is_valid()
        & customer.str.contains(GUID_PATTERN).fill_null(True)
        & event.str.contains(GUID_PATTERN).fill_null(True)
        & (event.is_null() == pl.col("customer_event").is_null())
        & (event.is_null() | customer.is_not_null())
        & (pl.col("delivery_mode").str.len_chars() <= _CHARACTERS_MAX)
        & _without_nul(pl.col("delivery_mode"))
        & pl.col("lines").list.len().is_between(1, LINES_MAX)
        & pl.all_horizontal(pl.col(name).list.len() <= LINES_MAX for name in ("charges", "taxes", "payments"))
        & pl.all_horizontal(pl.col(name).list.len() == 0 for name in ("listed", "control_totals", "attributes"))
        & (pl.col("delivery_address").is_null() | _address())
    )


def _address() -> pl.Expr:
    address = pl.col("delivery_address").struct
    texts = [address.field(name) for name in _ADDRESS_TEXTS]
    return (
        (pl.col("kind") == "ORDER")
        & pl.col("customer_id").is_not_null()
        & address.field("address_id").str.contains(GUID_PATTERN)
        & pl.all_horizontal((text.str.len_chars() <= 2 * _CHARACTERS_MAX) & _without_nul(text) for text in texts)
    ).fill_null(False)


def _lines(frame: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    """By row: whether every line is valid, and the sum of the amounts."""
    lines = _exploded(frame, parts, "lines")
    numbers = [pl.col(name).to_physical().cast(pl.Int128) for name in ("quantity", "price", "amount")]
    quantity, price, amount = numbers
    product, unit = quantity * price, pl.col("unit") * _MILLION
    rounded = (product.abs() + unit // 2) // unit * unit * product.sign()
    valid = (
        _required(pl.col("sku"))
        & pl.all_horizontal(_in_range(number) for number in numbers)
        & (price >= 0)
        & ((quantity > 0) | ((quantity < 0) & pl.col("kind")))
        & (rounded == amount * _MILLION)
    )
    return _summed(lines, valid, amount)


def _coded(frame: pl.DataFrame, parts: pl.DataFrame, name: str, code: str) -> pl.DataFrame:
    """The same for charges, taxes or payments; rows without any are missing."""
    rows = _exploded(frame, parts, name)
    amount = pl.col("amount").to_physical().cast(pl.Int128)
    valid = _required(pl.col(code)) & _in_range(amount) & (amount % pl.col("unit") == 0)
    return _summed(rows, valid, amount)


def _exploded(frame: pl.DataFrame, parts: pl.DataFrame, name: str) -> pl.DataFrame:
    """One row per member of this list, with kind and unit of its transaction."""
    members = frame.select(ROW, name).filter(pl.col(name).list.len() > 0)
    return members.explode(name).unnest(name).join(parts, on=ROW, how="left")


def _summed(rows: pl.DataFrame, valid: pl.Expr, amount: pl.Expr) -> pl.DataFrame:
    checked = rows.select(ROW, valid.fill_null(False).alias("valid"), amount.alias("sum"))
    return checked.group_by(ROW).agg(pl.col("valid").all(), pl.col("sum").sum())


def _in_range(number: pl.Expr) -> pl.Expr:
    """Not with `abs`, which overflows for the smallest number."""
    return number.is_between(-_NUMBER_END, _NUMBER_END, closed="none")


def _required(text: pl.Expr) -> pl.Expr:
    return (text.str.strip_chars(_WHITESPACE) != "") & (text.str.len_chars() <= _CHARACTERS_MAX) & _without_nul(text)


def _without_nul(text: pl.Expr) -> pl.Expr:
    return ~text.str.contains("\x00", literal=True)
