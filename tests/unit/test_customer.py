"""Folding edits into a customer: paths, merging, and the values the audit shows."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.rules.customer import (
    SEARCHED_NAMES,
    apply_paths,
    changed_paths,
    display_name,
    fold_for_search,
    is_path,
    plain_decimal,
    search_name,
    value_at,
)
from tenten.rules.search_name_columns import search_names
from tenten.schemas.messages import EMAIL, PHONE, Address, Attribute, Contact, CustomerState, CustomerType, canonical
from tests.customers import IDS, odd_states, valid_states

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOME, OFFICE, PHONE_ID, EMAIL_ID = IDS[:4]
ANN = CustomerState(
    legal_entity="usrt",
    first_name="Ann",
    last_name="Müller",
    primary_address=HOME,
    primary_email=EMAIL_ID,
    address_books=("US",),
    affiliations=("VIP",),
    addresses=(Address(address_id=HOME, purpose="HOME", city="Houston", country="US", updated_at=AT),),
    contacts=(Contact(contact_id=EMAIL_ID, kind=EMAIL, value="ann@example.com"),),
    attributes=(Attribute(name="size", integer=42),),
)
PHONE_NUMBER = Contact(contact_id=PHONE_ID, kind=PHONE, value="+17135550123")


@given(valid_states(), valid_states())
def test_changed_paths_turn_one_state_into_another(before: CustomerState, after: CustomerState) -> None:
    """For any two states of a customer, applying the changed paths to the first gives the second."""
    after = replace(after, legal_entity=before.legal_entity)

    merged = apply_paths(before, after, changed_paths(before, after))

    assert merged == after
    assert changed_paths(merged, after) == ()


@given(valid_states())
def test_paths_of_a_new_customer_are_complete(state: CustomerState) -> None:
    """The paths of a new customer, applied to an empty one, give the whole customer."""
    assert apply_paths(CustomerState(legal_entity=state.legal_entity), state, changed_paths(None, state)) == state


@given(valid_states(), valid_states(), st.data())
def test_applying_paths_is_idempotent(base: CustomerState, edited: CustomerState, data: st.DataObject) -> None:
    """Applying any of an edit's paths a second time changes nothing."""
    paths = data.draw(st.lists(st.sampled_from(changed_paths(base, edited) or ("title",))))

    once = apply_paths(base, edited, paths)

    assert apply_paths(once, edited, paths) == once


@given(valid_states())
def test_changed_paths_are_known(state: CustomerState) -> None:
    """Every path of a new customer is valid."""
    assert all(map(is_path, changed_paths(None, state)))


def test_edits_of_different_fields_both_stay() -> None:
    """Changes of different fields by two stores are both kept."""
    renamed = replace(ANN, last_name="Smith")
    with_phone = replace(ANN, contacts=(PHONE_NUMBER, *ANN.contacts), primary_phone=PHONE_ID)

    merged = apply_paths(
        apply_paths(ANN, renamed, ["last_name"]), with_phone, [f"contacts/{PHONE_ID}", "primary_phone"]
    )

    assert merged == replace(ANN, last_name="Smith", contacts=canonical(with_phone).contacts, primary_phone=PHONE_ID)


def test_only_the_given_paths_are_applied() -> None:
    """Fields that differ in the edited customer but are not among the paths stay unchanged."""
    edited = replace(ANN, first_name="Anna", last_name="Smith", affiliations=("staff",))

    assert apply_paths(ANN, edited, ["first_name"]) == replace(ANN, first_name="Anna")


def test_absent_member_is_removed() -> None:
    """A path to a contact, affiliation or attribute that the edited customer lacks removes it."""
    edited = replace(ANN, contacts=(), affiliations=(), attributes=())

    merged = apply_paths(ANN, edited, [f"contacts/{EMAIL_ID}", "affiliations/VIP", "attributes/size"])

    assert (merged.contacts, merged.affiliations, merged.attributes) == ((), (), ())
    assert merged.addresses == ANN.addresses


def test_removed_primary_becomes_none() -> None:
    """Removing the primary address also clears `primary_address`, without a path for it."""
    merged = apply_paths(ANN, replace(ANN, addresses=()), [f"addresses/{HOME}"])

    assert merged.primary_address is None
    assert merged.primary_email == EMAIL_ID


def test_primary_without_its_contact_becomes_none() -> None:
    """A primary whose contact is not among the paths is cleared."""
    edited = replace(ANN, contacts=(PHONE_NUMBER, *ANN.contacts), primary_phone=PHONE_ID)

    assert apply_paths(ANN, edited, ["primary_phone"]).primary_phone is None


def test_names_may_contain_slashes() -> None:
    """A path is split at its first slash only."""
    edited = replace(ANN, affiliations=("VIP", "staff/family"))

    assert changed_paths(ANN, edited) == ("affiliations/staff/family",)
    assert apply_paths(ANN, edited, ["affiliations/staff/family"]) == canonical(edited)


def test_legal_entity_never_changes() -> None:
    """Neither a path nor an edit with another legal entity changes a customer's legal entity."""
    edited = replace(ANN, legal_entity="derm", title="Dr.")

    assert apply_paths(ANN, edited, ["legal_entity", "title"]) == replace(ANN, title="Dr.")
    assert changed_paths(ANN, edited) == ("title",)


def test_each_address_book_has_a_path() -> None:
    """What two stores add is merged; the whole list, as release 0.1.0 sent it, replaces the list."""
    edited = replace(ANN, address_books=("EU", "CH"))
    elsewhere = replace(ANN, address_books=("JP", "US"))

    assert changed_paths(ANN, edited) == ("address_books/CH", "address_books/EU", "address_books/US")
    assert apply_paths(elsewhere, edited, changed_paths(ANN, edited)).address_books == ("CH", "EU", "JP")
    assert apply_paths(elsewhere, edited, ["address_books", "address_books/US"]).address_books == ("CH", "EU")


