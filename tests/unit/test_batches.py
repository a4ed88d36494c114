"""Decoding batches in columns: valid records arrive unchanged, and exactly the invalid ones are unreadable."""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.batches import LOOK_UPS_MAX, decode_batch
from tenten.avro.primitives import text_bytes, zigzag
from tenten.avro.wire import (
    SINGLE_OBJECT_MAGIC,
    AvroSchema,
    WriterSchemas,
    avro_schema,
    confluent_header,
    contract,
    encode,
)
from tenten.schemas.messages import (
    Address,
    Attribute,
    Contact,
    CustomerEvent,
    CustomerState,
    EventKind,
    SupersededEvent,
    canonical,
    event_from_avro,
    to_avro,
)
from tests.examples import examples

EVENT = contract("CustomerEvent")
BYTES_MAX = 64 * 1024

guids = st.uuids().map(str)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
times = st.datetimes(datetime(1901, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- made aware by `timezones`
decimals = st.decimals(-(10**15), 10**15, places=6)
addresses = st.builds(Address, address_id=guids, street=texts, city=texts, country=texts, updated_at=times)
contacts = st.builds(Contact, contact_id=guids, kind=texts, value=texts, marketing_consent=st.booleans())
attributes = st.builds(Attribute, name=texts, text=st.none() | texts, decimal=st.none() | decimals)
states = st.builds(
    CustomerState,
    legal_entity=texts,
    first_name=texts,
    primary_address=st.none() | guids,
    address_books=st.lists(texts, max_size=2).map(tuple),
    addresses=st.lists(addresses, max_size=2).map(tuple),
    contacts=st.lists(contacts, max_size=2).map(tuple),
    attributes=st.lists(attributes, max_size=2).map(tuple),
).map(canonical)
superseded = st.builds(SupersededEvent, event_id=guids, changed=st.lists(texts, max_size=2).map(tuple))
events = st.builds(
    CustomerEvent,
    customer_id=guids,
    event_id=guids,
    channel_id=texts,
    kind=st.sampled_from([kind for kind in EventKind if kind is not EventKind.UNKNOWN]),
    occurred_at=times,
    operator=st.none() | texts,
    based_on_version=st.integers(0, 2**40),
    changed=st.lists(texts, max_size=3).map(tuple),
    supersedes=st.lists(superseded, max_size=2).map(tuple),
    customer=st.none() | states,
)


def ordinary_event(number: int) -> CustomerEvent:
    """A valid event whose ids contain the number."""
    return CustomerEvent(
        customer_id=f"0197a3f2-8a41-7c3e-9d55-{number:012x}",
        event_id=f"0197a3f2-8a41-7c3e-9d56-{number:012x}",
        channel_id="houston",
        kind=EventKind.CREATED,
        occurred_at=datetime(2026, 3, 1, tzinfo=UTC),
        changed=("first_name",),
        customer=CustomerState(legal_entity="usrt", first_name="Ada"),
    )


def keys_of(given: Sequence[CustomerEvent]) -> list[bytes | None]:
    """The record keys of events."""
    return [event.customer_id.encode() for event in given]


@given(st.lists(events, min_size=1, max_size=8))
def test_valid_records_are_decoded_unchanged(given: list[CustomerEvent]) -> None:
    """Events encoded one by one and decoded in columns are the same events."""
    values = [encode(EVENT, to_avro(event)) for event in given]

    decoded = decode_batch(EVENT, keys_of(given), values, WriterSchemas(), BYTES_MAX)

    assert decoded.unreadable == ()
    assert [event_from_avro(row) for row in decoded.frame.iter_rows(named=True)] == given
    assert decoded.frame["exact"].all()


def damaged(value: bytes, damage: str, event: CustomerEvent) -> bytes | None:
    """The value of this event with one kind of damage."""
    body = value[len(EVENT.header) :]
    record = to_avro(event)
    return {
        "null": None,
        "empty": b"",
        "not Avro": b"{}" + value,
        "header only": EVENT.header,
        "truncated": value[:-1],
        "half": value[: len(value) // 2],
        "longer": value + b"\x00",
        "two in one": value + body,
        "unknown schema": b"\xc3\x01" + bytes(8) + body,
        "unknown registry id": confluent_header(9) + body,
        "too large": value + bytes(BYTES_MAX),
        "another key": encode(EVENT, record | {"customer_id": "0197a3f2-8a41-7c3e-9d55-ffffffffffff"}),
        "not a GUID": encode(EVENT, record | {"event_id": "7"}),
        "upper case GUID": encode(EVENT, record | {"event_id": event.event_id.upper()}),
        "NUL": encode(EVENT, record | {"channel_id": "hou\x00ston"}),
        "year 300000": value.replace(zigzag(1_772_323_200_000_000), zigzag(2**63 - 1)),
        "later kind": value.replace(text_bytes("houston") + b"\x00", text_bytes("houston") + b"\x08"),
        "invalid kind": value.replace(text_bytes("houston") + b"\x00", text_bytes("houston") + b"\x40"),
        "bad UTF-8": value.replace(b"Ada", b"\xff\xfe\xfd"),
        "huge length": value.replace(text_bytes("Ada"), zigzag(2**60) + b"Ada"),
        "negative length": value.replace(text_bytes("Ada"), zigzag(-5) + b"Ada"),
        "huge count": value[:-1] + zigzag(2**60),
    }[damage]


REASONS = {
    "null": "null_value",
    "empty": "no_avro",
    "not Avro": "no_avro",
    "header only": "malformed",
    "truncated": "malformed",
    "half": "malformed",
    "longer": "malformed",
    "two in one": "malformed",
    "unknown schema": "unknown_schema",
    "unknown registry id": "unknown_schema",
    "too large": "too_large",
    "another key": "key_mismatch",
    "not a GUID": "malformed",
    "upper case GUID": "malformed",
    "NUL": "malformed",
    "year 300000": "malformed",
    "later kind": "unknown_kind",
    "invalid kind": "malformed",
    "bad UTF-8": "malformed",
    "huge length": "malformed",
    "negative length": "malformed",
    "huge count": "malformed",
}


@pytest.mark.parametrize(("damage", "reason"), REASONS.items())
@pytest.mark.parametrize("damaged_row", [0, 2, 4])
def test_only_the_damaged_record_is_unreadable(damage: str, reason: str, damaged_row: int) -> None:
    """A damaged first, middle or last record is reported with its reason; the other records are decoded unchanged."""
    given = [ordinary_event(number) for number in range(5)]
    values: list[bytes | None] = [encode(EVENT, to_avro(event)) for event in given]
    values[damaged_row] = damaged(values[damaged_row] or b"", damage, given[damaged_row])

    decoded = decode_batch(EVENT, keys_of(given), values, WriterSchemas(), BYTES_MAX)

    assert [(bad.row, bad.reason) for bad in decoded.unreadable] == [(damaged_row, reason)]
    others = [event for event in given if event is not given[damaged_row]]
    assert [event_from_avro(row) for row in decoded.frame.iter_rows(named=True)] == others
    assert decoded.frame["row"].to_list() == [row for row in range(5) if row != damaged_row]


@given(st.lists(st.binary(max_size=60) | st.just(None), max_size=6), st.integers(0, 6), st.booleans())
@examples(300)
def test_garbage_does_not_affect_a_valid_record(garbage: list[bytes | None], position: int, framed: bool) -> None:
    """A valid record among random bytes, with or without a valid header, is decoded unchanged."""
    valid = ordinary_event(1)
    values = [EVENT.header + value if framed and value is not None else value for value in garbage]
    keys: list[bytes | None] = [valid.customer_id.encode() for _ in values]
    row = min(position, len(values))
    values.insert(row, encode(EVENT, to_avro(valid)))
    keys.insert(row, valid.customer_id.encode())

    decoded = decode_batch(EVENT, keys, values, WriterSchemas(), BYTES_MAX)

    assert [event_from_avro(row) for row in decoded.frame.iter_rows(named=True)] == [valid]
    assert len(decoded.unreadable) == len(garbage)


def another_release() -> AvroSchema:
    """The contract of a later release, with a new field and without one of the current fields."""
    declaration: dict[str, Any] = copy.deepcopy(EVENT.json)
    declaration["fields"].append({"name": "mood", "type": "string", "default": "calm"})
    declaration["fields"] = [field for field in declaration["fields"] if field["name"] != "based_on_version"]
    return avro_schema(declaration)


@pytest.mark.parametrize("framing", ["single object", "confluent"])
def test_records_of_another_release_are_resolved(framing: str) -> None:
    """An unknown field is dropped, a field that the writer lacks has its default, in both framings."""
    other = another_release()
    given = [ordinary_event(number) for number in range(3)]
    record = {name: value for name, value in to_avro(given[1]).items() if name != "based_on_version"} | {
        "mood": "bright"
    }
    values: list[bytes | None] = [encode(EVENT, to_avro(event)) for event in given]
    values[1] = encode(other, record, other.header if framing == "single object" else confluent_header(5))
    writers = WriterSchemas(
        by_fingerprint=lambda fingerprint: other.json if fingerprint == other.fingerprint else None,
        by_id=lambda schema_id: other.json if schema_id == 5 else None,
    )

    decoded = decode_batch(EVENT, keys_of(given), values, writers, BYTES_MAX)

    assert decoded.unreadable == ()
    assert [event_from_avro(row) for row in decoded.frame.iter_rows(named=True)] == given
    assert decoded.frame["exact"].to_list() == [True, False, True]


def test_batch_looks_up_few_schemas() -> None:
    """Each look-up is a request, and anybody can write records of thousands of schemas that do not exist."""
    asked: list[bytes] = []
    writers = WriterSchemas(by_fingerprint=asked.append)
    event = ordinary_event(0)
    body = encode(EVENT, to_avro(event), b"")
    values: list[bytes | None] = [SINGLE_OBJECT_MAGIC + number.to_bytes(8) + body for number in range(1_000)]

    decoded = decode_batch(EVENT, [event.customer_id.encode()] * len(values), values, writers, BYTES_MAX)

    assert {bad.reason for bad in decoded.unreadable} == {"unknown_schema"}
    assert (len(decoded.unreadable), len(asked)) == (1_000, LOOK_UPS_MAX)


def test_only_the_record_with_a_too_large_decimal_is_unreadable() -> None:
    """A decimal with more digits than its Avro type allows makes its record unreadable, and no other."""
    given = [ordinary_event(number) for number in range(3)]
    values: list[bytes | None] = [encode(EVENT, to_avro(event)) for event in given]
    record = to_avro(given[1])
    record["customer"]["attributes"] = [
        {"name": "size", "text": None, "integer": None, "decimal": Decimal("1.5"), "boolean": None}
    ]
    short = encode(EVENT, record)
    number = (1_500_000).to_bytes(3, "big")
    long = bytes([0x7F] * 40)
    values[1] = short.replace(zigzag(len(number)) + number, zigzag(len(long)) + long)
    assert values[1] != short

    decoded = decode_batch(EVENT, keys_of(given), values, WriterSchemas(), BYTES_MAX)

    assert [(bad.row, bad.reason) for bad in decoded.unreadable] == [(1, "malformed")]
    assert decoded.frame["row"].to_list() == [0, 2]


def test_empty_batch_is_an_empty_frame() -> None:
    """A batch without records becomes a frame with every column and no row."""
    decoded = decode_batch(EVENT, [], [], WriterSchemas(), BYTES_MAX)

    assert decoded.frame.is_empty()
    assert "customer" in decoded.frame.columns
