"""Avro as the checker reads and the tests write it: the contracts' files and fastavro, and nothing of the product."""

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

_FILES: Final = Path(__file__).parents[2] / "schemas" / "avro"
_SINGLE_OBJECT: Final = b"\xc3\x01"
_CONFLUENT: Final = b"\x00"

Record = dict[str, Any]


@cache
def schema(name: str) -> Any:
    """The contract of that name, parsed; GUIDs stay text."""
    return parse_schema(_with_text_guids(declaration(name)))


@cache
def single_object_header(name: str) -> bytes:
    """The mark and fingerprint that Avro's single-object encoding puts before a value of this contract."""
    canonical = to_parsing_canonical_form(declaration(name))
    return _SINGLE_OBJECT + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


def declaration(name: str) -> Any:
    """The contract of that name, as its file has it."""
    return json.loads((_FILES / f"{name}.avsc").read_text(encoding="utf-8"))


def _with_text_guids(part: Any) -> Any:
    if isinstance(part, list):
        return [_with_text_guids(member) for member in part]
    if not isinstance(part, dict):
        return part
    if part.get("logicalType") == "uuid":
        return "string"
    return {name: _with_text_guids(value) for name, value in part.items()}


def encode(name: str, record: Record) -> bytes:
    """A value in single-object encoding; fields that are not given get their defaults."""
    out = BytesIO()
    out.write(single_object_header(name))
    fastavro.schemaless_writer(out, schema(name), record)
    return out.getvalue()


def decode(name: str, value: bytes) -> Record:
    """The record in a value of this contract, in either framing, with any schema id.

    Raises: `ValueError` if it is not a value of this contract.
    """
    if value.startswith(single_object_header(name)):
        source = BytesIO(value[len(single_object_header(name)) :])
    elif value.startswith(_CONFLUENT):
        source = BytesIO(value[5:])
    else:
        raise ValueError(f"not a {name}: it starts with {value[:10].hex()}")
    try:
        record = fastavro.schemaless_reader(source, schema(name), None)
    except Exception as error:
        raise ValueError(f"not a {name}: {error}") from error
    if source.read(1):
        raise ValueError(f"not a {name}: bytes after its end")
    assert isinstance(record, dict)
    return record
