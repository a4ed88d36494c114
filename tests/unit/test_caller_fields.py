"""The fields of reasons as the caller named them."""

from datetime import UTC, datetime

import pytest

from tenten.producers.till.caller_fields import caller_field, customer_reasons, transaction_reasons
from tenten.schemas.messages import Address, Contact, CustomerState, Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EMAIL_ID, PHONE_ID, OFFICE_ID = (f"0197a3f2-8a41-7c3e-9d55-00000000000{number}" for number in (1, 2, 3))
HOME_ID, WORK_ID = (f"0197a3f2-8a41-7c3e-9d55-00000000001{number}" for number in (1, 2))
GONE_ID = "0197a3f2-8a41-7c3e-9d55-0000000000ff"

ADA = CustomerState(
    legal_entity="usrt",
    addresses=(
        Address(address_id=HOME_ID, country="US", updated_at=NOW),
        Address(address_id=WORK_ID, country="US", updated_at=NOW),
    ),
    contacts=(
        Contact(contact_id=EMAIL_ID, kind="EMAIL", value="ada@example.com"),
        Contact(contact_id=PHONE_ID, kind="PHONE", value="+17135550123"),
        Contact(contact_id=OFFICE_ID, kind="PHONE", value="+17135550124"),
    ),
    primary_address=WORK_ID,
    primary_email=EMAIL_ID,
    primary_phone=PHONE_ID,
)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("last_name", "last_name"),
        ("primary_email", "primary_email"),
        ("attributes/size", "attributes/size"),
        ("attributes/contacts/x", "attributes/contacts/x"),
        ("affiliations/gold/silver", "affiliations/gold/silver"),
        ("addresses", "addresses"),
        (f"contacts/{EMAIL_ID}", "email"),
        (f"contacts/{PHONE_ID}", "phone"),
        (f"contacts/{OFFICE_ID}", "contacts[2].value"),
        (f"contacts/{OFFICE_ID}/kind", "contacts[2].kind"),
        (f"contacts/{EMAIL_ID}/description", "contacts[0].description"),
        (f"addresses/{WORK_ID}", "address"),
        (f"addresses/{WORK_ID}/postal_code", "address.postal_code"),
        (f"addresses/{HOME_ID}", "addresses[0]"),
        (f"addresses/{HOME_ID}/city", "addresses[0].city"),
        ("contacts/#3", "contacts[2].value"),
        ("addresses/#1/city", "addresses[0].city"),
        ("addresses/#2/city", "address.city"),
        ("addresses/#9/city", "addresses.city"),
        (f"addresses/{GONE_ID}/city", "addresses.city"),
        (f"contacts/{GONE_ID}", "contacts.value"),
    ],
)
def test_paths_of_a_customer_become_the_callers_fields(path: str, field: str) -> None:
    """Primary ones by their own name, others by position; never a GUID."""
    assert caller_field(path, ADA) == field


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("lines", "lines"),
        ("lines/1/quantity", "lines[0].quantity"),
        ("lines/4/quantity", "lines[3].quantity"),
        ("charges/2/code", "charges[1].code"),
        ("taxes/1/amount", "taxes[0].amount"),
        ("payments/1/method", "payments[0].method"),
        ("control_totals/1/currency", "control_totals[0].currency"),
        ("delivery_address", "delivery_address"),
        ("delivery_address/city", "delivery_address.city"),
        ("total", "total"),
        ("", ""),
    ],
)
def test_paths_of_a_transaction_become_the_callers_fields(path: str, field: str) -> None:
    """Members of lists by position, counted from 0."""
    [reason] = transaction_reasons([Reason(field=path, code="required", text="This field is required.")])
    assert reason == Reason(field=field, code="required", text="This field is required.")


@pytest.mark.parametrize("code", ["invalid_id", "duplicate"])
def test_reasons_about_ids_name_the_id(code: str) -> None:
    """Not the e-mail address or the address that has the id."""
    paths = (f"contacts/{EMAIL_ID}", f"addresses/{WORK_ID}", f"addresses/{WORK_ID}/city")
    reasons = customer_reasons([Reason(field=path, code=code, text="") for path in paths], ADA)
    assert [reason.field for reason in reasons] == ["contacts[0].contact_id", "addresses[1].address_id", "address.city"]
