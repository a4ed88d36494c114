"""A columnar pre-check of a batch of customers: rows that it accepts need no call to `customer_rules.reasons`.

It accepts only valid, canonical customers, and nearly all of those; a property test proves that. The rules for single
fields come from `field_rules.py`. The members of a list are checked together for all customers. Each call into polars
costs a tenth of a millisecond, and so does an expression with many codes, hence the caches.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Final

import polars as pl

from tenten.rules import field_rules
from tenten.rules.contact_points import is_email, is_phone
from tenten.rules.contact_points_columns import is_ordinary_email, is_ordinary_phone
from tenten.rules.field_rules import (
    DecimalNumber,
    EmailAddress,
    FieldRule,
    Guid,
    Integer,
    Language,
    OneOf,
    Required,
    Text,
    Time,
)
from tenten.rules.limits import (
    COUNTS_MAX,
    DECIMAL_INTEGER_DIGITS_MAX,
    GUID_PATTERN,
    is_language,
)
from tenten.schemas.customer_fields import ScalarKind, scalar_fields
from tenten.schemas.messages import EMAIL, PHONE, CustomerType

_ROW: Final = "row"
_PRIMARIES: Final = {"addresses": ("primary_address",), "contacts": ("primary_phone", "primary_email")}
"""The fields that name a member of a list; they are repeated beside each member while the list is checked."""

_NULLABLE_TEXTS: Final = tuple(
    field.name for field in scalar_fields() if field.kind is ScalarKind.TEXT and field.is_nullable
)
_NOT_BLANK: Final = r"[^\s\x1c-\x1f]"
"""A character that is white space neither in Python nor in Rust."""
_DECIMAL_END: Final = Decimal(10**DECIMAL_INTEGER_DIGITS_MAX)


def passes_fast_path(frame: pl.DataFrame) -> pl.Series:
    """One boolean a row of a frame decoded from events or snapshots, for its column `customer`.

    True: `reasons` would be empty, and the customer is canonical. False: call `reasons`; also for a row without a
    customer.
    """
    customers = frame["customer"].struct.unnest().with_row_index(_ROW)
    books, affiliations, addresses, contacts, attributes = pl.collect_all(
        [_members(customers, part) for part in ("address_books", "affiliations", "addresses", "contacts", "attributes")]
    )
    members = (
        (customers, field_rules.CUSTOMER),
        (books, {"address_books": field_rules.NAME}),
        (affiliations, {"affiliations": field_rules.NAME}),
        (addresses, field_rules.ADDRESS),
        (contacts, field_rules.CONTACT),
        (attributes, field_rules.ATTRIBUTE),
    )
    phones = contacts.filter(pl.col("kind") == PHONE)
    emails = contacts.filter(pl.col("kind") == EMAIL)
    failing = pl.collect_all(
        [
            _failing(customers, _customer_passes()),
            _failing(books, _name_passes("address_books")),
            _failing(affiliations, _name_passes("affiliations")),
            _failing(addresses, _address_passes()),
            _failing(contacts, _contact_passes()),
            _failing(attributes, _attribute_passes()),
            _failing(phones, is_ordinary_phone(pl.col("value")), "value"),
            _failing(emails, is_ordinary_email(pl.col("value")), "value"),
        ]
    )
    failing_rows = [
        *(rows[_ROW] for rows in failing[:-2]),
        _rows_of_invalid_value(failing[-2], is_phone),
        _rows_of_invalid_value(failing[-1], is_email),
        *(_rows_of_unfit_text(frame, _longest_texts(rules)) for frame, rules in members),
        _rows_of_unknown_language(customers),
        _rows_without_primary(customers, "primary_address", addresses, "address_id"),
        _rows_without_primary(customers, "primary_phone", phones, "contact_id"),
        _rows_without_primary(customers, "primary_email", emails, "contact_id"),
    ]
    return frame["customer"].is_not_null().scatter(pl.concat(failing_rows), False).alias("passes_fast_path")


def _members(customers: pl.DataFrame, part: str) -> pl.LazyFrame:
    """The members of this list, of all customers, each with the row of its customer."""
    columns = (_ROW, *_PRIMARIES.get(part, ()), part)
    members = customers.lazy().select(columns).filter(pl.col(part).list.len() > 0).explode(part)
    return members if customers[part].dtype == pl.List(pl.String) else members.unnest(part)


def _failing(frame: pl.DataFrame, passes: pl.Expr, *more: str) -> pl.LazyFrame:
    """The rows that do not pass, with more of their columns."""
    return frame.lazy().filter(~passes.fill_null(False)).select(_ROW, *more)


def _rows_of_unfit_text(frame: pl.DataFrame, characters_max: Mapping[str, int]) -> pl.Series:
    """The rows with a text that is too long or contains a NUL. Whole columns are checked first."""
    texts = pl.col(list(characters_max))
    bytes_max = frame.select(texts.str.len_bytes().max().fill_null(0)).row(0, named=True)
    # Joining a column and searching the result costs a third of searching each of its texts.
    joined = frame.select(texts.str.join("")).row(0, named=True)
    unfit = []
    for name, length_max in characters_max.items():
        if bytes_max[name] > length_max:
            unfit.append(pl.col(name).str.len_chars() > length_max)
        if "\x00" in joined[name]:
            unfit.append(pl.col(name).str.contains("\x00", literal=True))
    return frame.filter(pl.any_horizontal(unfit))[_ROW] if unfit else frame[_ROW].clear()


def _longest_texts(rules: Mapping[str, Sequence[FieldRule]]) -> dict[str, int]:
    """The most characters of each text."""
    return {
        name: rule.characters_max
        for name, rules_of_field in rules.items()
        for rule in rules_of_field
        if isinstance(rule, Text)
    }


def _passes(rules: Mapping[str, Sequence[FieldRule]]) -> list[pl.Expr]:
    """The rules for single fields that are cheap as expressions."""
    checks = (_check(rule, pl.col(name)) for name, rules_of_field in rules.items() for rule in rules_of_field)
    return [check for check in checks if check is not None]


def _check(rule: FieldRule, column: pl.Expr) -> pl.Expr | None:  # noqa: PLR0911 a case for each kind of rule
    """True only for values that keep the rule; None for a rule that is checked elsewhere."""
    match rule:
        case Required():
            return column != ""
        case OneOf(values=values):
            return column.is_in(list(values()))
        case EmailAddress():
            return (column == "") | is_ordinary_email(column)
        case Guid():
            return column.str.contains(GUID_PATTERN)
        case DecimalNumber():
            return column.is_between(-_DECIMAL_END, _DECIMAL_END, closed="none").fill_null(True)
        case Text() | Language():
            return None  # a batch at a time: `_rows_of_unfit_text`, `_rows_of_unknown_language`
        case Integer() | Time():
            return None  # decoding has refused others


@cache
def _customer_passes() -> pl.Expr:
    """The checks outside the lists, except those of texts and language."""
    person = pl.col("first_name").str.contains(_NOT_BLANK) | pl.col("last_name").str.contains(_NOT_BLANK)
    organization = pl.col("organization_name").str.contains(_NOT_BLANK)
    is_organization = pl.col("customer_type") == CustomerType.ORGANIZATION.value
    return pl.all_horizontal(
        *_passes(field_rules.CUSTOMER),
        pl.when(is_organization).then(organization).otherwise(person),
        pl.col("receipt_preference").is_not_null(),
        *((pl.col(name) != "").fill_null(True) for name in _NULLABLE_TEXTS),
        *(pl.col(part).list.len() <= count_max for part, count_max in COUNTS_MAX.items()),
    )


def _rows_of_unknown_language(customers: pl.DataFrame) -> pl.Series:
    """Each language of the batch is looked up once: there are few."""
    tags = customers["language"].drop_nulls().unique().to_list()
    unknown = [tag for tag in tags if tag and not is_language(tag)]
    return customers[_ROW].filter(customers["language"].is_in(unknown)) if unknown else customers[_ROW].clear()


def _follows_in_order(key: str) -> pl.Expr:
    """True for the first member of each customer, and for a member whose key is greater than the key before.

    If it is true for all members, they are sorted as `messages.canonical` sorts them, without duplicates.
    """
    return (pl.col(_ROW) != pl.col(_ROW).shift()).fill_null(True) | (pl.col(key) > pl.col(key).shift())


@cache
def _name_passes(part: str) -> pl.Expr:
    return pl.all_horizontal(_follows_in_order(part), *_passes({part: field_rules.NAME}))


@cache
def _attribute_passes() -> pl.Expr:
    return pl.all_horizontal(
        _follows_in_order("name"),
        *_passes(field_rules.ATTRIBUTE),
        pl.sum_horizontal(pl.col("text", "integer", "decimal", "boolean").is_not_null()) == 1,
    )


@cache
def _address_passes() -> pl.Expr:
    return pl.all_horizontal(_follows_in_order("address_id"), *_passes(field_rules.ADDRESS))


@cache
def _contact_passes() -> pl.Expr:
    return pl.all_horizontal(_follows_in_order("contact_id"), *_passes(field_rules.CONTACT))


def _rows_of_invalid_value(contacts: pl.DataFrame, is_valid: Callable[[str], bool]) -> pl.Series:
    """The rows of the contacts whose value the library does not accept either."""
    rows = [row for row, value in contacts.select(_ROW, "value").iter_rows() if not is_valid(value)]
    return pl.Series(_ROW, rows, dtype=contacts.schema[_ROW])


def _rows_without_primary(customers: pl.DataFrame, field: str, members: pl.DataFrame, member_id: str) -> pl.Series:
    """The rows whose primary is not one of the customer's own members."""
    own = members[_ROW].filter(members[member_id] == members[field])
    return customers[_ROW].filter(customers[field].is_not_null().scatter(own, False))
