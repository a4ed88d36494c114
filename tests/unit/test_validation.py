"""The rules for a customer, each with its reason, and the columnar check that accepts ordinary customers."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.batches import decode_batch
from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.rules.customer_fast_path import record_passes, state_passes
from tenten.rules.customer_rules import UNKNOWN_PATHS_MAX, all_violations, path_reasons, reasons
from tenten.rules.customer_rules_columns import passes_fast_path
from tenten.schemas.messages import (
    EMAIL,
    PHONE,
    Address,
    Attribute,
    Contact,
    CustomerEvent,
    CustomerState,
    CustomerType,
    EventKind,
    canonical,
    to_avro,
)
from tests.customers import IDS, odd_states, valid_states
from tests.examples import examples

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOME, OFFICE, PHONE_ID, EMAIL_ID = IDS[:4]
ADDRESS = Address(address_id=HOME, purpose="HOME", street="1 Main Street", city="Houston", country="US", updated_at=AT)
PHONE_NUMBER = Contact(contact_id=PHONE_ID, kind=PHONE, value="+17135550123")
EMAIL_ADDRESS = Contact(contact_id=EMAIL_ID, kind=EMAIL, value="ann@example.com")
ANN = CustomerState(
    legal_entity="usrt",
    first_name="Ann",
    last_name="Müller",
    language="en-US",
    currency="USD",
    receipt_email="ann@example.com",
    primary_address=HOME,
    primary_phone=PHONE_ID,
    primary_email=EMAIL_ID,
    address_books=("US",),
    affiliations=("VIP",),
    addresses=(ADDRESS,),
    contacts=(PHONE_NUMBER, EMAIL_ADDRESS),
    attributes=(Attribute(name="size", decimal=Decimal("42.5")),),
)


def changed(**fields: Any) -> CustomerState:
    """Ann with other fields."""
    return replace(ANN, **fields)


def address(**fields: Any) -> CustomerState:
    """Ann with another address."""
    return changed(addresses=(replace(ADDRESS, **fields),), primary_address=None)


def contact(**fields: Any) -> CustomerState:
    """Ann with another phone number, and no other contact."""
    return changed(contacts=(replace(PHONE_NUMBER, **fields),), primary_phone=None, primary_email=None)


def attribute(**fields: Any) -> CustomerState:
    """Ann with another attribute."""
    return changed(attributes=(Attribute(**{"name": "size", **fields}),))


def found(state: CustomerState) -> list[tuple[str, str]]:
    """The reasons, as field and code."""
    return [(reason.field, reason.code) for reason in reasons(state)]


def passing(states: Sequence[CustomerState | None]) -> list[bool]:
    """Whether each customer passes the fast path, sent as an event."""
    schema = contract("CustomerEvent")
    events = [
        CustomerEvent(
            customer_id=f"0192f0c1-0000-7000-8000-{place:012x}",
            event_id=IDS[0],
            channel_id="houston",
            kind=EventKind.EDITED,
            occurred_at=AT,
            customer=state,
        )
        for place, state in enumerate(states)
    ]
    keys = [event.customer_id.encode() for event in events]
    values = [encode(schema, to_avro(event)) for event in events]
    batch = decode_batch(schema, keys, values, WriterSchemas(), 1_000_000)
    assert not batch.unreadable
    passed: list[bool] = passes_fast_path(batch.frame).to_list()
    return passed


@given(valid_states())
def test_valid_customer_has_no_reasons(state: CustomerState) -> None:
    """A customer that breaks no rule has no reasons."""
    assert all_violations(state) == ()


@given(st.lists(odd_states() | valid_states(), max_size=12))
@examples(40)  # of up to 12 customers each
def test_columnar_check_never_accepts_invalid_or_uncanonical_customers(states: list[CustomerState]) -> None:
    """Customers that pass break no rule and are in canonical order."""
    for state, passes in zip(states, passing(states), strict=True):
        if passes:
            assert all_violations(state) == ()
            assert canonical(state) == state


@given(st.lists(valid_states(), min_size=1, max_size=12))
@examples(40)
def test_columnar_check_accepts_every_valid_customer(states: list[CustomerState]) -> None:
    """A valid and canonical customer passes, whatever else is in the batch."""
    assert all(passing(states))


@given(odd_states() | valid_states())
@examples(400)
def test_quick_check_never_accepts_invalid_or_uncanonical_customers(state: CustomerState) -> None:
    """A customer that passes, as a value or as a decoded record, breaks no rule and is in canonical order."""
    passes = state_passes(state)

    assert record_passes(to_avro(state)) == passes
    if passes:
        assert all_violations(state) == ()
        assert canonical(state) == state


@given(valid_states())
def test_quick_check_accepts_every_valid_customer(state: CustomerState) -> None:
    """A valid and canonical customer passes."""
    assert state_passes(state)


@given(odd_states())
def test_reasons_fit_into_a_reply(state: CustomerState) -> None:
    """However odd the customer, the reasons can be encoded, stored and shown, and come out the same again."""
    broken = reasons(state)

    assert broken == reasons(state)
    for reason in broken:
        assert reason.text.endswith(".")
        assert reason.code.isidentifier()
        assert "\x00" not in reason.field
        assert len(reason.field.encode()) < 300


def test_event_without_customer_does_not_pass() -> None:
    """An erasure or a touch carries no customer to check; other events pass."""
    assert passing([ANN, None, ANN]) == [True, False, True]
    assert passing([None]) == [False]
    assert passing([]) == []


def test_person_needs_a_name() -> None:
    """A first name or a last name is enough for a person; white space is none, and an organization's name is none."""
    assert found(changed(first_name="", last_name="Müller")) == []
    assert found(changed(first_name="Ann", last_name="")) == []
    assert found(changed(first_name=" ", last_name="", organization_name="Müller Ltd")) == [("last_name", "required")]


