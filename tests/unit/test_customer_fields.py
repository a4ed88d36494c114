"""The table of a customer's fields and the places that are written by hand agree."""

import inspect
from collections import defaultdict
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from tenten.avro.wire import contract
from tenten.cli.customer import create
from tenten.producers.importing.column_mapping import guess
from tenten.producers.till.customer_input import CustomerFields
from tenten.producers.till.customer_merge import InputContext, merge_input
from tenten.producers.till.text_input import fields_from_texts
from tenten.rules.customer import apply_paths, changed_paths, search_name, value_at
from tenten.rules.customer_rules import reasons
from tenten.schemas.customer_fields import (
    Address,
    Attribute,
    Contact,
    CustomerState,
    InputForm,
    ScalarField,
    ScalarKind,
    plain_texts,
    scalar_fields,
)
from tenten.sql.customer_rows import CHANNEL_TABLES, HEADQUARTERS_TABLES, CustomerTables
from tests.customers import valid_states

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

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


TEXTS = [field for field in scalar_fields() if field.name in plain_texts()]


@pytest.mark.parametrize("field", TEXTS, ids=lambda field: field.name)
def test_text_can_be_entered_imported_changed_and_searched(field: ScalarField) -> None:
    """Every way into a customer and out of it has the field."""
    context = InputContext(country="US", now=AT, new_id=lambda: "")
    empty = CustomerState(legal_entity="usrt")

    entered = merge_input(empty, fields_from_texts({field.name: " Añy "}), context)

    assert getattr(entered, field.name) == "Añy"
    assert changed_paths(empty, entered) == (field.name,)
    assert apply_paths(empty, entered, [field.name]) == entered
    assert value_at(entered, field.name) == "Añy"
    assert merge_input(entered, fields_from_texts({field.name: ""}), context) == empty
    assert [guess(name) for name in field.import_names] == [field.name] * len(field.import_names)
    assert search_name(entered) == ("any" if field.is_searched else "")
    if field.characters_max is not None:
        too_long: dict[str, Any] = {field.name: "x" * (field.characters_max + 1)}
        assert (field.name, "too_long") in {
            (reason.field, reason.code) for reason in reasons(replace(entered, **too_long))
        }


@pytest.mark.parametrize("field", TEXTS, ids=lambda field: field.name)
def test_field_has_its_option(field: ScalarField) -> None:
    """`tenten customer create` has an option for each field that declares one."""
    options = inspect.signature(create).parameters

    assert (field.name in options) == (field.option is not None)


@pytest.mark.parametrize("tables", [HEADQUARTERS_TABLES, CHANNEL_TABLES], ids=["headquarters", "channel"])
def test_databases_have_a_column_for_every_field(tables: CustomerTables) -> None:
    """Nullable where the field is."""
    columns = {column.name: column.nullable for column in tables.customers.columns}

    assert {field.name: field.is_nullable for field in scalar_fields()}.items() <= columns.items()


def test_random_customers_vary_in_every_field() -> None:
    """Property tests are worth nothing for a field that `tests/customers.py` forgets."""
    values: defaultdict[str, set[object]] = defaultdict(set)

    def note(record: Any) -> None:
        for field in fields(record):
            values[f"{type(record).__name__}.{field.name}"].add(getattr(record, field.name))

    @settings(max_examples=50, derandomize=True, database=None, phases=[Phase.generate])
    @given(valid_states())
    def draw(state: CustomerState) -> None:
        note(state)
        for member in (*state.addresses, *state.contacts, *state.attributes):
            note(member)

    draw()

    declared = {
        f"{record.__name__}.{field.name}"
        for record in (CustomerState, Address, Contact, Attribute)
        for field in fields(record)
    }
    assert {name for name in declared if len(values[name]) < 2} == set()
