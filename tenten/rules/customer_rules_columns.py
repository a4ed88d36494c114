"""The rules for a batch at once: which customers are certainly valid and canonical.

`customer_rules.py` has the rules themselves. Nothing here refuses anyone: what is not sure goes to `reasons`, what is
sure has none, and a test that draws valid and odd customers holds the two together.

The lists of all customers are laid out one below the other, and most is judged in one call: each call into polars costs
a tenth of a millisecond, and so does the making of an expression with many codes, hence the caches.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Final

import polars as pl

from tenten.rules.contact_points import is_email, is_ordinary_email, is_ordinary_phone, is_phone
from tenten.rules.limits import (
    ADDRESS_CHARACTERS_MAX,
    ATTRIBUTE_CHARACTERS_MAX,
    CONTACT_CHARACTERS_MAX,
    COUNTS_MAX,
    CUSTOMER_CHARACTERS_MAX,
    DECIMAL_INTEGER_DIGITS_MAX,
    GUID,
    NAME_CHARACTERS_MAX,
    PURPOSES,
    TIME_MAX,
    TIME_MIN,
    countries,
    currencies,
    languages,
    primary_language,
)
from tenten.schemas.messages import EMAIL, PHONE, CustomerType

_ROW: Final = "row"
_PRIMARIES: Final = {"addresses": ("primary_address",), "contacts": ("primary_phone", "primary_email")}
"""The fields that name a member of a list; while it is looked at, they stand beside each member."""

_GUID: Final = f"^{GUID.pattern}$"
_NOT_BLANK: Final = r"[^\s\x1c-\x1f]"
"""What neither Python nor Rust takes for white space."""
_DECIMAL_END: Final = Decimal(10**DECIMAL_INTEGER_DIGITS_MAX)


def surely_valid(frame: pl.DataFrame) -> pl.Series:
    """One boolean a row of a frame decoded from events or snapshots, about its column `customer`.

    True: `reasons` would be empty, and the customer is canonical as it stands. False: ask `reasons`; a row without a
    customer is False as well.
    """
    customers = frame["customer"].struct.unnest().with_row_index(_ROW)
    books, affiliations, addresses, contacts, attributes = pl.collect_all(
        [_members(customers, part) for part in ("address_books", "affiliations", "addresses", "contacts", "attributes")]
    )
    texts = (
        (customers, CUSTOMER_CHARACTERS_MAX),
        (books, {"address_books": NAME_CHARACTERS_MAX}),
        (affiliations, {"affiliations": NAME_CHARACTERS_MAX}),
        (addresses, ADDRESS_CHARACTERS_MAX),
        (contacts, CONTACT_CHARACTERS_MAX),
        (attributes, ATTRIBUTE_CHARACTERS_MAX),
    )
    phones = contacts.filter(pl.col("kind") == PHONE)
    emails = contacts.filter(pl.col("kind") == EMAIL)
    failing = pl.collect_all(
        [
            _failing(customers, _customer_is_sure()),
            _failing(books, _name_is_sure("address_books")),
            _failing(affiliations, _name_is_sure("affiliations")),
            _failing(addresses, _address_is_sure()),
            _failing(contacts, _contact_is_sure()),
            _failing(attributes, _attribute_is_sure()),
            _failing(phones, is_ordinary_phone(pl.col("value")), "value"),
            _failing(emails, is_ordinary_email(pl.col("value")), "value"),
        ]
    )
    unsure = [
        *(rows[_ROW] for rows in failing[:-2]),
        _rows_refused(failing[-2], is_phone),
        _rows_refused(failing[-1], is_email),
        *(_rows_of_unfit_text(members, characters_max) for members, characters_max in texts),
        _rows_of_unknown_language(customers),
        _rows_without_primary(customers, "primary_address", addresses, "address_id"),
        _rows_without_primary(customers, "primary_phone", phones, "contact_id"),
        _rows_without_primary(customers, "primary_email", emails, "contact_id"),
    ]
    return frame["customer"].is_not_null().scatter(pl.concat(unsure), False).alias("sure")


def _members(customers: pl.DataFrame, part: str) -> pl.LazyFrame:
    """The members of a list of all customers, one below the other, with the row of their customer."""
    columns = (_ROW, *_PRIMARIES.get(part, ()), part)
    members = customers.lazy().select(columns).filter(pl.col(part).list.len() > 0).explode(part)
    return members if customers[part].dtype == pl.List(pl.String) else members.unnest(part)


def _failing(frame: pl.DataFrame, is_sure: pl.Expr, *more: str) -> pl.LazyFrame:
    """The rows that are not sure, and more columns of them."""
    return frame.lazy().filter(~is_sure.fill_null(False)).select(_ROW, *more)


def _rows_of_unfit_text(frame: pl.DataFrame, characters_max: Mapping[str, int]) -> pl.Series:
    """The rows with a text too long or with a NUL. A look at whole columns mostly says that there are none."""
    texts = pl.col(list(characters_max))
    bytes_max = frame.select(texts.str.len_bytes().max().fill_null(0)).row(0, named=True)
    # Joining a column and looking through the result costs a third of looking through each of its texts.
    joined = frame.select(texts.str.join("")).row(0, named=True)
    unfit = []
    for name, length_max in characters_max.items():
        if bytes_max[name] > length_max:
            unfit.append(pl.col(name).str.len_chars() > length_max)
        if "\x00" in joined[name]:
            unfit.append(pl.col(name).str.contains("\x00", literal=True))
    return frame.filter(pl.any_horizontal(unfit))[_ROW] if unfit else frame[_ROW].clear()


@cache
def _customer_is_sure() -> pl.Expr:
    """What there is to check without looking into the lists, but for the language."""
    person = pl.col("first_name").str.contains(_NOT_BLANK) | pl.col("last_name").str.contains(_NOT_BLANK)
    organization = pl.col("organization_name").str.contains(_NOT_BLANK)
    is_organization = pl.col("customer_type") == CustomerType.ORGANIZATION.value
    return pl.all_horizontal(
        pl.col("legal_entity") != "",
        pl.when(is_organization).then(organization).otherwise(person),
        pl.col("receipt_preference").is_not_null(),
        (pl.col("receipt_email") == "") | is_ordinary_email(pl.col("receipt_email")),
        pl.col("currency").is_in(["", *currencies()]),
        *(pl.col(part).list.len() <= count_max for part, count_max in COUNTS_MAX.items()),
    )


def _rows_of_unknown_language(customers: pl.DataFrame) -> pl.Series:
    """There are 8,000 languages and few in one batch: each of those is looked up once."""
    tags = customers["language"].drop_nulls().unique().to_list()
    unknown = [tag for tag in tags if tag and primary_language(tag) not in languages()]
    return customers[_ROW].filter(customers["language"].is_in(unknown)) if unknown else customers[_ROW].clear()


def _is_behind_the_last(key: str) -> pl.Expr:
    """True for the first of each customer's members, and for one whose key is greater than the one before.

    Where all are: sorted as `messages.canonical` does it, and none there twice.
    """
    return (pl.col(_ROW) != pl.col(_ROW).shift()).fill_null(True) | (pl.col(key) > pl.col(key).shift())


@cache
def _name_is_sure(part: str) -> pl.Expr:
    return _is_behind_the_last(part) & (pl.col(part) != "")


@cache
def _attribute_is_sure() -> pl.Expr:
    return pl.all_horizontal(
        _is_behind_the_last("name"),
        pl.col("name") != "",
        pl.sum_horizontal(pl.col("text", "integer", "decimal", "boolean").is_not_null()) == 1,
        pl.col("decimal").is_between(-_DECIMAL_END, _DECIMAL_END, closed="none").fill_null(True),
    )


@cache
def _address_is_sure() -> pl.Expr:
    return pl.all_horizontal(
        _is_behind_the_last("address_id"),
        pl.col("address_id").str.contains(_GUID),
        pl.col("purpose").is_in(list(PURPOSES)),
        pl.col("country").is_in(list(countries())),
        pl.col("updated_at").is_between(TIME_MIN, TIME_MAX),
    )


@cache
def _contact_is_sure() -> pl.Expr:
    return pl.all_horizontal(
        _is_behind_the_last("contact_id"),
        pl.col("contact_id").str.contains(_GUID),
        pl.col("kind").is_in([PHONE, EMAIL]),
    )


def _rows_refused(contacts: pl.DataFrame, is_right: Callable[[str], bool]) -> pl.Series:
    """The rows of those whose value the library does not take either."""
    rows = [row for row, value in contacts.select(_ROW, "value").iter_rows() if not is_right(value)]
    return pl.Series(_ROW, rows, dtype=contacts.schema[_ROW])


def _rows_without_primary(customers: pl.DataFrame, field: str, members: pl.DataFrame, member_id: str) -> pl.Series:
    """The rows whose primary is none of the customer's own."""
    own = members[_ROW].filter(members[member_id] == members[field])
    return customers[_ROW].filter(customers[field].is_not_null().scatter(own, False))
