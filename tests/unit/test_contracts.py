"""The contracts hold what others build on, and only ever gain fields with defaults."""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tenten.avro.batches import empty_frame
from tenten.avro.wire import RELEASED_CONTRACTS, WriterSchemas, avro_schema, contract, contracts, decode_body, encode
from tenten.schemas import topics
from tenten.schemas.messages import CustomerType, EventKind, Outcome, ReceiptPreference, TransactionKind
from tenten.schemas.topics import ALL, Topic

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

AVRO = Path(__file__).parents[2] / "schemas" / "avro"
NAMES = sorted(file.stem for file in AVRO.glob("*.avsc"))
RELEASED = sorted(file.stem for file in (AVRO / "released").glob("*.avsc"))

Schema = Any


def declaration(path: Path) -> Schema:
    """The JSON of one schema."""
    return json.loads(path.read_text(encoding="utf-8"))


def breaches(released: Schema, current: Schema, place: str = "") -> Iterator[str]:
    """Where the current schema does more than gain fields with defaults."""
    if isinstance(released, list) or isinstance(current, list):
        if not isinstance(released, list) or not isinstance(current, list) or len(released) != len(current):
            yield f"{place}: another union"
            return
        for old, new in zip(released, current, strict=True):
            yield from breaches(old, new, place)
    elif isinstance(released, dict) and isinstance(current, dict) and "fields" in released:
        yield from _record_breaches(released, current, place)
    elif isinstance(released, dict) and isinstance(current, dict) and "items" in released:
        yield from breaches(released["items"], current.get("items"), f"{place}[]")
    elif isinstance(released, dict) and isinstance(current, dict) and "symbols" in released:
        yield from _enum_breaches(released, current, place)
    elif _bare(released) != _bare(current):
        yield f"{place}: another type"


def _record_breaches(released: Schema, current: Schema, place: str) -> Iterator[str]:
    new = {field["name"]: field for field in current.get("fields", [])}
    old = {field["name"]: field for field in released["fields"]}
    for name, field in old.items():
        if name not in new:
            yield f"{place}/{name}: removed"
        else:
            yield from breaches(field["type"], new[name]["type"], f"{place}/{name}")
    yield from (
        f"{place}/{name}: new without a default" for name in new.keys() - old.keys() if "default" not in new[name]
    )
    if [name for name in new if name in old] != list(old):
        yield f"{place}: fields in another order"


def _enum_breaches(released: Schema, current: Schema, place: str) -> Iterator[str]:
    symbols = current.get("symbols", [])
    if (current["type"], current.get("name")) != ("enum", released["name"]):
        yield f"{place}: another type"
    elif symbols[: len(released["symbols"])] != released["symbols"]:
        yield f"{place}: symbols removed or in another order"
    elif current.get("default") not in symbols:
        yield f"{place}: no default symbol"


def _bare(schema: Schema) -> Schema:
    return {name: part for name, part in schema.items() if name != "doc"} if isinstance(schema, dict) else schema


def every_field(schema: Schema) -> Iterator[Schema]:
    """Every field of a schema, also of the records inside."""
    if isinstance(schema, list):
        for part in schema:
            yield from every_field(part)
    elif isinstance(schema, dict):
        for field in schema.get("fields", []):
            yield field
            yield from every_field(field["type"])
        yield from every_field(schema.get("items"))


