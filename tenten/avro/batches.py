"""Decode a batch of framed Avro values into columns.

All values of one writer's schema are read as one Avro block. Nothing in a block marks where a record ends, so a
damaged record shifts all records after it and may still decode. Two checks detect that: the first field of every
schema is the record key, which must equal Kafka's key in each row; a sentinel must follow the last record. If a check
fails, the values are decoded record by record, and only the unreadable ones are left out.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import polars as pl

from tenten.avro.container import read_block
from tenten.avro.resolution import column_type, resolution
from tenten.avro.wire import (
    UNKNOWN_KIND,
    AvroSchema,
    Unreadable,
    WriterSchemas,
    check_record,
    check_value,
    decode_body,
    encode,
    header_bytes,
    out_of_range,
    unknown_schema,
)
from tenten.rules.limits import GUID_PATTERN, TIME_MAX, TIME_MIN
from tenten.rules.unreadable_reasons import UnreadableReason
from tenten.schemas.messages import ROW

LARGE_BYTES: Final = 64 * 1024
"""Above this size headquarters decodes records in columns only: they may come from anybody."""

LOOK_UPS_MAX: Final = 20
"""The most schemas that are looked up for a batch, each with a request; there are fewer releases in one batch."""

EXACT: Final = "exact"
"""Column of a decoded frame: True if the value was written with the reader's schema and read in columns, so that its
bytes may be reused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRow:
    """A record of the batch that cannot be read, with the code and the text of the reason."""

    row: int
    reason: UnreadableReason
    text: str

    @classmethod
    def of(cls, row: int, error: Unreadable) -> "UnreadableRow":
        """The row with the code and the text of this error."""
        return cls(row=row, reason=error.reason, text=error.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBatch:
    """The readable records in the reader's columns, with `row` and `exact`, ordered by `row`; and the others."""

    frame: pl.DataFrame
    unreadable: tuple[UnreadableRow, ...]


def decode_batch(
    reader: AvroSchema,
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    writers: WriterSchemas,
    value_bytes_max: int,
    *,
    only_columns_above: int | None = None,
) -> DecodedBatch:
    """Decode a batch of framed values. Each row is either in the frame or unreadable.

    Records above `only_columns_above` bytes, if given, are unreadable unless columns can hold them as they are: as
    plain values, lists of many members take a multiple of the time. May block while a schema is looked up.
    Raises: as `writers` does when schemas cannot be looked up.
    """
    unreadable: list[UnreadableRow] = []
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        try:
            framed = check_value(value, value_bytes_max)
            groups[framed[: header_bytes(framed)]].append(row)
        except Unreadable as error:
            unreadable.append(UnreadableRow.of(row, error))
    frames = [empty_frame(reader)]
    look_ups = 0
    for header, rows in groups.items():
        try:
            if not writers.is_known(header):
                look_ups += 1
                if look_ups > LOOK_UPS_MAX:
                    raise unknown_schema(header)
            writer = writers.find(header)
        except Unreadable as error:
            unreadable.extend(UnreadableRow.of(row, error) for row in rows)
            continue
        bodies = [(values[row] or b"")[len(header) :] for row in rows]
        row_keys = [keys[row] for row in rows]
        frame = _decode_columns(writer, reader, row_keys, bodies)
        if frame is None:
            frame, bad_rows = _decode_one_by_one(
                reader, writer, list(zip(rows, row_keys, bodies, strict=True)), only_columns_above
            )
            unreadable.extend(bad_rows)
        else:
            exact = pl.lit(writer.header == reader.header).alias(EXACT)
            frame = frame.with_columns(pl.Series(ROW, rows, dtype=pl.Int64), exact)
        frames.append(frame)
    frame = pl.concat(frames).sort(ROW)
    return DecodedBatch(frame=frame, unreadable=tuple(sorted(unreadable, key=lambda bad: bad.row)))


def _decode_columns(
    writer: AvroSchema, reader: AvroSchema, keys: Sequence[bytes | None], bodies: Sequence[bytes]
) -> pl.DataFrame | None:
    """All records in the reader's columns, or None if one of them is unreadable or the schemas differ too much."""
    frame = _read_columns(reader, writer, bodies)
    if frame is None:
        return None
    delivered = pl.Series(keys, dtype=pl.Binary).cast(pl.String, strict=False)
    if not (frame[reader.key_field] == delivered).fill_null(False).all():
        return None
    return frame if frame.select(_sound(reader).all()).item() else None


def _read_columns(reader: AvroSchema, writer: AvroSchema, bodies: Sequence[bytes]) -> pl.DataFrame | None:
    """The records in the reader's columns, unchecked; None if one cannot be read, or the schemas differ too much."""
    columns = resolution(writer, reader)
    frame = None if columns is None else read_block(writer, bodies)
    return None if columns is None or frame is None else frame.select(columns)


def _decode_one_by_one(
    reader: AvroSchema,
    writer: AvroSchema,
    records: Sequence[tuple[int, bytes | None, bytes]],
    only_columns_above: int | None,
) -> tuple[pl.DataFrame, list[UnreadableRow]]:
    """Decode each record (row, key, body) separately, so that an unreadable one affects no other; the readable ones
    become a frame.
    """
    bad: list[UnreadableRow] = []
    sound: list[tuple[int, bytes | None, bytes]] = []
    exact = writer.header == reader.header
    large: list[pl.DataFrame] = []
    for row, key, body in records:
        try:
            if only_columns_above is not None and len(body) > only_columns_above:
                large.append(_decode_large(reader, writer, key, body).with_columns(pl.lit(row, pl.Int64).alias(ROW)))
                continue
            record = decode_body(body, writer, reader)
            check_record(reader, key, record)
        except Unreadable as error:
            bad.append(UnreadableRow.of(row, error))
        else:
            sound.append((row, key, body if exact else encode(reader, record, header=b"")))
    frame, outside = _halve_until_readable(reader, sound)
    bad.extend(UnreadableRow.of(row, out_of_range()) for row in outside)
    return pl.concat([frame, *large]).with_columns(pl.lit(exact).alias(EXACT)), bad


def _decode_large(reader: AvroSchema, writer: AvroSchema, key: bytes | None, body: bytes) -> pl.DataFrame:
    """One record in the reader's columns. Raises: `Unreadable`, also where its schema cannot be read in columns."""
    frame = _read_columns(reader, writer, [body])
    if frame is None:
        raise Unreadable("malformed", f"is not a valid {reader.name}")
    check_record(reader, key, {name: frame.item(0, name) for name in (reader.key_field, "kind") if name in frame})
    if not frame.select(_sound(reader).all()).item():
        raise out_of_range()
    return frame


def _halve_until_readable(
    reader: AvroSchema, records: Sequence[tuple[int, bytes | None, bytes]]
) -> tuple[pl.DataFrame, list[int]]:
    """The frame of the records (row, key, body), and the rows of valid Avro with values that no column can hold."""
    if not records:
        return empty_frame(reader).drop(EXACT), []
    rows, keys, bodies = zip(*records, strict=True)
    frame = _decode_columns(reader, reader, keys, bodies)
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
    """One boolean a row: GUIDs, times, dates and enums are valid, texts at the top level contain no NUL."""
    checks: list[pl.Expr] = []
    for field in reader.json["fields"]:
        column = pl.col(field["name"])
        checks.extend(_sound_value(field["type"], column))
        if _is_guid(field["type"]):
            checks.append(column.str.contains(GUID_PATTERN))
        elif field["type"] == "string":
            checks.append(~column.str.contains("\x00", literal=True))
        elif field["name"] == "kind":
            checks.append(column != UNKNOWN_KIND)
    return pl.all_horizontal([check.fill_null(True) for check in checks])


def _sound_value(schema: Any, value: pl.Expr) -> Iterable[pl.Expr]:
    """The checks of times and enums inside a value: a boolean a row each, null if there is nothing to check."""
    if isinstance(schema, list):
        schema = schema[-1]
    if not isinstance(schema, dict):
        return
    if schema.get("logicalType") == "timestamp-micros":
        yield value.is_between(TIME_MIN, TIME_MAX)
    elif schema.get("logicalType") == "date":
        yield value.is_between(TIME_MIN.date(), TIME_MAX.date())
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
    columns = {field["name"]: column_type(field["type"]) for field in reader.json["fields"]}
    return pl.DataFrame(schema={**columns, ROW: pl.Int64(), EXACT: pl.Boolean()})
