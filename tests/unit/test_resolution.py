"""Batches written with another schema are decoded in columns, as fastavro resolves them record by record."""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.avro import batches
from tenten.avro.batches import decode_batch
from tenten.avro.resolution import resolution
from tenten.avro.wire import (
    CONTRACTS,
    RELEASED_CONTRACTS,
    AvroSchema,
    Json,
    WriterSchemas,
    avro_schema,
    contract,
    decode_body,
    encode,
    released_contract,
)
from tests.avro_values import values
from tests.examples import examples

DEFAULT_SYMBOLS = {"EventKind", "TransactionKind"}
"""Enums of which headquarters cannot read the default symbol."""


@cache
def later(name: str) -> AvroSchema:
    """The contract of an invented later release: more fields and symbols everywhere."""
    declaration = copy.deepcopy(contract(name).json)
    _extend(declaration)
    return avro_schema(declaration)


def _extend(schema: Any) -> None:
    if isinstance(schema, list):
        _extend(schema[1])
    elif isinstance(schema, dict) and schema["type"] == "record":
        for field in schema["fields"]:
            _extend(field["type"])
        name = schema["name"]
        mood = {"type": "enum", "name": f"{name}Mood", "symbols": ["CALM", "ANGRY"], "default": "CALM"}
        fields = [{"name": "seen", "type": "long", "default": 0}, {"name": "mood", "type": mood, "default": "CALM"}]
        schema["fields"][1:1] = [{"name": "nickname", "type": ["null", "string"], "default": None}]
        schema["fields"].extend(
            [*fields, {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []}]
        )
    elif isinstance(schema, dict) and schema["type"] == "array":
        _extend(schema["items"])
    elif isinstance(schema, dict) and schema["type"] == "enum" and schema["name"] not in DEFAULT_SYMBOLS:
        schema["symbols"].append("LATER")


def decoded(
    writer: AvroSchema, reader: AvroSchema, records: Sequence[Json], *, reuse: bool = False
) -> list[dict[str, Any]]:
    """The records that a batch gives, decoded in columns."""
    writers = WriterSchemas(by_fingerprint=lambda mark: writer.json if mark == writer.fingerprint else None)
    keys: list[bytes | None] = [str(record[writer.key_field]).encode() for record in records]
    with patch.object(batches, "_decode_one_by_one", side_effect=AssertionError("not in columns")):
        batch = decode_batch(reader, keys, [encode(writer, record) for record in records], writers, 10**6)
    assert batch.unreadable == ()
    assert batch.frame["exact"].to_list() == [reuse] * len(records)
    assert batch.frame.schema == batches.empty_frame(reader).schema
    return batch.frame.drop("row", "exact").to_dicts()


def resolved(writer: AvroSchema, reader: AvroSchema, records: Sequence[Json]) -> list[Json]:
    """The records as fastavro resolves them, one by one."""
    return [decode_body(encode(writer, record, header=b""), writer, reader) for record in records]


@pytest.mark.parametrize("name", RELEASED_CONTRACTS)
@given(st.data())
@examples(10)
def test_batch_of_the_last_release_is_decoded_in_columns(name: str, data: st.DataObject) -> None:
    """Columns and record-by-record resolution give the same records."""
    writer, reader = released_contract(name), contract(name)
    records = data.draw(st.lists(values(writer.json), max_size=4))

    reuse = writer.header == reader.header
    assert decoded(writer, reader, records, reuse=reuse) == resolved(writer, reader, records)


@pytest.mark.parametrize("name", CONTRACTS)
@given(st.data())
@examples(10)
def test_batch_of_this_release_is_decoded_in_columns(name: str, data: st.DataObject) -> None:
    """Without a difference in the schemas the records arrive as written."""
    schema = contract(name)
    records = data.draw(st.lists(values(schema.json), max_size=4))

    assert decoded(schema, schema, records, reuse=True) == resolved(schema, schema, records) == records


@pytest.mark.parametrize("name", CONTRACTS)
@given(st.data())
@examples(10)
def test_batch_of_a_later_release_is_decoded_in_columns(name: str, data: st.DataObject) -> None:
    """Unknown fields are dropped at every level, unknown symbols become the default."""
    writer, reader = later(name), contract(name)
    records = data.draw(st.lists(values(writer.json), max_size=4))

    assert decoded(writer, reader, records) == resolved(writer, reader, records)


@pytest.mark.parametrize("name", CONTRACTS)
@given(st.data())
@examples(10)
def test_later_release_decodes_batches_of_this_one_in_columns(name: str, data: st.DataObject) -> None:
    """Fields that the writer lacks have their defaults at every level."""
    writer, reader = contract(name), later(name)
    records = data.draw(st.lists(values(writer.json), max_size=4))

    assert decoded(writer, reader, records) == resolved(writer, reader, records)


@given(st.data())
@examples(10)
def test_batch_of_several_releases_keeps_its_order(data: st.DataObject) -> None:
    """Records of three schemas, mixed, arrive in the order of the batch."""
    reader = contract("CustomerEvent")
    schemas = (reader, released_contract("CustomerEvent"), later("CustomerEvent"))
    newest = schemas[2]
    writers = WriterSchemas(by_fingerprint=lambda mark: newest.json if mark == newest.fingerprint else None)
    writer_of_row = data.draw(st.lists(st.sampled_from(schemas), max_size=8))
    records = [data.draw(values(writer.json)) for writer in writer_of_row]

    batch = decode_batch(
        reader,
        [record["customer_id"].encode() for record in records],
        [encode(writer, record) for writer, record in zip(writer_of_row, records, strict=True)],
        writers,
        10**6,
    )

    expected = [resolved(writer, reader, [record])[0] for writer, record in zip(writer_of_row, records, strict=True)]
    assert batch.frame["row"].to_list() == list(range(len(records)))
    assert batch.frame.drop("row", "exact").to_dicts() == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.insert(0, fields.pop(1)),
        lambda fields: fields.append({"name": "gaps", "type": {"type": "array", "items": "null"}}),
        lambda fields: fields.append(
            {"name": "holes", "type": {"type": "array", "items": {"type": "record", "name": "Hole", "fields": []}}}
        ),
        lambda fields: fields.append({"name": "more", "type": {"type": "map", "values": "string"}}),
        lambda fields: fields.append({"name": "weight", "type": "double"}),
        lambda fields: fields.append({"name": "choice", "type": ["string", "null"]}),
        lambda fields: fields[6].update(type="int"),
    ],
)
def test_other_differences_are_not_resolved_in_columns(change: Any) -> None:
    """Values of a foreign schema are decoded record by record; no columns are made of types without a size."""
    declaration = copy.deepcopy(contract("CustomerEvent").json)
    change(declaration["fields"])

    assert resolution(avro_schema(declaration), contract("CustomerEvent")) is None
