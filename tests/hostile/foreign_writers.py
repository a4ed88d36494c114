"""A program that reads records of hostile writers' schemas, with little time and memory; any exception ends it.

A writer that may publish schemas, as with a schema registry, decides how its records are decoded.
"""

import json
import random
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import fastavro
import fastavro.utils

from tenten.avro.foreign_schemas import SchemaRefused, read_schema
from tenten.avro.primitives import text_bytes, zigzag
from tenten.avro.small_batch import decode_small_batch
from tenten.avro.wire import SINGLE_OBJECT_MAGIC, WriterSchemas, avro_schema, contract, encode
from tenten.consumers.headquarters.customers import classify as customer_batches
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.consumers.headquarters.transactions import classify as transaction_batches
from tenten.schemas.messages import Address, CustomerEvent, CustomerState, EventKind, to_avro
from tenten.schemas.topics import EVENT_BYTES_MAX

CPU_SECONDS: Final = 60
MEMORY_BYTES: Final = 1024**3
"""Above what the program has when it begins."""

GUID: Final = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
CHANNELS: Final = KnownChannels(legal_entity_by_channel={"houston": "usrt"}, legal_entities=frozenset({"usrt"}))


def main() -> None:
    """Read every bomb, and as many random records as the command line says, from a seed; print how many were read."""
    count, seed = map(int, sys.argv[1:])
    has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY_BYTES, has + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    for name, schema, body in bombs():
        print("bomb", name, read(schema, GUID, body), flush=True)
    rng = random.Random(seed)
    random.seed(seed)
    reads = [read(*random_record(rng)) for _ in range(count)]
    print("refused", reads.count(False), "tried", reads.count(True))


def read(schema: Any, key: str, body: bytes) -> bool:
    """Read a record as each reader of the product does; False if its schema (or its text) is refused before that.

    Raises: whatever would end a worker.
    """
    try:
        declaration = read_schema(schema if isinstance(schema, str) else json.dumps(schema))
    except SchemaRefused:
        return False
    try:
        fingerprint = avro_schema(declaration).fingerprint
    except Exception:  # noqa: BLE001 -- `SchemasTopic` and `WriterSchemas.find` count all of them as not valid
        return False
    writers = WriterSchemas(by_fingerprint=lambda _: declaration)
    keys, values = [key.encode()], [SINGLE_OBJECT_MAGIC + fingerprint + body]
    positions = RecordPositions(topic="t", partitions=[0], offsets=[0])
    events = customer_batches.decode_small(keys, values, writers)
    if events is not None:
        customer_batches.individually(events, values, positions)
    customer_batches.decode_and_classify(keys, values, writers, CHANNELS, positions, partitions=1)
    transaction_batches.decode_and_classify(keys, values, writers, CHANNELS, positions, partitions=1)
    for reader in ("Customer", "Reply", "TransactionReply"):
        decode_small_batch(contract(reader), keys, values, writers)
    return True