def every_enum(schema: Schema) -> Iterator[Schema]:
    """Every enum in a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from every_enum(part)
    elif isinstance(schema, dict):
        if schema["type"] == "enum":
            yield schema
        for field in schema.get("fields", []):
            yield from every_enum(field["type"])
        yield from every_enum(schema.get("items"))


def zero(schema: Schema) -> Any:
    """The smallest value of a type: the empty text, 0, the first symbol, null where it may be null."""
    if isinstance(schema, list):
        return None if "null" in schema else zero(schema[0])
    kind = schema["type"] if isinstance(schema, dict) else schema
    logical_type = schema.get("logicalType") if isinstance(schema, dict) else None
    if kind == "record":
        return {field["name"]: zero(field["type"]) for field in schema["fields"]}
    if kind == "enum":
        return schema["symbols"][0]
    if logical_type is not None and logical_type != "uuid":
        return {"timestamp-micros": AT, "date": AT.date(), "decimal": Decimal(0)}[logical_type]
    return {"string": "", "long": 0, "int": 0, "boolean": False, "bytes": b"", "array": []}[kind]


@pytest.mark.parametrize("name", RELEASED)
def test_contract_only_gains_fields_with_defaults_since_the_last_release(name: str) -> None:
    """Whoever wrote or reads with the released schema understands this one, and the other way round."""
    released = declaration(AVRO / "released" / f"{name}.avsc")

    assert list(breaches(released, declaration(AVRO / f"{name}.avsc"))) == []


@pytest.mark.parametrize(
    ("change", "breach"),
    [
        (lambda fields: fields.pop(1), "/event_id: removed"),
        (lambda fields: fields.insert(0, fields.pop(1)), ": fields in another order"),
        (lambda fields: fields[4].update(type="string"), "/occurred_at: another type"),
        (lambda fields: fields.append({"name": "mood", "type": "string"}), "/mood: new without a default"),
        (lambda fields: fields[3]["type"]["symbols"].pop(0), "/kind: symbols removed or in another order"),
        (lambda fields: fields[3]["type"]["symbols"].insert(0, "MOVED"), "/kind: symbols removed or in another order"),
        (lambda fields: fields[3]["type"].pop("default"), "/kind: no default symbol"),
        (lambda fields: fields[3]["type"].update(name="Kind"), "/kind: another type"),
        (lambda fields: fields[-1]["type"][1]["fields"].pop(), "/customer/known_as: removed"),
        (lambda fields: fields[8]["type"]["items"]["fields"].pop(), "/supersedes[]/changed: removed"),
    ],
)
def test_incompatible_change_is_named(change: Any, breach: str) -> None:
    """The comparison with the last release finds every kind of breach."""
    current = copy.deepcopy(contract("CustomerEvent").json)
    change(current["fields"])

    assert breach in list(breaches(contract("CustomerEvent").json, current))


def test_new_field_with_a_default_and_new_symbol_are_compatible() -> None:
    """A contract may gain fields with defaults, and symbols at the end of an enum that has a default."""
    current = copy.deepcopy(contract("Reply").json)
    current["fields"].append({"name": "mood", "type": "string", "default": ""})
    current["fields"][3]["type"]["symbols"].append("POSTPONED")

    assert list(breaches(contract("Reply").json, current)) == []


@pytest.mark.parametrize("name", NAMES)
def test_python_enums_have_the_symbols_of_the_contracts(name: str) -> None:
    """Every symbol is a member, in the order of the contract, which the numbers on the wire follow."""
    members = {
        enum.__name__: list(enum) for enum in (CustomerType, EventKind, Outcome, ReceiptPreference, TransactionKind)
    }

    for schema in every_enum(contract(name).json):
        assert schema["symbols"] == members[schema["name"]]
        assert schema["default"] in schema["symbols"]


@pytest.mark.parametrize(
    ("name", "field", "symbol"),
    [
        ("CustomerEvent", "kind", "MERGED"),
        ("Reply", "outcome", "POSTPONED"),
        ("RetailTransaction", "kind", "QUOTATION"),
    ],
)
def test_symbol_of_a_later_release_is_read_as_the_default(name: str, field: str, symbol: str) -> None:
    """A record with a symbol that this release does not know can be read."""
    later = copy.deepcopy(contract(name).json)
    (enum,) = [each["type"] for each in later["fields"] if each["name"] == field]
    enum["symbols"].append(symbol)
    writer = avro_schema(later)
    record = zero(later) | {field: symbol}

    body = encode(writer, record, header=b"")

    assert decode_body(body, writer, contract(name))[field] == "UNKNOWN"


def test_every_released_contract_is_known() -> None:
    """The catalogue in the code names each file of the last release."""
    assert sorted(RELEASED_CONTRACTS) == RELEASED


@pytest.mark.parametrize("name", RELEASED)
def test_values_of_the_last_release_can_be_read_offline(name: str) -> None:
    """Outboxes and databases hold values of the last release; reading them needs no broker."""
    released = avro_schema(declaration(AVRO / "released" / f"{name}.avsc"))
    value = encode(released, zero(released.json))

    assert WriterSchemas().decode(value, contract(name)).keys() == zero(contract(name).json).keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_doc(name: str) -> None:
    """A reader of the schema alone learns what each field means."""
    undocumented = [field["name"] for field in every_field(contract(name).json) if not field.get("doc")]

    assert undocumented == []


@pytest.mark.parametrize("name", NAMES)
def test_first_field_is_the_record_key(name: str) -> None:
    """It proves where each record of a batch ends."""
    (key,) = {topic.key for topic in ALL if topic.value == name}
    assert contract(name).key_field == key


def test_every_topic_is_among_all() -> None:
    """`tenten topics apply` creates those in `ALL` only."""
    declared = {value.name for value in vars(topics).values() if isinstance(value, Topic)}
    assert declared == {topic.name for topic in ALL}


def test_event_and_snapshot_hold_the_same_customer() -> None:
    """The files are whole each, so that a tool needs only one; what they share is the same."""
    (in_event,) = [part for part in contract("CustomerEvent").json["fields"][-1]["type"] if part != "null"]

    assert in_event == contract("Customer").json["fields"][-1]["type"]


def test_customer_comes_last_in_event_and_snapshot() -> None:
    """The snapshot of a new customer ends with the event's own bytes, which rests on this order."""
    assert [contract(name).json["fields"][-1]["name"] for name in ("CustomerEvent", "Customer")] == ["customer"] * 2


@pytest.mark.parametrize("name", NAMES)
def test_columnar_reader_takes_the_contract(name: str) -> None:
    """Every field is of a kind that a batch can be decoded to columns with."""
    columns = empty_frame(contract(name)).columns

    assert columns == [*(field["name"] for field in contract(name).json["fields"]), "row", "exact"]


def test_every_avro_topic_names_a_contract() -> None:
    """The catalogue of topics and the contracts belong together."""
    avro_topics = {topic.name: topic.value for topic in ALL if topic.value in NAMES}

    assert avro_topics == {
        "async-customers": "CustomerEvent",
        "customers": "Customer",
        "channel-replies": "Reply",
        "retail-transactions": "RetailTransaction",
        "transaction-replies": "TransactionReply",
        "channel-status": "Heartbeat",
        "channel-settings": "ChannelSettings",
        "joins": "JoinRequest",
        "headquarters-status": "TopicStatus",
        "erasures": "Erasure",
    }
    assert {schema.name for schema in contracts()} == set(NAMES)
