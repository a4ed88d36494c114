"""The attributes and customer groups that a legal entity defines, and what its customers may have."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from tenten.consumers.headquarters.customers.definitions import are_defined, is_defined
from tenten.rules.definitions import (
    ANYTHING,
    CustomerDefinitions,
    as_defined,
    definition_violations,
    differing,
    with_initial_values,
)
from tenten.schemas.messages import Attribute, AttributeDefinition, CustomerState, attribute_definition, to_avro

TABLES: dict[str, dict[str, Any]] = {
    "size": {"kind": "integer", "label": "Shoe size", "minimum": "30", "maximum": "50"},
    "color": {"kind": "text", "choices": ["blue", "red"], "default": "red"},
    "discount": {"kind": "decimal", "maximum": "0.5"},
    "limit": {"kind": "currency"},
    "vip": {"kind": "boolean", "mandatory": True},
    "later": {"kind": "of a later release"},
}
DEFINITIONS = CustomerDefinitions.of(
    [attribute_definition(name, table) for name, table in TABLES.items()], ["10", "20"]
)
VIP = Attribute(name="vip", boolean=True)


def state(*attributes: Attribute, customer_group: str = "10") -> CustomerState:
    """A customer with these attributes."""
    return CustomerState(legal_entity="usrt", customer_group=customer_group, attributes=attributes)


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        (state(VIP), []),
        (state(VIP, customer_group=""), []),
        (state(VIP, customer_group="30"), [("customer_group", "unknown_choice")]),
        (state(), [("attributes/vip", "required")]),
        (state(VIP, Attribute(name="size", integer=38)), []),
        (state(VIP, Attribute(name="size", integer=29)), [("attributes/size", "out_of_range")]),
        (state(VIP, Attribute(name="size", integer=51)), [("attributes/size", "out_of_range")]),
        (state(VIP, Attribute(name="size", text="38")), [("attributes/size", "wrong_kind")]),
        (state(VIP, Attribute(name="color", text="blue")), []),
        (state(VIP, Attribute(name="color", text="green")), [("attributes/color", "unknown_choice")]),
        (state(VIP, Attribute(name="discount", decimal=Decimal("0.25"))), []),
        (state(VIP, Attribute(name="discount", integer=1)), [("attributes/discount", "out_of_range")]),
        (state(VIP, Attribute(name="limit", integer=500)), []),
        (state(VIP, Attribute(name="limit", boolean=True)), [("attributes/limit", "wrong_kind")]),
        (state(Attribute(name="vip", integer=1)), [("attributes/vip", "wrong_kind")]),
        (state(VIP, Attribute(name="nonsense", text="abc")), [("attributes/nonsense", "unknown_attribute")]),
        (state(VIP, Attribute(name="later", text="anything")), []),
        (state(VIP, Attribute(name="loyalty_card", text="1234")), []),
    ],
)
def test_new_customer_is_checked_in_the_same_way_everywhere(
    customer: CustomerState, expected: list[tuple[str, str]]
) -> None:
    """With reasons, and at headquarters also as a decoded record and in columns."""
    found = [(reason.field, reason.code) for reason in definition_violations(DEFINITIONS, customer, None)]
    record = to_avro(customer)
    frame = pl.DataFrame({"customer": [record]}, schema_overrides={"customer": _STATE})

    assert found == expected
    assert is_defined(record, {"usrt": DEFINITIONS}) == (not expected)
    assert are_defined(frame, {"usrt": DEFINITIONS}).to_list() == [not expected]
    assert is_defined(record, {"demf": DEFINITIONS})
    assert is_defined(record, {})


_STATE = pl.Struct(
    {
        "legal_entity": pl.String,
        "customer_group": pl.String,
        "attributes": pl.List(
            pl.Struct(
                {
                    "name": pl.String,
                    "text": pl.String,
                    "integer": pl.Int64,
                    "decimal": pl.Decimal(38, 6),
                    "boolean": pl.Boolean,
                }
            )
        ),
    }
)


def test_edit_is_checked_where_it_changes_something() -> None:
    """A customer that was right once stays editable, whatever has been defined since."""
    old = state(Attribute(name="nonsense", text="abc"), customer_group="30")
    renamed = state(Attribute(name="nonsense", text="abd"), customer_group="30")

    assert definition_violations(DEFINITIONS, old, {"last_name"}) == ()
    assert definition_violations(DEFINITIONS, old, differing(old, old)) == ()
    assert [reason.field for reason in definition_violations(DEFINITIONS, renamed, differing(old, renamed))] == [
        "attributes/nonsense"
    ]
    removed = definition_violations(DEFINITIONS, state(), differing(state(VIP), state()))
    assert [(reason.field, reason.code) for reason in removed] == [("attributes/vip", "required")]


def test_without_definitions_everything_is_allowed() -> None:
    """As before there were any."""
    assert (
        definition_violations(ANYTHING, state(Attribute(name="nonsense", text="abc"), customer_group="x"), None) == ()
    )


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("size", Attribute(name="size", text="38"), Attribute(name="size", integer=38)),
        ("size", Attribute(name="size", text="large"), Attribute(name="size", text="large")),
        ("discount", Attribute(name="discount", text="0.25"), Attribute(name="discount", decimal=Decimal("0.25"))),
        ("limit", Attribute(name="limit", integer=5), Attribute(name="limit", decimal=Decimal(5))),
        ("vip", Attribute(name="vip", text="Yes"), Attribute(name="vip", boolean=True)),
        ("color", Attribute(name="color", text="red"), Attribute(name="color", text="red")),
        ("other", Attribute(name="other", text="1"), Attribute(name="other", text="1")),
    ],
)
def test_text_becomes_a_value_of_the_defined_kind(name: str, given: Attribute, expected: Attribute) -> None:
    """The command line and imports give texts."""
    assert as_defined(DEFINITIONS.attributes.get(name), given) == expected


def test_new_customer_gets_the_defaults_that_it_does_not_name() -> None:
    """In the order of names."""
    assert with_initial_values(DEFINITIONS, state(VIP)).attributes == (Attribute(name="color", text="red"), VIP)
    blue = state(Attribute(name="color", text="blue"))
    assert with_initial_values(DEFINITIONS, blue) == blue


def test_definitions_of_orders_are_not_those_of_customers() -> None:
    """A later headquarters may define attributes of orders as well."""
    of_orders = AttributeDefinition(name="gift", kind="boolean", entities=("order",), mandatory=True)
    assert CustomerDefinitions.of([of_orders], []).none
