"""The wire format of one record, in both framings.

Avro single-object encoding (`C3 01`, 8 bytes of fingerprint, Avro) needs no server and is the default;
Confluent framing (`00`, 4 bytes of schema id, Avro) is written when a schema registry is configured. Readers take both.
Source: https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding and
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format

Errors::

    Unreadable              the value can never be read: it becomes a dead letter
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any, Final

import fastavro
import fastavro.read
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

from tenten.rules.unreadable_reasons import UnreadableReason

SINGLE_OBJECT_MAGIC: Final = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES: Final = 10
CONFLUENT_MAGIC: Final = b"\x00"
CONFLUENT_HEADER_BYTES: Final = 5

DECIMAL_BYTES_MAX: Final = 16
"""The longest decimal number, as in columns; those of the contracts take 12."""

RESOLVED_BYTES_MAX: Final = 1024 * 1024
"""The largest record in the reader's schema that was written in a foreign one, without the reader's defaults."""

UNKNOWN_KIND: Final = "UNKNOWN"
"""The `kind` of a record whose kind a later release has introduced: headquarters cannot read it."""

Json = dict[str, Any]


class Unreadable(Exception):
    """A value that cannot be read. `text` is a sentence without its subject, and has no content of the value."""

    def __init__(self, reason: UnreadableReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AvroSchema:
    """One Avro schema, ready for use."""

    name: str
    json: Json
    parsed: Any
    """For fastavro; GUIDs stay text."""
    fingerprint: bytes
    """CRC-64-AVRO of the parsing canonical form, little-endian, as in single-object encoding. 8 bytes."""
    header: bytes = field(repr=False)
    """The bytes before the Avro bytes in single-object encoding. 10 bytes."""
    is_packaged: bool = False
    """Whether it is a contract of this release or the last one, and not one that somebody else has published."""

    @property
    def key_field(self) -> str:
        """The name of the field that is the record key: always the first field."""
        return str(self.json["fields"][0]["name"])


def avro_schema(declaration: Json, *, is_packaged: bool = False) -> AvroSchema:
    """The schema that a JSON declaration describes.

    Raises: `fastavro.schema.SchemaParseException` or `UnknownType` if the declaration is not a valid schema.
    """
    mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(declaration), "CRC-64-AVRO"))
    return AvroSchema(
        name=str(declaration["name"]),
        json=declaration,
        parsed=parse_schema(_without_guids(declaration)),
        fingerprint=mark,
        header=SINGLE_OBJECT_MAGIC + mark,
        is_packaged=is_packaged,
    )


def _without_guids(schema: Any) -> Any:
    """The schema with GUIDs as plain text, which fastavro would convert to `uuid.UUID`."""
    if isinstance(schema, dict):
        dropped = {"logicalType"} if schema.get("logicalType") == "uuid" else set()
        return {name: _without_guids(part) for name, part in schema.items() if name not in dropped}
    if isinstance(schema, list):
        return [_without_guids(part) for part in schema]
    return schema


CONTRACTS: Final = (
    "CustomerEvent",
    "Customer",
    "Reply",
    "RetailTransaction",
    "TransactionReply",
    "Heartbeat",
    "TopicStatus",
    "Erasure",
    "ChannelSettings",
    "JoinRequest",
)
RELEASED_CONTRACTS: Final = ("CustomerEvent", "Customer", "Reply", "RetailTransaction")


@cache
def contract(name: str) -> AvroSchema:
    """This release's contract of that name, which `CONTRACTS` lists."""
    return _packaged(f"{name}.avsc")


@cache
def released_contract(name: str) -> AvroSchema:
    """The last release's contract of that name, one of `RELEASED_CONTRACTS`."""
    return _packaged("released", f"{name}.avsc")


def _packaged(*path: str) -> AvroSchema:
    text = (files("tenten.schemas") / "avro").joinpath(*path).read_text(encoding="utf-8")
    return avro_schema(json.loads(text), is_packaged=True)


def contracts() -> tuple[AvroSchema, ...]:
    """Every contract of this release."""
    return tuple(map(contract, CONTRACTS))


def encode(schema: AvroSchema, record: Json, header: bytes | None = None) -> bytes:
    """One record with its header: single-object encoding unless another header is given."""
    out = BytesIO()
    out.write(schema.header if header is None else header)
    fastavro.schemaless_writer(out, schema.parsed, record, strict_allow_default=True)
    return out.getvalue()


def confluent_header(schema_id: int) -> bytes:
    """The bytes before the Avro bytes of a value whose schema has this id in the registry."""
    return CONFLUENT_MAGIC + struct.pack(">I", schema_id)


def header_bytes(value: bytes) -> int:
    """The length of the value's header. Raises: `Unreadable` if the value has neither framing."""
    if value.startswith(SINGLE_OBJECT_MAGIC) and len(value) >= SINGLE_OBJECT_HEADER_BYTES:
        return SINGLE_OBJECT_HEADER_BYTES
    if value.startswith(CONFLUENT_MAGIC) and len(value) >= CONFLUENT_HEADER_BYTES:
        return CONFLUENT_HEADER_BYTES
    raise Unreadable("no_avro", "starts neither with Avro's single-object marker nor with Confluent's")


def check_value(value: bytes | None, value_bytes_max: int) -> bytes:
    """The value. Raises: `Unreadable` if there is none, or it is too large."""
    if value is None:
        raise Unreadable("null_value", "has no value")
    if len(value) > value_bytes_max:
        raise Unreadable("too_large", f"has {len(value)} bytes, more than {value_bytes_max}")
    return value


