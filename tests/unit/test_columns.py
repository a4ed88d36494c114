"""Batches are encoded from columns byte for byte as fastavro encodes their records."""

import copy
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.columns import encode_columns
from tenten.avro.primitives import default_bytes, zigzag
from tenten.avro.resolution import column_type
from tenten.avro.wire import CONTRACTS, AvroSchema, Json, avro_schema, confluent_header, contract, encode
from tests.avro_values import values


def frame_of(schema: AvroSchema, records: list[Json]) -> pl.DataFrame:
    """The records as columns."""
    types = {field["name"]: column_type(field["type"]) for field in schema.json["fields"]}
    return pl.DataFrame({name: [record[name] for record in records] for name in types}, schema=types)


def schema_of(*fields: Json) -> AvroSchema:
    """A record of these fields."""
    return avro_schema({"type": "record", "name": "Test", "fields": list(fields)})


@pytest.mark.parametrize("name", CONTRACTS)
@given(st.data())
def test_columns_are_encoded_like_records(name: str, data: st.DataObject) -> None:
    """Every contract, with any values, from a frame and from Python values."""
    schema = contract(name)
    records = data.draw(st.lists(values(schema.json), max_size=4))

    expected = [encode(schema, record) for record in records]
    assert encode_columns(schema, frame_of(schema, records)) == expected
    python_columns = {field["name"]: [record[field["name"]] for record in records] for field in schema.json["fields"]}
    assert encode_columns(schema, python_columns) == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 100) | st.integers(2**47, 2**56), max_size=6))
def test_numbers_of_every_size_are_encoded(numbers: list[int]) -> None:
    """Numbers are encoded alike, whichever numbers are in the batch."""
    frame = pl.DataFrame({"number": numbers}, schema={"number": pl.Int64})

    assert encode_columns(schema_of({"name": "number", "type": "long"}), frame, b"") == list(map(zigzag, numbers))


@given(st.integers(-(10**27), 10**27) | st.integers(-70_000, 70_000))
def test_decimals_are_encoded_like_fastavro(unscaled: int) -> None:
    """Every number of bytes, with either sign."""
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 6}
    schema = schema_of({"name": "amount", "type": kind})
    amount = Decimal(unscaled).scaleb(-6)
    frame = pl.DataFrame({"amount": [amount]}, schema={"amount": pl.Decimal(28, 6)})

    assert encode_columns(schema, frame) == [encode(schema, {"amount": amount})]


def test_fields_without_a_column_have_their_default() -> None:
    """A field that a later release adds needs no change where records are encoded."""
    schema = contract("Reply")
    declaration = copy.deepcopy(schema.json)
    mood = {"type": "enum", "name": "Mood", "symbols": ["CALM", "ANGRY"]}
    place = {"type": "record", "name": "Place", "fields": [{"name": "x", "type": "long"}]}
    declaration["fields"] += [
        {"name": "mood", "type": mood, "default": "ANGRY"},
        {"name": "place", "type": place, "default": {"x": -1}},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": ["a", "bc"]},
        {"name": "note", "type": ["string", "null"], "default": "n"},
        {"name": "is_new", "type": "boolean", "default": True},
        {"name": "weight", "type": "int", "default": 70_000},
        {"name": "salt", "type": "bytes", "default": "\u00ff"},
    ]
    later = avro_schema(declaration)
    given_fields: dict[str, Any] = {
        "channel_id": "houston",
        "event_id": "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f",
        "customer_id": "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f",
        "outcome": "SYNCHRONIZED",
        "answered_at": datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    }
    defaults = {
        "reasons": [],
        "account_number": None,
        "version": None,
        "transaction_status": "",
        "sales_order": None,
        "judgement": 0,
        "input_partition": None,
        "input_offset": None,
        "mood": "ANGRY",
        "place": {"x": -1},
        "tags": ["a", "bc"],
        "note": "n",
        "is_new": True,
        "weight": 70_000,
        "salt": b"\xff",
    }

    (value,) = encode_columns(later, pl.DataFrame([given_fields]))

    assert value == encode(later, given_fields | defaults)


def test_fields_inside_records_have_their_default() -> None:
    """Also where a column of records lacks a field."""
    fields: list[Json] = [
        {"name": "a", "type": "string"},
        {"name": "b", "type": ["null", "string"], "default": None},
    ]
    later = {"type": "record", "name": "Inner", "fields": fields}
    schema = schema_of({"name": "one", "type": later}, {"name": "more", "type": {"type": "array", "items": "Inner"}})
    frame = pl.DataFrame({"one": [{"a": "x"}]})

    with pytest.raises(ValueError, match="the field more has neither a column nor a default"):
        encode_columns(schema, frame)
    assert encode_columns(schema_of({"name": "one", "type": later}), frame, b"") == [b"\x02x\x00"]


def test_encoded_fields_and_another_header_are_used() -> None:
    """The caller may give the bytes of a field and the framing."""
    schema = schema_of({"name": "name", "type": "string"}, {"name": "rest", "type": "bytes"})
    frame = pl.DataFrame({"name": ["a", "b"], "ignored": [1, 2]})

    encoded = encode_columns(schema, frame, confluent_header(7), encoded={"rest": [b"\x02x", b"\x02y"]})

    assert encoded == [b"\x00\x00\x00\x00\x07\x02a\x02x", b"\x00\x00\x00\x00\x07\x02b\x02y"]


def test_null_in_a_field_that_is_not_nullable_is_an_error() -> None:
    """No record is shifted by a value that is missing."""
    with pytest.raises(ValueError, match="the field name is null in a row"):
        encode_columns(schema_of({"name": "name", "type": "string"}), {"name": ["a", None]})
    with pytest.raises(ValueError, match="the field name is null in a row"):
        encode_columns(schema_of({"name": "name", "type": "string"}), pl.DataFrame({"name": ["a", None]}))


def test_unknown_symbol_is_an_error() -> None:
    """A symbol that the schema lacks is not written."""
    mood = {"type": "enum", "name": "Mood", "symbols": ["CALM", "ANGRY"]}

    with pytest.raises(pl.exceptions.InvalidOperationError):
        encode_columns(schema_of({"name": "mood", "type": mood}), pl.DataFrame({"mood": ["CALM", "GLAD"]}))


def test_default_of_a_union_is_of_its_first_type() -> None:
    """Source: the Avro specification, Complex Types, Records."""
    assert default_bytes(["null", "string"], None) == b"\x00"
    assert default_bytes(["string", "null"], "a") == b"\x00\x02a"
