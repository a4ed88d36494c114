"""Phone numbers and e-mail addresses, as single values and in columns."""

import phonenumbers
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenten.rules.contact_points import is_email, is_phone, normal_email, normal_phone
from tenten.rules.contact_points_columns import is_ordinary_email, is_ordinary_phone
from tests.customers import EMAILS, ODD_EMAILS, ODD_PHONES, PHONES
from tests.examples import examples

VALUE = pl.col("value")


def chosen(values: list[str], is_ordinary: pl.Expr) -> list[str]:
    """The values that the expression accepts."""
    return pl.DataFrame({"value": values}, schema={"value": pl.String}).filter(is_ordinary)["value"].to_list()


@pytest.mark.parametrize("value", PHONES)
def test_phone_numbers_of_many_countries_are_accepted(value: str) -> None:
    """Numbers in E.164 form are accepted, free-phone numbers included."""
    assert is_phone(value)


@pytest.mark.parametrize(
    "value",
    ["", "123", "+1", "+1713555012", "+0123456789", "+17135550123 ", "(713) 555-0123", "+١٧١٣٥٥٥٠١٢٣", "+99912345678"],
)
def test_invalid_phone_numbers_are_rejected(value: str) -> None:
    """Too short or too long, unknown country codes, spaces, punctuation and other digits than ASCII are rejected."""
    assert not is_phone(value)


def test_number_of_an_unallotted_range_is_accepted() -> None:
    """A number of a possible length is accepted although its range is not allotted: new ranges open every month."""
    value = "+10005550123"

    assert not phonenumbers.is_valid_number(phonenumbers.parse(value, None))
    assert is_phone(value)


@given(st.sampled_from(sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)), st.data())
@examples(300)
def test_fast_path_accepts_only_valid_numbers_of_every_country(code: int, data: st.DataObject) -> None:
    """Numbers of any country that the expression accepts, with trunk prefixes or without, pass the full rule."""
    trunk = data.draw(st.sampled_from(["", "0", "00", "1", "8", "06", "15", "01115", "0115", "000"]))
    digits = st.text("0123456789", min_size=1, max_size=17)
    values = [f"+{code}{trunk}{rest}" for rest in data.draw(st.lists(digits, min_size=1, max_size=20))]

    for value in chosen(values, is_ordinary_phone(VALUE)):
        assert is_phone(value), value


@given(st.lists(st.sampled_from(ODD_PHONES) | st.from_regex(r"\+?[0-9]{1,20}\n?") | st.text(max_size=20)))
def test_fast_path_accepts_only_valid_numbers(values: list[str]) -> None:
    """Any text that the expression accepts passes the full rule."""
    assert all(map(is_phone, chosen(values, is_ordinary_phone(VALUE))))


def test_fast_path_accepts_common_numbers() -> None:
    """The expression accepts common numbers, which then need no full check."""
    values = [
        "+17135550123",
        "+4930901820",
        "+4915112345678",
        "+33123456789",
        "+442079460000",
        "+390612345678",
        "+8613812345678",
    ]

    assert chosen(values, is_ordinary_phone(VALUE)) == values


@pytest.mark.parametrize("value", EMAILS)
def test_valid_addresses_are_accepted(value: str) -> None:
    """Ordinary addresses, internationalised addresses and those at example domains are accepted."""
    assert is_email(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ann",
        "a@b",
        "a@localhost",
        "a@shop.TEST",
        "a..b@example.com",
        "a@-x.com",
        "a@xn--.com",
        "a@example.com\n",
        "a b@example.com",
        "Ann <ann@example.com>",
        "l" * 250 + "@example.com",
        "\udcff@example.com",
    ],
)
def test_invalid_addresses_are_rejected(value: str) -> None:
    """Missing and special-use domains, malformed labels and display names are rejected."""
    assert not is_email(value)


_LABELS = st.sampled_from(
    ["a", "shop-2", "-a", "a-", "a--b", "xn--bcher-kva", "xn--a", "test", "local", "d" * 63, "d" * 64, "ß", ""]
)
_LOCALS = st.sampled_from(
    ["a", "A.b", "a+b", "_", "-", "a.", ".a", "a..b", "l" * 64, "l" * 65, "ü", '"a"', "a'b", "a\x00"]
)


@given(
    st.lists(
        st.builds(
            lambda local, labels: f"{local}@{'.'.join(labels)}", _LOCALS, st.lists(_LABELS | st.just("com"), max_size=4)
        )
        | st.sampled_from(ODD_EMAILS)
        | st.emails()
        | st.text(max_size=20)
    )
)
@example(["a@b.invalid", "a@b.INVALID", "a@arpa", "a@b.c.onion", "a@b.localhost", "a@test.com"])
def test_fast_path_accepts_only_valid_addresses(values: list[str]) -> None:
    """Any address that the expression accepts passes the full rule."""
    for value in chosen(values, is_ordinary_email(VALUE)):
        assert is_email(value), value


def test_fast_path_accepts_common_addresses() -> None:
    """The expression accepts common addresses, which then need no full check."""
    values = ["ann@example.com", "ann.mueller+shop@mail.example.co.uk", "x_1-y@EXAMPLE.org", "a@test.com", "1@2.info"]

    assert chosen(values, is_ordinary_email(VALUE)) == values


@pytest.mark.parametrize(
    ("text", "country", "number"),
    [
        ("(713) 555-0123", "US", "+17135550123"),
        (" 713.555.0123 ", "us", "+17135550123"),
        ("+49 (0)30 901820", "US", "+4930901820"),
        ("030 901820", "DE", "+4930901820"),
        ("06 12345678", "IT", "+390612345678"),
        ("+17135550123", "", "+17135550123"),
        ("030 901820", "", None),
        ("555-0123", "US", None),
        ("(713) 555-0123 ext. 7", "US", None),
        ("call me", "US", None),
        ("", "US", None),
        ("030 901820", "XX", None),
    ],
)
def test_phone_input_is_normalised(text: str, country: str, number: str | None) -> None:
    """A national number becomes E.164 by its country; a number that cannot be dialled from abroad is rejected."""
    assert normal_phone(text, country) == number


@given(st.text("+0123456789() -.", max_size=20), st.sampled_from(["US", "DE", "IT", "AR", "BR", "JP", ""]))
def test_normalised_phone_number_is_valid(text: str, country: str) -> None:
    """Every number that `normal_phone` returns passes the rule."""
    number = normal_phone(text, country)

    if number is not None:
        assert is_phone(number)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" Ann.Mueller@Example.COM ", "Ann.Mueller@example.com"),
        ("jürgen@bücher.example", "jürgen@bücher.example"),
        ("ann@xn--bcher-kva.example", "ann@bücher.example"),
        ("ann at example.com", None),
        ("", None),
    ],
)
def test_email_input_is_normalised(text: str, address: str | None) -> None:
    """The domain becomes lower case and Unicode; an invalid address is rejected."""
    assert normal_email(text) == address
