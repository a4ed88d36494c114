"""Customers for property tests, drawn by hypothesis: valid customers, and odd ones that break some rules.

There are few ids, so that two drawn customers share addresses and contacts.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Final

from hypothesis import strategies as st

from tenten.schemas.messages import (
    EMAIL,
    PHONE,
    Address,
    Attribute,
    Contact,
    CustomerState,
    CustomerType,
    ReceiptPreference,
    canonical,
)

IDS: Final = tuple(f"0192f0c1-7a3e-7{number:03x}-8000-00000000000{number}" for number in range(6))

NAMES: Final = (
    "Ann",
    "Müller",
    "O'Brien-Smith",
    "李小龙",
    "Nguyễn Thị",
    "Ærø",
    "M",
    "x" * 100,
    "Zoë 😀",
    '"quoted" \\ back',
)
PHONES: Final = (
    "+17135550123",
    "+4930901820",
    "+33123456789",
    "+442079460000",
    "+390612345678",
    "+81312345678",
    "+8613812345678",
    "+5491123456789",
    "+5511912345678",
    "+80012345678",
)
EMAILS: Final = (
    "ann@example.com",
    "ann.mueller+shop@mail.example.co.uk",
    "x_1-y@EXAMPLE.org",
    "jürgen@example.com",
    "ann@bücher.example",
)
ODD_TEXTS: Final = ("", " ", "\u2003\x1f", "a\x00b", "\x00", "y" * 101, "é" * 100, "李" * 101, "z" * 1001, "line\nfeed")
ODD_PHONES: Final = (
    "",
    "123",
    "+1",
    "+1713555012",
    "+0123456789",
    "+17135550123 ",
    "(713) 555-0123",
    "+١٧١٣٥٥٥٠١٢٣",
    "+4402079460000",
    "+5411155551234",
    "+15550123",
    "+99912345678",
    "+" + "9" * 19,
    "tel:+17135550123",
    "+17135550123\x00",
)
ODD_EMAILS: Final = (
    "",
    "a@b",
    "a@localhost",
    "a@shop.TEST",
    "a@b.onion",
    "a..b@example.com",
    ".a@example.com",
    "a@-x.com",
    "a@x-.com",
    "a@xn--bcher-kva.example",
    "a@xn--.com",
    "a@ab--cd.com",
    "a@example.com\n",
    "a@1.2.3.4",
    "a@example.c0m",
    "a b@example.com",
    '"a b"@example.com',
    "Ann <ann@example.com>",
    "l" * 65 + "@example.com",
    "a@" + "d" * 64 + ".com",
    "a@" + "d." * 130 + "com",
)
ODD_IDS: Final = ("", "x", IDS[0].upper(), IDS[0].replace("-", ""), IDS[0] + "0", "\x00", "i" * 200)
ODD_CODES: Final = ("us", "XX", "USA", "U", "usd", "DOLLAR", "\x00", "xx-YY", "en_US", "q" * 60)


_TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_TIMES: Final = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 it is added
_DECIMALS: Final = st.integers(-(10**28) + 1, 10**28 - 1).map(lambda unscaled: Decimal(unscaled).scaleb(-6))
_ATTRIBUTE_KINDS: Final = ({"text"}, {"integer"}, {"decimal"}, {"boolean"})


def valid_states() -> st.SearchStrategy[CustomerState]:
    """Customers that break no rule, in canonical form."""
    return _states(odd=False).map(canonical)


def odd_states() -> st.SearchStrategy[CustomerState]:
    """Customers of which some break rules, and some are not in canonical form."""
    return _states(odd=True)


@st.composite
def _states(draw: st.DrawFn, *, odd: bool) -> CustomerState:
    odd_draws = draw(st.sets(st.integers(0, 60), min_size=1, max_size=3)) if odd else set()
    draws = count()

    def text(valid: Sequence[str], odd_values: Sequence[str]) -> str:
        return draw(st.sampled_from(odd_values) | _TEXTS if next(draws) in odd_draws else st.sampled_from(valid))

    def some_of(names: Sequence[str], odd_values: Sequence[str]) -> list[str]:
        unique = next(draws) not in odd_draws
        return [text((name,), odd_values) for name in draw(st.lists(st.sampled_from(names), max_size=4, unique=unique))]

    def one_of(own: Sequence[str]) -> str | None:
        ids = [*own, IDS[0]] if next(draws) in odd_draws else own
        return draw(st.none() | st.sampled_from(ids)) if ids else None

    addresses = tuple(
        Address(
            address_id=address_id,
            purpose=text(("HOME", "BUSINESS", "DELIVERY", "INVOICE", "OTHER", ""), ("home", "CASTLE")),
            name=text(("", *NAMES), ODD_TEXTS),
            street=text(("1 Main Street", "Straße 7\nHinterhaus", ""), ODD_TEXTS),
            city=text(("Houston", "Köln", ""), ODD_TEXTS),
            county=text(("", "Harris"), ODD_TEXTS),
            state=text(("TX", ""), ODD_TEXTS),
            postal_code=text(("77001", "SW1A 1AA", ""), ODD_TEXTS),
            country=text(("US", "DE", "GB"), ("", *ODD_CODES)),
            updated_at=draw(_TIMES),
        )
        for address_id in some_of(IDS, ODD_IDS)
    )
    contacts = tuple(
        Contact(
            contact_id=contact_id,
            kind=text((kind,), ("phone", "Email", "FAX", PHONE, EMAIL)),
            value=text(PHONES, ODD_PHONES) if kind == PHONE else text(EMAILS, ODD_EMAILS),
            marketing_consent=draw(st.booleans()),
            description=text(("", "mobile"), ODD_TEXTS),
        )
        for contact_id in some_of(IDS, ODD_IDS)
        for kind in (draw(st.sampled_from((PHONE, EMAIL))),)
    )
    attributes = tuple(draw(_attributes(name, odd=odd)) for name in some_of(("size", "shoe/size", "Größe"), ODD_TEXTS))
    return CustomerState(
        legal_entity=text(("usrt", "derm"), ODD_TEXTS),
        customer_type=draw(st.sampled_from(CustomerType)),
        title=text(("", "Dr."), ODD_TEXTS),
        first_name=text(NAMES, ODD_TEXTS),
        middle_name=text(("", *NAMES), ODD_TEXTS),
        last_name=text(NAMES, ODD_TEXTS),
        organization_name=text(NAMES, ODD_TEXTS),
        language=text(("", "en-US", "de", "EN-us", "haw"), ODD_CODES),
        currency=text(("", "USD", "EUR"), ODD_CODES),
        customer_group=text(("", "10"), ODD_TEXTS),
        receipt_preference=draw(st.sampled_from(ReceiptPreference)),
        receipt_email=text(("", "ann@example.com"), ODD_EMAILS),
        tax_number=text(("", "DE 123/456"), ODD_TEXTS),
        known_as=text(NAMES, ODD_TEXTS) if draw(st.booleans()) else None,
        primary_address=one_of([address.address_id for address in addresses]),
        primary_phone=one_of([contact.contact_id for contact in contacts if contact.kind == PHONE]),
        primary_email=one_of([contact.contact_id for contact in contacts if contact.kind == EMAIL]),
        address_books=tuple(some_of(("US", "EU/west", "Ærø"), ODD_TEXTS)),
        affiliations=tuple(some_of(("VIP", "staff/family", "Ærø"), ODD_TEXTS)),
        addresses=addresses,
        contacts=contacts,
        attributes=attributes,
    )


@st.composite
def _attributes(draw: st.DrawFn, name: str, *, odd: bool) -> Attribute:
    kinds = draw(st.sampled_from(_ATTRIBUTE_KINDS))
    if odd and draw(st.booleans()):
        kinds = draw(st.sets(st.sampled_from(("text", "integer", "decimal", "boolean"))))
    return Attribute(
        name=name,
        text=draw(st.sampled_from(ODD_TEXTS) if odd else st.sampled_from(NAMES)) if "text" in kinds else None,
        integer=draw(st.integers(-(2**63), 2**63 - 1)) if "integer" in kinds else None,
        decimal=draw(_DECIMALS) if "decimal" in kinds else None,
        boolean=draw(st.booleans()) if "boolean" in kinds else None,
    )
