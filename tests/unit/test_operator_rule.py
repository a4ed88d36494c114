"""The rule for the operator of an event: in a till, at headquarters, and on columns."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.batches import decode_batch
from tenten.avro.wire import WriterSchemas, avro_schema, contract, encode
from tenten.consumers.headquarters.customers.envelope import envelope_errors
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.rules import operator_rule, operator_rule_columns
from tests.unit.test_contracts import AVRO, declaration, zero
from tests.unit.test_outputs import GUID, event

OPERATORS = st.none() | st.sampled_from(["", "Ann", "x" * 64, "x" * 65, "é" * 64, "李" * 65, "a\x00b"]) | st.text()


@pytest.mark.parametrize(
    ("operator", "codes"),
    [
        (None, []),
        ("Ann", []),
        ("李" * 64, []),
        ("x" * 65, ["too_long"]),
        ("a\x00", ["nul"]),
        ("a\udcfc", ["not_unicode"]),
        ("\x00" * 65, ["too_long", "nul"]),
    ],
)
def test_every_violation_is_named(operator: str | None, codes: list[str]) -> None:
    """At most 64 characters, and text that databases can store."""
    found = list(operator_rule.operator_violations(operator))

    assert [(reason.field, reason.code) for reason in found] == [("operator", code) for code in codes]
    assert operator_rule.storable_operator(operator) == (None if codes else operator)


@pytest.mark.parametrize("name", ["CustomerEvent", "RetailTransaction"])
def test_records_of_the_last_release_have_no_operator(name: str) -> None:
    """Null, decoded in columns or one by one."""
    released = avro_schema(declaration(AVRO / "released" / f"{name}.avsc"))
    record = zero(released.json)
    record |= {field: GUID for field in ("customer_id", "event_id", "transaction_id") if field in record}
    value = encode(released, record)

    columns = decode_batch(contract(name), [record[released.key_field].encode()], [value], WriterSchemas(), len(value))

    assert columns.frame["operator"].to_list() == [None]
    assert WriterSchemas().decode(value, contract(name))["operator"] is None


@given(st.lists(OPERATORS, max_size=8))
def test_columns_agree_with_the_rule(operators: list[str | None]) -> None:
    """Valid and storable on columns is valid and storable by the rule."""
    frame = pl.DataFrame({"operator": operators}, schema={"operator": pl.String})

    valid = frame.select(operator_rule_columns.operator_is_valid()).to_series().to_list()
    storable = frame.select(operator_rule_columns.storable_operator()).to_series().to_list()

    assert valid == [not any(operator_rule.operator_violations(operator)) for operator in operators]
    assert storable == [operator_rule.storable_operator(operator) for operator in operators]


def test_headquarters_rejects_an_event_for_its_operator() -> None:
    """The reason is one of the envelope's."""
    channels = KnownChannels(legal_entity_by_channel={"houston": "usrt"}, legal_entities=frozenset({"usrt"}))

    assert envelope_errors(event((), operator="Ann"), channels) == ()
    assert [reason.code for reason in envelope_errors(event((), operator="x" * 65), channels)] == ["too_long"]
