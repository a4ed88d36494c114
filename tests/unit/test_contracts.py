"""The contracts hold what others build on, and only ever gain fields with defaults."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenten.avro.batches import empty_frame
from tenten.avro.wire import contract, contracts
from tenten.schemas.topics import ALL

AVRO = Path(__file__).parents[2] / "schemas" / "avro"
NAMES = ("CustomerEvent", "Customer", "Reply", "RetailTransaction")
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
        (lambda fields: fields[3]["type"]["symbols"].append("MOVED"), "/kind: another type"),
        (lambda fields: fields[-1]["type"][1]["fields"].pop(), "/customer/attributes: removed"),
        (lambda fields: fields[7]["type"]["items"]["fields"].pop(), "/supersedes[]/changed: removed"),
    ],
)
def test_incompatible_change_is_named(change: Any, breach: str) -> None:
    """The comparison with the last release finds every kind of breach."""
    current = copy.deepcopy(contract("CustomerEvent").json)
    change(current["fields"])

    assert breach in list(breaches(contract("CustomerEvent").json, current))


def test_new_field_with_a_default_is_no_breach() -> None:
    """Gaining a field with a default is how a contract may change."""
    current = copy.deepcopy(contract("Reply").json)
    current["fields"].append({"name": "mood", "type": "string", "default": ""})

    assert list(breaches(contract("Reply").json, current)) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_doc(name: str) -> None:
    """A reader of the schema alone learns what each field means."""
    undocumented = [field["name"] for field in every_field(contract(name).json) if not field.get("doc")]

    assert undocumented == []


@pytest.mark.parametrize(
    ("name", "key"), [("CustomerEvent", "customer_id"), ("Customer", "customer_id"), ("Reply", "channel_id")]
)
def test_first_field_is_the_record_key(name: str, key: str) -> None:
    """The key stands first, which is what proves where each record of a batch ends."""
    assert contract(name).key_field == key


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
    }
    assert {schema.name for schema in contracts()} == set(NAMES)
