"""Encoded records as one Avro container block, which polars reads into columns at once.

polars' Avro reader accepts enums at the top level only, so it is given them as integers. Nothing in a block marks where
a record ends: a sentinel after the last record proves where that one ended.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import polars as pl

from tenten.avro.primitives import text_bytes, zero_bytes, zigzag
from tenten.avro.wire import AvroSchema

_SYNC: Final = b"tenten-sync-mark"
_SENTINEL: Final = "sentinel after the last record"


def read_block(writer: AvroSchema, bodies: Sequence[bytes]) -> pl.DataFrame | None:
    """The records in the writer's columns, enums as their numbers; None if one of them cannot be read.

    A frame that is returned may still be shifted by a damaged record: compare the keys.
    """
    try:
        frame = pl.read_avro(BytesIO(_container(writer, bodies)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None
    if frame.height != len(bodies) + 1 or frame.item(-1, writer.key_field) != _SENTINEL:
        return None
    return frame.head(-1)


def _container(writer: AvroSchema, bodies: Sequence[bytes]) -> bytes:
    """An Avro object container file of one block: the records and the sentinel after them.

    Source: https://avro.apache.org/docs/1.12.0/specification/#object-container-files
    """
    head, sentinel = _container_parts(writer)
    block = b"".join(bodies) + sentinel
    return b"".join((head, zigzag(len(bodies) + 1), zigzag(len(block)), block, _SYNC))


@lru_cache(maxsize=64)
def _container_parts(writer: AvroSchema) -> tuple[bytes, bytes]:
    schema = json.dumps(_for_polars(writer.json)).encode()
    meta = (
        b"\x04"
        + text_bytes("avro.schema")
        + zigzag(len(schema))
        + schema
        + text_bytes("avro.codec")
        + text_bytes("null")
    )
    fields = writer.json["fields"]
    sentinel = text_bytes(_SENTINEL) + b"".join(zero_bytes(field["type"]) for field in fields[1:])
    return b"Obj\x01" + meta + b"\x00" + _SYNC, sentinel


def _for_polars(schema: Any) -> Any:
    """A schema with the same encoding that polars' Avro reader accepts: enums as their numbers, and no defaults."""
    if isinstance(schema, list):
        return [_for_polars(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "enum":
        return "int"
    kept = {name: part for name, part in schema.items() if name not in ("doc", "default", "aliases")}
    if kept.get("logicalType") == "uuid":
        return "string"
    return {name: _for_polars(part) if name in ("type", "fields", "items") else part for name, part in kept.items()}
