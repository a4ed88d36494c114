"""Schemas of other writers: harmless ones are read, those that could make reading endless are refused."""

import json
from typing import Any

import pytest

from tenten.avro.foreign_schemas import SchemaRefused, read_schema
from tenten.avro.wire import RELEASED_CONTRACTS, contracts, released_contract


def record(*types: Any) -> dict[str, Any]:
    """A record with a key, and a field of each of these types."""
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(("string", *types))]
    return {"type": "record", "name": "R", "fields": fields}


def nested(depth: int) -> Any:
    """A list of lists of this depth."""
    schema: Any = "int"
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def chain(levels: int) -> Any:
    """Records within each other of this depth around one byte."""
    schema: Any = "boolean"
    for level in range(levels):
        schema = {"type": "record", "name": f"C{level}", "fields": [{"name": "a", "type": schema}]}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """Records of which each has the one before twice: a small schema with 2^levels fields."""
    fields: list[Any] = [{"type": "record", "name": "N0", "fields": [{"name": "a", "type": "boolean"}]}]
    for level in range(1, levels):
        parts = [{"name": name, "type": f"N{level - 1}"} for name in ("a", "b")]
        fields.append({"type": "record", "name": f"N{level}", "fields": parts})
    return record(*fields)


def test_schemas_of_this_release_and_the_last_one_are_read() -> None:
    """The limits leave room for what releases write."""
    for schema in (*contracts(), *map(released_contract, RELEASED_CONTRACTS)):
        assert read_schema(json.dumps(schema.json)) == schema.json


def test_named_types_may_be_used_again() -> None:
    """A later release may declare a type once and use it twice, also by its full name."""
    declared = {"type": "enum", "name": "E", "namespace": "tenten", "symbols": ["A"]}
    assert read_schema(json.dumps(record(declared, "tenten.E", {"type": "map", "values": "tenten.E"})))


@pytest.mark.parametrize(
    "schema",
    [
        record({"type": "array", "items": "null"}),
        record({"type": "array", "items": {"type": "record", "name": "Empty", "fields": []}}),
        record({"type": "array", "items": {"type": "record", "name": "N", "fields": [{"name": "a", "type": "null"}]}}),
        record({"type": "map", "values": "null"}),
        record({"type": "fixed", "name": "F", "size": 0}),
        record({"type": "fixed", "name": "F", "size": 2**40}),
        record(["null", {"type": "array", "items": "R"}]),
        record(["null", "R"]),
        record("Unknown"),
        record("null"),
        record({"type": "array", "items": chain(10)}),
        record([]),
        record({"type": {"type": "string"}}),
        record({"type": ["null", "string"]}),
        record({"type": "bytes", "logicalType": ["decimal"]}),
        record({"type": "bytes", "logicalType": "decimal", "precision": 10**9, "scale": 6}),
        record({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": -1}),
        record({"type": "enum", "name": "E", "symbols": []}),
        record(nested(40)),
        doubling(30),
        record(*["string"] * 10_001),
        {"type": "record", "name": "R", "fields": []},
        {"type": "record", "fields": [{"name": "a", "type": "string"}]},
        {"type": "array", "items": "string"},
        ["null"],
        7,
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_schema_that_could_make_reading_endless_is_refused(schema: Any) -> None:
    """Members of no bytes, recursion, depth, and everything that is not a schema."""
    with pytest.raises(SchemaRefused):
        read_schema(json.dumps(schema))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 200_000, b" " * 300_000, b'{"type":' * 100_000])
def test_text_that_is_no_schema_is_refused(text: bytes) -> None:
    """Also one so deep that a parser gives up, or one that is too large."""
    with pytest.raises(SchemaRefused):
        read_schema(text)