def test_organization_needs_its_name() -> None:
    """An organization has an organization name, whatever its people are called."""
    organization = changed(customer_type=CustomerType.ORGANIZATION)

    assert found(organization) == [("organization_name", "required")]
    assert found(replace(organization, organization_name="Müller Ltd", first_name="", last_name="")) == []


BROKEN: Final = [
    (changed(legal_entity=""), "legal_entity", "required"),
    (changed(title="t" * 61), "title", "too_long"),
    (changed(last_name="n" * 101), "last_name", "too_long"),
    (changed(last_name="M\x00ller"), "last_name", "nul"),
    (changed(language="english"), "language", "unknown_language"),
    (changed(language="en_US"), "language", "unknown_language"),
    (changed(currency="XXQ"), "currency", "unknown_currency"),
    (changed(currency="usd"), "currency", "unknown_currency"),
    (changed(receipt_email="ann"), "receipt_email", "invalid_email"),
    (changed(receipt_email="a" * 250 + "@example.com"), "receipt_email", "too_long"),
    (changed(primary_address=OFFICE), "primary_address", "unknown_reference"),
    (changed(primary_phone=EMAIL_ID), "primary_phone", "unknown_reference"),
    (changed(primary_email=PHONE_ID), "primary_email", "unknown_reference"),
    (changed(address_books=("",)), "address_books/#1", "required"),
    (changed(address_books=("b" * 61,)), "address_books/#1", "too_long"),
    (changed(affiliations=("VIP", "VIP")), "affiliations/VIP", "duplicate"),
    (changed(affiliations=("V\x00P",)), "affiliations/#1", "nul"),
    (changed(affiliations=tuple(f"a{number}" for number in range(51))), "affiliations", "too_many"),
    (address(address_id=HOME.upper()), f"addresses/{HOME.upper()}", "invalid_id"),
    (address(address_id="\x00"), "addresses/#1", "invalid_id"),
    (address(purpose="CASTLE"), f"addresses/{HOME}/purpose", "unknown_purpose"),
    (address(street="s" * 251), f"addresses/{HOME}/street", "too_long"),
    (address(city="c" * 61), f"addresses/{HOME}/city", "too_long"),
    (address(postal_code="7" * 21), f"addresses/{HOME}/postal_code", "too_long"),
    (address(name="\x00"), f"addresses/{HOME}/name", "nul"),
    (address(country=""), f"addresses/{HOME}/country", "required"),
    (address(country="us"), f"addresses/{HOME}/country", "unknown_country"),
    (address(country="USA"), f"addresses/{HOME}/country", "unknown_country"),
    (changed(addresses=(ADDRESS, ADDRESS)), f"addresses/{HOME}", "duplicate"),
    (contact(contact_id="7"), "contacts/7", "invalid_id"),
    (contact(kind="FAX"), f"contacts/{PHONE_ID}/kind", "unknown_kind"),
    (contact(value=""), f"contacts/{PHONE_ID}", "required"),
    (contact(value="(713) 555-0123"), f"contacts/{PHONE_ID}", "invalid_phone"),
    (contact(kind="email", value="+17135550123"), f"contacts/{PHONE_ID}", "invalid_email"),
    (contact(description="d" * 61), f"contacts/{PHONE_ID}/description", "too_long"),
    (changed(contacts=(PHONE_NUMBER, PHONE_NUMBER, EMAIL_ADDRESS)), f"contacts/{PHONE_ID}", "duplicate"),
    (attribute(), "attributes/size", "one_value"),
    (attribute(text="42", integer=42), "attributes/size", "one_value"),
    (attribute(name="", integer=42), "attributes/#1", "required"),
    (attribute(name="a" * 61, integer=42), "attributes/#1", "too_long"),
    (attribute(text="t" * 1001), "attributes/size", "too_long"),
    (attribute(text="\x00"), "attributes/size", "nul"),
    (attribute(decimal=Decimal(10**22)), "attributes/size", "out_of_range"),
]
"""Customers that break one rule, with its field and code."""

