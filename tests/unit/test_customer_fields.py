"""The table of a customer's fields and the places that are written by hand agree."""

from typing import Any

import pytest

from tenten.avro.wire import contract
from tenten.producers.till.customer_input import CustomerFields
from tenten.schemas.customer_fields import CustomerState, InputForm, ScalarField, ScalarKind, scalar_fields

STATE: dict[str, Any] = contract("Customer").json["fields"][-1]["type"]
AVRO_FIELDS = {field["name"]: field for field in STATE["fields"]}


def avro_type(field: ScalarField) -> Any:
    """The Avro type of a scalar field."""
    if field.symbols is not None:
        symbols = list(field.symbols)
        return {"type": "enum", "name": field.symbols.__name__, "symbols": symbols, "default": symbols[0]}
    text = "string" if field.kind is ScalarKind.TEXT else {"type": "string", "logicalType": "uuid"}
    return ["null", text] if field.is_nullable else text


@pytest.mark.parametrize("field", scalar_fields(), ids=lambda field: field.name)
def test_avro_field_has_the_type_of_the_table(field: ScalarField) -> None:
    """Both contracts have each field; one that a later release adds has a default."""
    declared = AVRO_FIELDS[field.name]

    assert declared["type"] == avro_type(field)
    if field.since != "0.1.0":
        assert declared["default"] == (None if field.is_nullable else "")


def test_contracts_have_no_other_fields() -> None:
    """Each Avro field of the state is a field of `CustomerState`."""
    assert AVRO_FIELDS.keys() == set(CustomerState.__dataclass_fields__)


def test_python_api_accepts_every_field() -> None:
    """`CustomerFields` declares each field that can be entered."""
    entered = {field.name for field in scalar_fields() if field.form is not InputForm.NONE}

    assert entered <= CustomerFields.__annotations__.keys()


def test_limits_and_columns_derive_from_the_table() -> None:
    """The expectations are written out once, for the fields of 0.1.0."""
    first = {field.name: field for field in scalar_fields() if field.since == "0.1.0"}

    assert list(first) == [
        "legal_entity",
        "customer_type",
        "title",
        "first_name",
        "middle_name",
        "last_name",
        "organization_name",
        "language",
        "currency",
        "customer_group",
        "receipt_preference",
        "receipt_email",
        "tax_number",
        "primary_address",
        "primary_phone",
        "primary_email",
    ]
    assert {name: field.characters_max for name, field in first.items() if field.characters_max} == {
        "legal_entity": 64,
        "title": 60,
        "first_name": 100,
        "middle_name": 100,
        "last_name": 100,
        "organization_name": 100,
        "language": 35,
        "customer_group": 60,
        "tax_number": 60,
    }
    assert [name for name, field in first.items() if field.is_searched] == [
        "first_name",
        "middle_name",
        "last_name",
        "organization_name",
    ]
    assert {name for name, field in first.items() if field.form is InputForm.NONE} == {"legal_entity"}
