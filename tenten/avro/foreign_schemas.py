"""Schemas that somebody else has published: believed only if they are harmless to decode with.

A schema decides how much work a small value makes. Refused are schemas that are large, deep or recursive, and those by
which a byte could stand for many values.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tenten.avro.wire import Json

SCHEMA_BYTES_MAX: Final = 256 * 1024
"""The largest schema; those of this release have a tenth of it."""

DEPTH_MAX: Final = 32
"""Types within types; those of this release have 8."""

TYPES_MAX: Final = 10_000
"""The most types of a schema, where a named type counts each time that it is used."""

VALUES_PER_BYTE_MAX: Final = 8.0
"""The most values, records within records among them, that a byte may stand for; in this release's schemas it is 2."""

DECIMAL_DIGITS_MAX: Final = 38
"""The most digits of a decimal: as in columns."""

_BYTES: Final = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}
"""The fewest bytes of a value of each primitive type."""


class SchemaRefused(Exception):
    """A schema that is not used. The text is a sentence without its subject, and quotes nothing of the schema."""


@dataclass(frozen=True, slots=True)
class _Size:
    """The fewest bytes of a value, the number of types, and the most values for each byte."""

    bytes_min: int
    types: int
    values_per_byte: float = 1.0


_IN_PROGRESS: Final = _Size(-1, 0)


def read_schema(text: bytes | str) -> Json:
    """The record schema in a JSON text. Raises: `SchemaRefused`."""
    if len(text) > SCHEMA_BYTES_MAX:
        raise SchemaRefused(f"is larger than {SCHEMA_BYTES_MAX} bytes")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaRefused("is not valid JSON") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SchemaRefused("is not the schema of a record")
    _Measure().size(schema, "", 0)
    return schema


@dataclass(slots=True)
class _Measure:
    """Measures a schema. Each method raises `SchemaRefused`."""

    named: dict[str, _Size] = field(default_factory=dict)
    """By full name: the types that were declared so far."""

    def size(self, schema: Any, namespace: str, depth: int) -> _Size:
        """The size of a type."""
        if depth > DEPTH_MAX:
            raise SchemaRefused(f"has more than {DEPTH_MAX} types within each other")
        if isinstance(schema, str):
            size = self._of_name(schema, namespace)
        elif isinstance(schema, list):
            size = self._of_union(schema, namespace, depth)
        else:
            size = self._of_declaration(_table(schema), namespace, depth)
        if size.types > TYPES_MAX:
            raise SchemaRefused(f"has more than {TYPES_MAX} types")
        if size.values_per_byte > VALUES_PER_BYTE_MAX:
            raise SchemaRefused(f"has more than {VALUES_PER_BYTE_MAX:g} values for a byte")
        return size

    def _of_name(self, name: str, namespace: str) -> _Size:
        if name in _BYTES:
            return _Size(_BYTES[name], 1)
        size = self.named.get(_full_name(name, namespace))
        if size is None or size is _IN_PROGRESS:
            raise SchemaRefused("refers to a type that is recursive or not declared before")
        return size

    def _of_union(self, members: list[Any], namespace: str, depth: int) -> _Size:
        if not members:
            raise SchemaRefused("has an empty union")
        sizes = [self.size(member, namespace, depth + 1) for member in members]
        return _Size(
            1 + min(size.bytes_min for size in sizes),
            1 + sum(size.types for size in sizes),
            max(size.values_per_byte for size in sizes),
        )

    def _of_declaration(self, schema: Mapping[str, Any], namespace: str, depth: int) -> _Size:
        kind = _text(schema, "type")
        if "logicalType" in schema:
            _check_logical_type(schema)
        if kind in ("array", "map"):
            members = self.size(schema.get("items" if kind == "array" else "values"), namespace, depth + 1)
            if members.bytes_min == 0:
                raise SchemaRefused("has a list whose members take no bytes")
            return _Size(1, 1 + members.types, members.values_per_byte)
        if kind not in ("record", "enum", "fixed"):
            return self._of_name(kind, namespace)
        name = _full_name(_text(schema, "name"), schema.get("namespace") or namespace)
        self.named[name] = _IN_PROGRESS
        self.named[name] = size = self._of_named(kind, schema, name.rpartition(".")[0], depth)
        return size

    def _of_named(self, kind: str, schema: Mapping[str, Any], namespace: str, depth: int) -> _Size:
        if kind == "record":
            fields = [self.size(_table(each).get("type"), namespace, depth + 1) for each in _list(schema, "fields")]
            for each in schema["fields"]:
                _text(each, "name")
            if not all(size.bytes_min for size in fields):
                raise SchemaRefused("has a field that takes no bytes")
            bytes_min = sum(size.bytes_min for size in fields)
            values_per_byte = max(size.values_per_byte for size in fields) + 1 / bytes_min
            return _Size(bytes_min, 1 + sum(size.types for size in fields), values_per_byte)
        if kind == "enum":
            if not all(isinstance(symbol, str) for symbol in _list(schema, "symbols")):
                raise SchemaRefused("has an enum whose symbols are not texts")
            return _Size(1, 1)
        size = schema.get("size")
        if not isinstance(size, int) or not 0 < size <= SCHEMA_BYTES_MAX:
            raise SchemaRefused("has a fixed type of no bytes, or of too many")
        return _Size(size, 1)


def _check_logical_type(schema: Mapping[str, Any]) -> None:
    if _text(schema, "logicalType") != "decimal":
        return
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if not isinstance(precision, int) or not isinstance(scale, int):
        raise SchemaRefused("has a decimal without a number of digits")
    if not 0 < precision <= DECIMAL_DIGITS_MAX or not 0 <= scale <= precision:
        raise SchemaRefused("has a decimal of too many digits")


def _full_name(name: str, namespace: Any) -> str:
    return name if "." in name or not isinstance(namespace, str) or not namespace else f"{namespace}.{name}"


def _table(schema: Any) -> Mapping[str, Any]:
    if not isinstance(schema, dict):
        raise SchemaRefused("has something that is not a type")
    return schema


def _list(schema: Mapping[str, Any], name: str) -> list[Any]:
    members = schema.get(name)
    if not isinstance(members, list) or not members:
        raise SchemaRefused(f"has a type without {name}")
    return members


def _text(schema: Mapping[str, Any], name: str) -> str:
    text = schema.get(name)
    if not isinstance(text, str):
        raise SchemaRefused(f"has a type whose {name} is not a text")
    return text