NOT_IN_AVRO: Final = [
    (changed(last_name="M\udcfcller"), "last_name", "not_unicode"),
    (address(updated_at=AT.replace(tzinfo=None)), f"addresses/{HOME}/updated_at", "invalid_time"),
    (address(updated_at=datetime.max.replace(tzinfo=UTC)), f"addresses/{HOME}/updated_at", "invalid_time"),
    (attribute(integer=2**63), "attributes/size", "out_of_range"),
    (attribute(decimal=Decimal("0.0000001")), "attributes/size", "too_precise"),
    (attribute(decimal=Decimal("0E+999999")), "attributes/size", "out_of_range"),
    (attribute(decimal=Decimal("NaN")), "attributes/size", "out_of_range"),
    (attribute(decimal=Decimal("-Infinity")), "attributes/size", "out_of_range"),
]
"""The same, but Avro has no such value."""


@pytest.mark.parametrize(("state", "field", "code"), [*BROKEN, *NOT_IN_AVRO])
def test_broken_rule_is_named(state: CustomerState, field: str, code: str) -> None:
    """One broken rule is one reason, with the field and the rule."""
    assert found(state) == [(field, code)]


@pytest.mark.parametrize(
    "state",
    [
        changed(language="", currency="", receipt_email=""),
        changed(language="zh-Hant-TW"),
        changed(last_name="李" * 100),
        contact(kind="phone"),
        address(purpose="", updated_at=AT),
        address(purpose="delivery"),
        address(street="1 Main Street\nSuite 5"),
        attribute(text=""),
        attribute(integer=-(2**63)),
        attribute(boolean=False),
        attribute(decimal=Decimal("-9999999999999999999999.999999")),
        changed(affiliations=("b", "a")),
    ],
)
def test_unusual_but_valid_customer_has_no_reasons(state: CustomerState) -> None:
    """Empty codes, long names, other cases and another order break no rule."""
    assert found(state) == []


