"""A batch of records is a table: framed Avro values to columns, and columns to framed Avro values.

Decoding joins the values into one Avro container block, which polars reads at once. In a block nothing marks where a
record ends, so a damaged one shifts all after it and may still decode. Hence the proof: the first field of every
schema is the record key, and it is compared with the key that Kafka delivered, row by row; a known sentinel after the
last record proves where that one ended. Whatever fails the proof is decoded record by record, and only the bad ones
fall out.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from typing import Any, Final

import polars as pl

from tenten.avro.wire import UNKNOWN_KIND, AvroSchema, Unreadable, WriterSchemas, decode_body, encode, header_bytes
from tenten.schemas.messages import ROW

EXACT: Final = "exact"
"""Column of a decoded frame: True when the value was written with the reader's own schema and read in columns, so
that its
bytes may be used again as they are."""

_SYNC: Final = b"tenten-sync-mark"
_SENTINEL: Final = "sentinel after the last record"
_GUID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_OUTSIDE: Final = "has a GUID, a number, a time or a text that cannot be stored"
_TIME_MIN: Final = datetime(1, 1, 2, tzinfo=UTC)
_TIME_MAX: Final = datetime(9999, 12, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRow:
    """A record of the batch that cannot be read, and why."""

    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBatch:
    """The readable records as a frame in the reader's columns, with `row` and `exact`, ordered by `row`; and the
    rest.
    """

    frame: pl.DataFrame
    unreadable: tuple[UnreadableRow, ...]


def decode_batch(
    reader: AvroSchema,
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    writers: WriterSchemas,
    value_bytes_max: int,
) -> DecodedBatch:
    """Read a batch of framed values. Keys and values stand in the same order; each row ends up in exactly one place.

    May block where a schema is looked up; raises what `writers` raises when that cannot be reached.
    """
    unreadable: list[UnreadableRow] = []
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        try:
            groups[_header(value, value_bytes_max)].append(row)
        except Unreadable as bad:
            unreadable.append(UnreadableRow(row=row, reason=bad.reason, text=bad.text))
    frames = [empty_frame(reader)]
    for header, rows in groups.items():
        try:
            writer = writers.find(header)
        except Unreadable as bad:
            unreadable.extend(UnreadableRow(row=row, reason=bad.reason, text=bad.text) for row in rows)
            continue
        bodies = [(values[row] or b"")[len(header) :] for row in rows]
        row_keys = [keys[row] for row in rows]
        frame = _decode_columns(reader, row_keys, bodies) if writer.header == reader.header else None
        if frame is None:
            frame, bad_rows = _decode_one_by_one(reader, writer, rows, row_keys, bodies)
            unreadable.extend(bad_rows)
        else:
            frame = frame.with_columns(pl.Series(ROW, rows, dtype=pl.Int64), pl.lit(True).alias(EXACT))
        frames.append(frame)
    frame = pl.concat(frames).sort(ROW)
    return DecodedBatch(frame=frame, unreadable=tuple(sorted(unreadable, key=lambda bad: bad.row)))


def _header(value: bytes | None, value_bytes_max: int) -> bytes:
    if value is None:
        raise Unreadable("null_value", "has no value")
    if len(value) > value_bytes_max:
        raise Unreadable("too_large", f"has {len(value)} bytes, more than {value_bytes_max}")
    return value[: header_bytes(value)]


def _decode_columns(reader: AvroSchema, keys: Sequence[bytes | None], bodies: Sequence[bytes]) -> pl.DataFrame | None:
    """All records at once, or None when one of them is not what it should be."""
    try:
        frame = pl.read_avro(BytesIO(_container(reader, bodies)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None
    if frame.height != len(bodies) + 1 or frame.item(-1, reader.key_field) != _SENTINEL:
        return None
    frame = frame.head(-1)
    delivered = pl.Series(keys, dtype=pl.Binary).cast(pl.String, strict=False)
    if not (frame[reader.key_field] == delivered).fill_null(False).all():
        return None
    frame = _with_symbols(frame, reader)
    return frame if frame.select(_sound(reader).all()).item() else None


def _decode_one_by_one(
    reader: AvroSchema, writer: AvroSchema, rows: Sequence[int], keys: Sequence[bytes | None], bodies: Sequence[bytes]
) -> tuple[pl.DataFrame, list[UnreadableRow]]:
    """The slow way: each record on its own, so that a bad one harms no other. What is sound is read in columns after
    all.
    """
    bad: list[UnreadableRow] = []
    sound: list[tuple[int, bytes | None, bytes]] = []
    exact = writer.header == reader.header
    for row, key, body in zip(rows, keys, bodies, strict=True):
        try:
            record = decode_body(body, writer, reader)
            if key != record[reader.key_field].encode():
                raise Unreadable("key_mismatch", f"has another {reader.key_field} than its key")
            if record.get("kind") == UNKNOWN_KIND:
                raise Unreadable("unknown_kind", "is of a kind that this release does not know")
        except Unreadable as unreadable:
            bad.append(UnreadableRow(row=row, reason=unreadable.reason, text=unreadable.text))
        else:
            sound.append((row, key, body if exact else encode(reader, record, header=b"")))
    frame, outside = _halve_until_readable(reader, sound)
    bad.extend(UnreadableRow(row=row, reason="malformed", text=_OUTSIDE) for row in outside)
    return frame.with_columns(pl.lit(exact).alias(EXACT)), bad


def _halve_until_readable(
    reader: AvroSchema, records: Sequence[tuple[int, bytes | None, bytes]]
) -> tuple[pl.DataFrame, list[int]]:
    """The frame of the records (row, key, body), and the rows of those that are Avro but hold what no column can."""
    if not records:
        return empty_frame(reader).drop(EXACT), []
    rows, keys, bodies = zip(*records, strict=True)
    frame = _decode_columns(reader, keys, bodies)
    if frame is not None:
        return frame.with_columns(pl.Series(ROW, rows, dtype=pl.Int64)), []
    if len(records) == 1:
        return empty_frame(reader).drop(EXACT), [rows[0]]
    half = len(records) // 2
    first, bad_first = _halve_until_readable(reader, records[:half])
    second, bad_second = _halve_until_readable(reader, records[half:])
    return pl.concat([first, second]), bad_first + bad_second


@cache
def _sound(reader: AvroSchema) -> pl.Expr:
    """One boolean a row: GUIDs are GUIDs, times and dates within the years 1 to 9999, no text at the top has a NUL."""
    checks: list[pl.Expr] = []
    for field in reader.json["fields"]:
        column = pl.col(field["name"])
        checks.extend(_sound_value(field["type"], column))
        if _is_guid(field["type"]):
            checks.append(column.str.contains(_GUID))
        elif field["type"] == "string":
            checks.append(~column.str.contains("\x00", literal=True))
        elif field["name"] == "kind":
            checks.append(column != UNKNOWN_KIND)
    return pl.all_horizontal([check.fill_null(True) for check in checks])


def _sound_value(schema: Any, value: pl.Expr) -> Iterable[pl.Expr]:
    """The checks of times and enums below a value: one boolean a row each, null where there is nothing to check."""
    if isinstance(schema, list):
        schema = schema[-1]
    if not isinstance(schema, dict):
        return
    if schema.get("logicalType") == "timestamp-micros":
        yield value.is_between(_TIME_MIN, _TIME_MAX)
    elif schema.get("logicalType") == "date":
        yield value.is_between(_TIME_MIN.date(), _TIME_MAX.date())
    elif schema["type"] == "enum":
        yield value.is_not_null()
    elif schema["type"] == "record":
        present = value.is_null()
        for field in schema["fields"]:
            for check in _sound_value(field["type"], value.struct.field(field["name"])):
                yield present | check.fill_null(False)
    elif schema["type"] == "array" and isinstance(schema["items"], dict):
        for check in _sound_value(schema["items"], pl.element()):
            yield value.list.eval(check).list.all()


def _is_guid(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("logicalType") == "uuid"


@cache
def empty_frame(reader: AvroSchema) -> pl.DataFrame:
    """A frame without rows, with the columns and types of every frame decoded for this reader."""
    frame = _with_symbols(pl.read_avro(BytesIO(_container(reader, []))).head(0), reader)
    return frame.with_columns(pl.lit(None, dtype=pl.Int64).alias(ROW), pl.lit(None, dtype=pl.Boolean).alias(EXACT))


def _with_symbols(frame: pl.DataFrame, reader: AvroSchema) -> pl.DataFrame:
    """Enums as text; null where the code names no symbol."""
    return frame.with_columns(_symbols_of(reader))


@cache
def _symbols_of(reader: AvroSchema) -> tuple[pl.Expr, ...]:
    return tuple(_symbols(field["type"], pl.col(field["name"])).alias(field["name"]) for field in reader.json["fields"])


def _symbols(schema: Any, value: pl.Expr) -> pl.Expr:
    if isinstance(schema, list):
        schema = schema[-1]
    if not isinstance(schema, dict):
        return value
    if schema["type"] == "enum":
        return value.replace_strict(dict(enumerate(schema["symbols"])), default=None, return_dtype=pl.String)
    if schema["type"] == "record" and any(_is_enum(field["type"]) for field in schema["fields"]):
        return value.struct.with_fields(
            _symbols(field["type"], pl.field(field["name"])).alias(field["name"])
            for field in schema["fields"]
            if _is_enum(field["type"])
        )
    return value


def _is_enum(schema: Any) -> bool:
    return isinstance(schema, dict) and schema["type"] == "enum"


def _container(reader: AvroSchema, bodies: Sequence[bytes]) -> bytes:
    """An Avro object container file of one block: the records and the sentinel after them.

    Source: https://avro.apache.org/docs/1.12.0/specification/#object-container-files
    """
    head, sentinel = _container_parts(reader)
    block = b"".join(bodies) + sentinel
    return b"".join((head, zigzag(len(bodies) + 1), zigzag(len(block)), block, _SYNC))


@cache
def _container_parts(reader: AvroSchema) -> tuple[bytes, bytes]:
    schema = json.dumps(_for_columns(reader.json)).encode()
    meta = (
        b"\x04"
        + text_bytes("avro.schema")
        + zigzag(len(schema))
        + schema
        + text_bytes("avro.codec")
        + text_bytes("null")
    )
    fields = reader.json["fields"]
    sentinel = text_bytes(_SENTINEL) + b"".join(_zero(field["type"]) for field in fields[1:])
    return b"Obj\x01" + meta + b"\x00" + _SYNC, sentinel


def _for_columns(schema: Any) -> Any:
    """The same encoding in the words that polars' Avro reader takes: enums as their codes, and no defaults."""
    if isinstance(schema, list):
        return [_for_columns(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "enum":
        return "int"
    kept = {name: part for name, part in schema.items() if name not in ("doc", "default")}
    if _is_guid(kept):
        return "string"
    return {name: _for_columns(part) if name in ("type", "fields", "items") else part for name, part in kept.items()}


def _zero(schema: Any) -> bytes:
    """The encoding of the zero of a type: the empty text, 0, false, null where it is nullable, no items."""
    if isinstance(schema, list):
        return b"\x00" + (b"" if schema[0] == "null" else _zero(schema[0]))
    if isinstance(schema, dict) and schema["type"] == "record":
        return b"".join(_zero(field["type"]) for field in schema["fields"])
    return b"\x00"


def zigzag(number: int) -> bytes:
    """An Avro int or long: zigzag, then 7 bits a byte, the lowest first."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append((rest & 0x7F) | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_LENGTHS: Final = tuple(zigzag(length) for length in range(256))
"""The lengths of ordinary texts, encoded once."""


def text_bytes(text: str) -> bytes:
    """An Avro string: its length in bytes, then UTF-8."""
    data = text.encode()
    length = len(data)
    return (_LENGTHS[length] if length < len(_LENGTHS) else zigzag(length)) + data


def join_columns(header: bytes, *columns: Iterable[bytes]) -> list[bytes]:
    """One framed value a row: the header, then the row's encoded fields in the schema's order.

    An Avro record is nothing but its fields' encodings one after the other, so a batch is encoded field by field.
    """
    return [header + b"".join(fields) for fields in zip(*columns, strict=True)]
