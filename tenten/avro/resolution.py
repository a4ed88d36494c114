"""From the columns that a writer's schema gives to the columns of the reader's schema.

Fields that the reader lacks are dropped, fields that the writer lacks get the reader's default, enum symbols that the
reader lacks become its default symbol. Other differences (another type, promotions, aliases) are not resolved in
columns. Source: https://avro.apache.org/docs/1.12.0/specification/#schema-resolution
"""

from functools import lru_cache
from typing import Any, Final

import polars as pl

from tenten.avro.wire import AvroSchema

_PRIMITIVES: Final = frozenset(("boolean", "int", "long", "string", "bytes"))
_LOGICAL_TYPES: Final = frozenset(("uuid", "date", "timestamp-micros", "decimal"))
_DEPTH_MAX: Final = 10
"""Levels of a schema that is resolved in columns."""


@lru_cache(maxsize=64)
def resolution(writer: AvroSchema, reader: AvroSchema) -> tuple[pl.Expr, ...] | None:
    """The reader's columns from the writer's, enums as text; None if the schemas cannot be resolved in columns.

    An enum number that names no symbol becomes null.
    """
    if writer.key_field != reader.key_field or not _is_supported(writer.json):
        return None
    written = {field["name"]: field["type"] for field in writer.json["fields"]}
    columns = []
    for field in reader.json["fields"]:
        name = field["name"]
        column = _field(written, field, pl.col(name))
        if column is None:
            return None
        columns.append(column.alias(name))
    return tuple(columns)


def _is_supported(schema: Any, depth: int = 0) -> bool:
    """True for the types of the contracts. A value of each takes at least one byte, so a block bounds their number."""
    if depth > _DEPTH_MAX:
        return False
    if isinstance(schema, list):
        return len(schema) == 2 and schema[0] == "null" and _is_supported(schema[1], depth + 1)
    if not isinstance(schema, dict):
        return schema in _PRIMITIVES
    kind = schema.get("type")
    if kind == "record":
        fields = schema["fields"]
        return bool(fields) and all(_is_supported(field["type"], depth + 1) for field in fields)
    if kind == "array":
        return _is_supported(schema["items"], depth + 1)
    return kind == "enum" or (kind in _PRIMITIVES and schema.get("logicalType", "uuid") in _LOGICAL_TYPES)


def _field(written: dict[str, Any], field: dict[str, Any], value: pl.Expr) -> pl.Expr | None:
    """The reader's field, from the writer's field `value` or the default."""
    if field["name"] in written:
        return _value(written[field["name"]], field["type"], value)
    return _default(field)


def _default(field: dict[str, Any]) -> pl.Expr | None:
    """The default of a field that the writer lacks, if it is a simple one."""
    if "default" not in field:
        return None
    default, dtype = field["default"], column_type(field["type"])
    is_simple = default is None or default == [] or (isinstance(default, str | bool | int) and dtype == pl.String)
    is_simple = is_simple or (isinstance(default, bool | int) and dtype in (pl.Boolean, pl.Int32, pl.Int64))
    return pl.lit(default, dtype=dtype) if is_simple else None


def _value(written: Any, read: Any, value: pl.Expr) -> pl.Expr | None:
    if isinstance(written, list) and isinstance(read, list):
        is_alike = len(read) == 2 and read[0] == "null"
        return _present(written[1], read[1], value, is_nullable=True) if is_alike else None
    return _present(written, read, value, is_nullable=False)


def _present(written: Any, read: Any, value: pl.Expr, *, is_nullable: bool) -> pl.Expr | None:
    if _shape(written) == _shape(read):
        return value
    kind = _kind(read)
    if _kind(written) != kind:
        return None
    if kind == "enum":
        return _symbols(written, read, value)
    if kind == "record":
        return _record(written, read, value, is_nullable=is_nullable)
    items = _value(written["items"], read["items"], pl.element()) if kind == "array" else None
    return None if items is None else value.list.eval(items)


def _kind(schema: Any) -> Any:
    return schema["type"] if isinstance(schema, dict) else schema


def _shape(schema: Any) -> object:
    """A value that is equal for two schemas whose columns are equal, and for no schema with an enum."""
    if isinstance(schema, list):
        return tuple(map(_shape, schema))
    if not isinstance(schema, dict):
        return schema
    if schema["type"] == "enum":
        return object()
    if schema["type"] == "record":
        return tuple((field["name"], _shape(field["type"])) for field in schema["fields"])
    if schema["type"] == "array":
        return [_shape(schema["items"])]
    return schema["type"], schema.get("logicalType"), schema.get("precision"), schema.get("scale")


def _symbols(written: Any, read: Any, value: pl.Expr) -> pl.Expr:
    known = set(read["symbols"])
    symbols = {
        number: symbol if symbol in known else read.get("default") for number, symbol in enumerate(written["symbols"])
    }
    return value.replace_strict(symbols, default=None, return_dtype=pl.String)


def _record(written: Any, read: Any, value: pl.Expr, *, is_nullable: bool) -> pl.Expr | None:
    old = {field["name"]: field["type"] for field in written["fields"]}
    fields = []
    for field in read["fields"]:
        resolved = _field(old, field, value.struct.field(field["name"]))
        if resolved is None:
            return None
        fields.append(resolved.alias(field["name"]))
    record = pl.struct(fields)
    return pl.when(value.is_not_null()).then(record) if is_nullable else record


def column_type(schema: Any) -> pl.DataType:
    """The type of the column of a type of the contracts."""
    if isinstance(schema, list):
        return column_type(schema[1])
    kind = _kind(schema)
    if kind == "record":
        return pl.Struct({field["name"]: column_type(field["type"]) for field in schema["fields"]})
    if kind == "array":
        return pl.List(column_type(schema["items"]))
    if kind == "enum":
        return pl.String()
    logical_type = schema.get("logicalType") if isinstance(schema, dict) else None
    if logical_type == "decimal":
        return pl.Decimal(schema["precision"], schema["scale"])
    return _LOGICAL_COLUMN_TYPES[logical_type] if logical_type else _PRIMITIVE_COLUMN_TYPES[kind]


_LOGICAL_COLUMN_TYPES: Final[dict[str, pl.DataType]] = {
    "uuid": pl.String(),
    "date": pl.Date(),
    "timestamp-micros": pl.Datetime("us", "UTC"),
}
_PRIMITIVE_COLUMN_TYPES: Final[dict[str, pl.DataType]] = {
    "boolean": pl.Boolean(),
    "int": pl.Int32(),
    "long": pl.Int64(),
    "string": pl.String(),
    "bytes": pl.Binary(),
}