def test_every_broken_rule_is_reported() -> None:
    """All broken rules come at once, in the order of the customer's fields, so that they can be corrected together."""
    state = replace(
        address(country="", city="c" * 61), first_name="", last_name="", currency="DOLLAR", primary_phone=OFFICE
    )

    assert found(state) == [
        ("last_name", "required"),
        ("currency", "unknown_currency"),
        ("primary_phone", "unknown_reference"),
        (f"addresses/{HOME}/city", "too_long"),
        (f"addresses/{HOME}/country", "required"),
    ]


def test_reasons_do_not_repeat_values() -> None:
    """Reasons are kept longer than personal data, so they contain none."""
    secret = "sekrit" * 50
    state = changed(
        first_name=secret,
        last_name=secret,
        receipt_email=secret,
        tax_number=secret,
        addresses=(replace(ADDRESS, street=secret, city=secret),),
        contacts=(replace(PHONE_NUMBER, value=secret), replace(EMAIL_ADDRESS, value=secret)),
    )

    assert len(reasons(state)) == 8
    assert "sekrit" not in str(reasons(state))


def test_number_of_reasons_is_bounded() -> None:
    """Of a list that is too long only as many members are checked as it may have."""
    bad = tuple(replace(PHONE_NUMBER, contact_id=f"{number}", value="no number") for number in range(100_000))

    broken = reasons(changed(contacts=bad, primary_phone=None, primary_email=None))

    assert broken[0].field == "contacts"
    assert broken[0].code == "too_many"
    assert len(broken) == 1 + 2 * 100


@pytest.mark.parametrize("state", [state for state, _, _ in BROKEN])
def test_customer_that_breaks_a_rule_does_not_pass(state: CustomerState) -> None:
    """Each rule is checked in columns, too; the neighbours pass."""
    assert passing([ANN, state, ANN]) == [True, False, True]


@pytest.mark.parametrize(
    "state",
    [
        changed(affiliations=("b", "a")),
        changed(contacts=(EMAIL_ADDRESS, PHONE_NUMBER)),
        changed(addresses=(ADDRESS, ADDRESS)),
        contact(kind="phone"),
        address(purpose="home"),
        changed(attributes=(Attribute(name="b", integer=1), Attribute(name="a", integer=1))),
        changed(last_name="M\x00ller"),
        changed(last_name="é" * 101),
        changed(primary_phone=EMAIL_ID),
    ],
)
def test_uncanonical_or_invalid_customer_does_not_pass(state: CustomerState) -> None:
    """A customer that needs individual handling does not pass; the others do."""
    assert passing([ANN, state, ANN]) == [True, False, True]


def test_length_is_counted_in_characters_not_bytes() -> None:
    """Length is counted in characters, also where a text has more bytes than it may have characters."""
    assert passing([changed(last_name="李" * 100), changed(last_name="李" * 101)]) == [True, False]


def test_unusual_contacts_pass_when_the_library_accepts_them() -> None:
    """Values that the regular expressions do not match are checked with the libraries."""
    odd = replace(EMAIL_ADDRESS, value="jürgen@bücher.example")
    argentine = replace(PHONE_NUMBER, value="+5491123456789")

    assert passing([changed(contacts=(argentine, odd)), changed(contacts=(PHONE_NUMBER, odd))]) == [True, True]


def test_unknown_path_is_named() -> None:
    """Each path that is not a field of a customer has a reason; one that cannot be shown is named by its position."""
    paths = ("first_name", "shoe_size", "contacts/x", "a\x00", "", "n" * 61)

    assert [(reason.field, reason.code) for reason in path_reasons(paths)] == [
        ("shoe_size", "unknown_path"),
        ("changed/#4", "unknown_path"),
        ("changed/#5", "unknown_path"),
        ("changed/#6", "unknown_path"),
    ]
    assert path_reasons(("first_name", "attributes/a/b")) == ()
    assert len(path_reasons(("shoe_size",) * 100_000)) == UNKNOWN_PATHS_MAX