def test_result_is_canonical() -> None:
    """Lists come out sorted, purposes and kinds in capitals."""
    edited = replace(
        ANN,
        addresses=(*ANN.addresses, Address(address_id=OFFICE, purpose="business", country="US", updated_at=AT)),
        contacts=(Contact(contact_id=PHONE_ID, kind="phone", value="+17135550123"),),
    )

    merged = apply_paths(ANN, edited, [f"addresses/{OFFICE}", f"contacts/{PHONE_ID}"])

    assert [address.purpose for address in merged.addresses] == ["HOME", "BUSINESS"]
    assert [(contact.contact_id, contact.kind) for contact in merged.contacts] == [(PHONE_ID, PHONE), (EMAIL_ID, EMAIL)]


def test_unknown_paths_are_invalid_and_change_nothing() -> None:
    """Paths to unknown fields or malformed names are invalid, and ignored when applied."""
    bad = (
        "shoe_size",
        "first_name/x",
        "affiliations",
        "affiliations/",
        "attributes/a\x00",
        "attributes/" + "a" * 100,
        "",
    )

    assert not any(map(is_path, bad))
    assert all(map(is_path, ("first_name", "legal_entity", "contacts/x", "attributes/a/b")))
    assert apply_paths(ANN, replace(ANN, first_name="Anna", attributes=()), bad) == ANN


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("last_name", "Müller"),
        ("customer_type", "PERSON"),
        ("primary_phone", None),
        ("address_books", ["US"]),
        ("affiliations/VIP", "VIP"),
        ("affiliations/staff", None),
        ("attributes/size", {"integer": 42}),
        (
            f"contacts/{EMAIL_ID}",
            {"kind": "EMAIL", "value": "ann@example.com", "marketing_consent": False, "description": ""},
        ),
        (f"contacts/{PHONE_ID}", None),
        (
            f"addresses/{HOME}",
            {
                "purpose": "HOME",
                "name": "",
                "street": "",
                "city": "Houston",
                "county": "",
                "state": "",
                "postal_code": "",
                "country": "US",
                "updated_at": "2026-03-01T12:00:00+00:00",
            },
        ),
        ("nothing/at all", None),
    ],
)
def test_value_at_a_path(path: str, value: object) -> None:
    """The value at a path for the audit, as JSON; None if it is absent."""
    assert value_at(ANN, path) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1.500000", "1.5"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("-0.000", "0"),
        ("-12.30", "-12.3"),
        ("0.000001", "0.000001"),
    ],
)
def test_decimal_is_plain(value: str, text: str) -> None:
    """A decimal is written without exponent and trailing zeros, and never as minus zero."""
    assert plain_decimal(Decimal(value)) == text


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (ANN, "Ann Müller"),
        (replace(ANN, middle_name="B."), "Ann B. Müller"),
        (replace(ANN, customer_type=CustomerType.ORGANIZATION, organization_name="Müller Ltd"), "Müller Ltd"),
        (replace(ANN, first_name="", last_name="", organization_name="Müller Ltd"), "Müller Ltd"),
    ],
)
def test_display_name(state: CustomerState, name: str) -> None:
    """The display name of a person is first, middle and last name, that of an organization its name."""
    assert display_name(state) == name


def test_search_name_has_every_name() -> None:
    """A clerk finds a customer by any of the customer's names."""
    assert search_name(replace(ANN, organization_name="Müller Ltd")) == "ann muller muller ltd"


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("Gonçalves", "goncalves"),
        ("Köhler", "kohler"),
        ("KO\u0308HLER", "kohler"),
        ("Weiß", "weiss"),
        ("STRAẞE", "strasse"),
        ("Søgård", "sogard"),
        ("Łukasz Đorđević", "lukasz dordevic"),
        ("Æthelþryð Œuvre", "aethelthryd oeuvre"),
        ("İstanbul I\u011fd\u0131r", "istanbul igdir"),
        ("\uff26ull \ufb01ne", "full fine"),
        ("Ἀθηνᾶ Σοφός", "αθηνα σοφοσ"),
        ("李小龙", "李小龙"),
        ("O'Brien-Smith", "o'brien-smith"),
    ],
)
def test_search_ignores_case_and_accents(name: str, folded: str) -> None:
    """A clerk finds a customer without typing accents, ligatures or letters of another keyboard."""
    assert fold_for_search(name) == folded


@given(st.text())
def test_folding_is_idempotent(text: str) -> None:
    """Folding a folded search name changes nothing."""
    assert fold_for_search(fold_for_search(text)) == fold_for_search(text)


@given(st.lists(valid_states() | odd_states(), max_size=8))
def test_search_names_are_equal_in_columns(states: list[CustomerState]) -> None:
    """The search names computed in columns equal those computed per customer."""
    columns = {name: [getattr(state, name) for state in states] for name in SEARCHED_NAMES}
    frame = pl.DataFrame(columns, schema=dict.fromkeys(SEARCHED_NAMES, pl.String))

    assert search_names(frame).to_list() == list(map(search_name, states))


@given(st.lists(st.fixed_dictionaries({name: st.text() for name in SEARCHED_NAMES}), max_size=8))
def test_search_names_of_any_text_are_equal_in_columns(names: list[dict[str, Any]]) -> None:
    """Both computations are equal for text in any script."""
    frame = pl.DataFrame(names, schema=dict.fromkeys(SEARCHED_NAMES, pl.String))
    states = [CustomerState(legal_entity="usrt", **row) for row in names]

    assert search_names(frame).to_list() == list(map(search_name, states))