def bombs() -> Iterator[tuple[str, Any, bytes]]:
    """Schemas by which a small record is large, endless or another one than it seems to be."""
    many = EVENT_BYTES_MAX - 1_000
    ones = zigzag(many) + b"\x00" * many + b"\x00"
    endless = zigzag(2**62)
    yield "deep", '{"type": "array", "items": ' * 9_000 + '"int"' + "}" * 9_000, b""
    yield "recursive", contract_with(changed=["null", "CustomerEvent"]), text_bytes(GUID) + b"\x02" * 5_000
    fixed = {"type": "fixed", "name": "F", "size": 1_000}
    for name, changed, value in (
        ("list of null", list_of("null"), endless),
        ("map of null", {"type": "map", "values": "null"}, endless),
        ("list of empty records", list_of(named("E", [])), endless),
        ("lists in lists", nested(25), b"\x02" * 60),
        ("huge fixed", {"type": "fixed", "name": "F", "size": 2**40}, b""),
        ("list of fixed", list_of(fixed), endless),
        ("records in records", list_of(chain(30)), ones),
        ("some records in records", list_of(chain(6)), ones),
        ("list of unions", list_of(["null", chain(6)]), ones),
        ("wide union", list_of(["null", *(enum(f"U{n}", 1) for n in range(4_000))]), ones),
        ("wide enum", list_of(enum("E", 15_000)), ones),
        ("numbers", list_of("double"), zigzag(many // 8) + b"\x00" * many + b"\x00"),
        ("decimals", list_of(ODD_TYPES["decimal"]), ones),
        ("texts", list_of("string"), ones),
    ):
        yield name, event_with(changed), text_bytes(GUID) + value + REST
    for name, kind in ODD_TYPES.items():
        for field in ("customer_id", "event_id", "channel_id", "occurred_at", "based_on_version", "changed", "street"):
            yield f"{field} as {name}", contract_with(**{field: kind}), VALID


def list_of(items: Any) -> Any:
    """A list type."""
    return {"type": "array", "items": items}


def enum(name: str, symbols: int) -> Any:
    """An enum type with so many symbols."""
    return {"type": "enum", "name": name, "symbols": [f"S{number}" for number in range(symbols)]}


def event_with(changed: Any) -> Any:
    """The contract of customer events, in which `changed` is the second field and has another type."""
    schema = contract("CustomerEvent").json
    first, *others = schema["fields"]
    own = [field for field in others if field["name"] != "changed"]
    return schema | {"fields": [first, {"name": "changed", "type": changed}, *own]}


_TIME: Final = datetime(2026, 3, 1, tzinfo=UTC)
_EVENT: Final = CustomerEvent(
    customer_id=GUID,
    event_id=GUID,
    channel_id="houston",
    kind=EventKind.CREATED,
    occurred_at=_TIME,
    changed=(),
    customer=CustomerState(
        legal_entity="usrt", first_name="Ann", addresses=(Address(address_id=GUID, street="x", updated_at=_TIME),)
    ),
)
VALID: Final = encode(contract("CustomerEvent"), to_avro(_EVENT), b"")
"""The Avro bytes of an event."""

REST: Final = VALID[len(text_bytes(GUID)) :].replace(b"\x00\x00\x00\x02", b"\x00\x00\x02", 1)
"""Those behind its first field, without `changed`."""

ODD_TYPES: Final[dict[str, Any]] = {
    "decimal": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2},
    "date": {"type": "int", "logicalType": "date"},
    "time": {"type": "long", "logicalType": "timestamp-millis"},
    "bytes": "bytes",
    "number": "double",
    "null": "null",
    "texts": {"type": "map", "values": "string"},
}


def contract_with(**types: Any) -> Any:
    """The contract of customer events with these fields of other types; `contacts` is the customer's."""
    schema = deepcopy(contract("CustomerEvent").json)
    for part in walk(schema):
        if isinstance(part, dict) and part.get("name") in types and "type" in part:
            part["type"] = types[part["name"]]
    return schema


def named(name: str, types: Sequence[Any]) -> Any:
    """A record type with fields of these types."""
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": t} for n, t in enumerate(types)]}


def nested(depth: int) -> Any:
    """Lists within each other."""
    schema: Any = "int"
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def chain(levels: int) -> Any:
    """Records within each other, around one byte."""
    schema: Any = "boolean"
    for level in range(levels):
        schema = named(f"C{level}", [schema])
    return schema


def walk(part: Any) -> Iterator[Any]:
    """All parts of a schema, each before its own parts."""
    yield part
    for member in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from walk(member)


def random_record(rng: random.Random) -> tuple[Any, str, bytes]:
    """A contract with some changes, and a record that was written with it, perhaps damaged."""
    schema = deepcopy(contract(rng.choice(("CustomerEvent", "CustomerEvent", "RetailTransaction"))).json)
    for _ in range(rng.randrange(4)):
        rng.choice(CHANGES)(rng, schema)
    try:
        record: Any = fastavro.utils.generate_one(schema)
        record[schema["fields"][0]["name"]] = GUID
        out = BytesIO()
        fastavro.schemaless_writer(out, schema, record)
        body = bytearray(out.getvalue())
    except Exception:  # noqa: BLE001 -- not every schema is valid, and not every one can be filled
        body = bytearray(text_bytes(GUID) + rng.randbytes(200))
    for _ in range(rng.choice((0, 0, 1, 5))):
        body[rng.randrange(len(body))] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF))
    return schema, GUID, bytes(body[: rng.choice((len(body), len(body), rng.randrange(len(body) + 1)))])


def _fields(schema: Any) -> list[Any]:
    return [part for part in walk(schema) if isinstance(part, dict) and "name" in part and "fields" not in part]


def _other_type(rng: random.Random, schema: Any) -> None:
    rng.choice(_fields(schema))["type"] = deepcopy(rng.choice([*ODD_TYPES.values(), "string", "long", ["null", "int"]]))


def _other_name(rng: random.Random, schema: Any) -> None:
    one, other = rng.choice(_fields(schema)), rng.choice(_fields(schema))
    one["name"], other["name"] = other["name"], one["name"]


def _without_field(rng: random.Random, schema: Any) -> None:
    fields = rng.choice([part["fields"] for part in walk(schema) if isinstance(part, dict) and part.get("fields")])
    fields.pop(rng.randrange(len(fields)))


def _more_symbols(rng: random.Random, schema: Any) -> None:
    for part in walk(schema):
        if isinstance(part, dict) and "symbols" in part:
            part["symbols"] = [*part["symbols"], "A", "B"][rng.randrange(2) :]


def _optional(rng: random.Random, schema: Any) -> None:
    field = rng.choice(_fields(schema))
    field["type"] = rng.choice((["null", field.get("type")], [field.get("type"), "null"]))


CHANGES: Final[Sequence[Callable[[random.Random, Any], None]]] = (
    _other_type,
    _other_type,
    _other_name,
    _without_field,
    _more_symbols,
    _optional,
)


if __name__ == "__main__":
    main()