def check_record(reader: AvroSchema, key: bytes | None, record: Json) -> None:
    """Raises: `Unreadable` if the record has another key, or is of an unknown kind."""
    if record[reader.key_field].encode() != key:
        raise Unreadable("key_mismatch", f"has a {reader.key_field} other than its key")
    if record.get("kind") == UNKNOWN_KIND:
        raise Unreadable("unknown_kind", "is of a kind that this release does not know")


def out_of_range() -> Unreadable:
    """The error of a record with a value that is valid in Avro but cannot be stored."""
    return Unreadable("malformed", "contains a value outside the supported range")


def unknown_schema(header: bytes) -> Unreadable:
    """The error of a record whose header names a schema that nobody has published."""
    return Unreadable("unknown_schema", f"was written with an unknown schema ({header.hex()})")


def reframe(value: bytes, header: bytes) -> bytes:
    """The same Avro bytes behind another header of the same schema."""
    return header + value[header_bytes(value) :]


def _read_decimal(data: bytes, writer_schema: Any = None, reader_schema: Any = None) -> Any:
    """The decimal of these bytes. Raises: `ValueError` if they are more than any column holds.

    The time that a number takes grows with the square of its length: half a minute for one that fits an event.
    """
    if len(data) > DECIMAL_BYTES_MAX:
        raise ValueError(f"a decimal of {len(data)} bytes")
    return _fastavro_read_decimal(data, writer_schema, reader_schema)


_fastavro_read_decimal: Final = fastavro.read.LOGICAL_READERS["bytes-decimal"]
fastavro.read.LOGICAL_READERS["bytes-decimal"] = _read_decimal


def decode_body(body: bytes, writer: AvroSchema, reader: AvroSchema) -> Json:
    """One record from its Avro bytes, resolved to the reader's schema.

    Raises: `Unreadable` if the bytes are not exactly one record of the writer's schema.
    """
    source = BytesIO(body)
    try:
        record: Any = fastavro.schemaless_reader(source, writer.parsed, reader.parsed)
        resolved = None if writer.is_packaged else encode(reader, record, header=b"")
        if resolved is not None and len(resolved) <= RESOLVED_BYTES_MAX:
            # A logical type of the writer's gives values that are not of the reader's types.
            record = fastavro.schemaless_reader(BytesIO(resolved), reader.parsed, None)
    except Exception as error:  # fastavro raises a dozen different types on foreign bytes
        raise Unreadable("malformed", f"is not a valid {reader.name}: {type(error).__name__}") from error
    if source.tell() != len(body):
        raise Unreadable("malformed", f"has {len(body) - source.tell()} bytes after its end")
    if resolved is not None and len(resolved) > RESOLVED_BYTES_MAX:
        raise Unreadable("too_large", f"has {len(resolved)} bytes as a {reader.name}, more than {RESOLVED_BYTES_MAX}")
    return dict(record)


def resolved_body(record: Json, writer: AvroSchema, reader: AvroSchema) -> bytes | None:
    """The Avro bytes of a record of the reader's schema as a writer of another one encodes it; None if they do not hold
    all of it.
    """
    out = BytesIO()
    try:
        fastavro.schemaless_writer(out, writer.parsed, record)
        resolved = decode_body(out.getvalue(), writer, reader)
        in_reader, resolved_in_reader = (encode(reader, given, header=b"") for given in (record, resolved))
    except (Unreadable, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):  # fastavro's
        return None
    return out.getvalue() if in_reader == resolved_in_reader else None


class WriterSchemas:
    """The schemas that values were written with, by header; each is looked up once.

    The schemas of this release and the last one are built in: outboxes and databases hold values of both. Others are
    looked up with `by_fingerprint` (the `schemas` topic) and `by_id` (the registry), which may block, return None for
    an unknown schema, and raise if the lookup fails.
    """

    def __init__(
        self,
        by_fingerprint: Callable[[bytes], Mapping[str, Any] | None] = lambda _: None,
        by_id: Callable[[int], Mapping[str, Any] | None] = lambda _: None,
    ) -> None:
        self._by_fingerprint = by_fingerprint
        self._by_id = by_id
        packaged = (*map(released_contract, RELEASED_CONTRACTS), *contracts())
        self._known: dict[bytes, AvroSchema] = {schema.header: schema for schema in packaged}

    def known(self, reader: AvroSchema) -> list[AvroSchema]:
        """The schemas of the reader's name that are built in, or were looked up."""
        return [schema for schema in self._known.values() if schema.name == reader.name]

    def is_known(self, header: bytes) -> bool:
        """Whether `find` gives the schema that this header names without looking it up."""
        return header in self._known

    def find(self, header: bytes) -> AvroSchema:
        """The schema that this header names. Raises: `Unreadable` if there is none, or it is not a record schema."""
        known = self._known.get(header)
        if known is not None:
            return known
        if header.startswith(SINGLE_OBJECT_MAGIC):
            declaration = self._by_fingerprint(header[len(SINGLE_OBJECT_MAGIC) :])
        else:
            declaration = self._by_id(struct.unpack(">I", header[len(CONFLUENT_MAGIC) :])[0])
        if declaration is None:
            raise unknown_schema(header)
        try:
            found = avro_schema(dict(declaration))
        except Exception as error:  # the declaration comes from a topic or a registry and may be anything
            raise Unreadable("unknown_schema", f"was written with an invalid schema ({header.hex()})") from error
        self._known[header] = found
        return found

    def decode(self, value: bytes, reader: AvroSchema) -> Json:
        """One record from its framed value, resolved to the reader's schema. Raises: `Unreadable`."""
        start = header_bytes(value)
        return decode_body(value[start:], self.find(value[:start]), reader)
