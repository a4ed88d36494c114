"""Ordinary phone numbers and e-mail addresses, for whole columns."""

import polars as pl

from tenten.rules import ordinary_contact_points as ordinary


def is_ordinary_phone(values: pl.Expr) -> pl.Expr:
    """True only for valid phone numbers, and for nearly all of them."""
    return values.str.contains(f"^{ordinary.phone()}$")


def is_ordinary_email(values: pl.Expr) -> pl.Expr:
    """True only for valid e-mail addresses, and for nearly all of them."""
    short = values.str.len_bytes() <= ordinary.EMAIL_CHARACTERS_MAX
    special = values.str.contains(f"(?i){ordinary.special_domain()}")
    return short & values.str.contains(f"^{ordinary.EMAIL}$") & ~special
