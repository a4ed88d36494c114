"""The snapshot of a new customer reuses the event's bytes, but only where that is proved correct."""

from datetime import UTC, datetime
from unittest.mock import patch

import polars as pl
import pytest

from tenten.avro.batches import decode_batch
from tenten.avro.columns import encode_columns
from tenten.avro.primitives import text_bytes, zigzag
from tenten.avro.wire import WriterSchemas, confluent_header, contract, contracts, encode
from tenten.consumers.headquarters.customers import outputs
from tenten.consumers.headquarters.customers.outputs import created_outputs
from tenten.schemas.messages import Contact, CustomerEvent, CustomerState, EventKind, customer_from_avro, to_avro

EVENT = contract("CustomerEvent")
CUSTOMER = contract("Customer")
HEADERS = {schema.name: schema.header for schema in contracts()}
GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
STATE = CustomerState(
    legal_entity="usrt",
    first_name="Zoë",
    last_name="Müller",
    contacts=(Contact(contact_id=GUID, kind="EMAIL", value="zoe@example.com"),),
)


def event(changed: tuple[str, ...], operator: str | None = None) -> CustomerEvent:
    """A create that names these paths, by this operator."""
    return CustomerEvent(
        customer_id=GUID,
        event_id=GUID,
        channel_id="houston",
        kind=EventKind.CREATED,
        occurred_at=NOW,
        operator=operator,
        changed=changed,
        customer=STATE,
    )


def snapshot_of(value: bytes) -> bytes | None:
    """The snapshot that headquarters sends for a batch of this event alone."""
    writers = WriterSchemas(by_id=lambda _: EVENT.json)
    decoded = decode_batch(EVENT, [GUID.encode()], [value], writers, len(value))
    assert decoded.unreadable == ()
    created = decoded.frame.with_columns(
        pl.lit("C-1").alias("account_number"),
        pl.lit(1, dtype=pl.Int64).alias("version"),
        pl.lit(NOW, dtype=pl.Datetime("us", "UTC")).alias("updated_at"),
        pl.lit(2, dtype=pl.Int32).alias("input_partition"),
        pl.lit(7, dtype=pl.Int64).alias("input_offset"),
    )
    (sent,) = created_outputs(created, [value], HEADERS).snapshots
    return sent.value


def overlong(number: int) -> bytes:
    """The same varint in one byte more than necessary."""
    shortest = zigzag(number)
    return shortest[:-1] + bytes([shortest[-1] | 0x80, 0])


@pytest.mark.parametrize("changed", [(), ("first_name",), ("first_name", f"contacts/{GUID}", "attributes/" + "x" * 80)])
@pytest.mark.parametrize("operator", [None, "", "Zoë", "x" * 63, "x" * 64, "é" * 64])
@pytest.mark.parametrize("header", [EVENT.header, confluent_header(7)])
def test_snapshot_of_a_new_customer_equals_the_customer_of_the_event(
    changed: tuple[str, ...], operator: str | None, header: bytes
) -> None:
    """For any paths and operator and either framing, the customer is unchanged."""
    value = encode(EVENT, to_avro(event(changed, operator)), header)

    sent = snapshot_of(value)

    assert sent is not None
    assert customer_from_avro(WriterSchemas().decode(sent, CUSTOMER)).customer == STATE
    assert value.endswith(sent[-40:])


@pytest.mark.parametrize("operator", [None, "", "Zoë", "x" * 64])
def test_snapshot_of_a_new_customer_reuses_the_bytes_of_the_event(operator: str | None) -> None:
    """The customer of an event in the shortest encoding is not encoded again."""
    value = encode(EVENT, to_avro(event(("first_name", f"contacts/{GUID}"), operator)))

    with patch.object(outputs, "encode_columns", wraps=encode_columns) as encoding:
        sent = snapshot_of(value)

    (reused,) = encoding.call_args_list[0].kwargs["encoded"]["customer"]
    assert value.endswith(reused)
    assert sent is not None
    assert sent.endswith(reused)


MICROS = int(NOW.timestamp() * 1_000_000)
PARTS = {
    "customer_id": text_bytes(GUID),
    "event_id": text_bytes(GUID),
    "channel_id": text_bytes("houston"),
    "kind": b"\x00",
    "occurred_at": zigzag(MICROS),
    "has_operator": b"\x02",
    "operator": text_bytes("Zoë"),
    "based_on_version": b"\x00",
    "paths": b"\x02",
    "path": text_bytes("first_name"),
    "ends": b"\x00\x00\x02",
}
"""The fields of an event before its customer, in their shortest encoding."""


@pytest.mark.parametrize(
    ("part", "encoding"),
    [
        ("customer_id", overlong(36) + GUID.encode()),
        ("event_id", overlong(36) + GUID.encode()),
        ("channel_id", overlong(7) + b"houston"),
        ("kind", overlong(0)),
        ("occurred_at", overlong(MICROS)),
        ("has_operator", overlong(1)),
        ("operator", overlong(4) + "Zoë".encode()),
        ("based_on_version", overlong(0)),
        ("paths", overlong(1)),
        ("paths", zigzag(-1) + zigzag(11)),
        ("path", overlong(10) + b"first_name"),
        ("ends", overlong(0) + b"\x00\x02"),
        ("ends", b"\x00" + overlong(0) + b"\x02"),
        ("ends", b"\x00\x00" + overlong(1)),
    ],
)
def test_snapshot_is_correct_when_the_writer_uses_longer_encodings(part: str, encoding: bytes) -> None:
    """Avro allows longer encodings of the same values: then no bytes are reused, and the customer is unchanged."""
    shortest = encode(EVENT, to_avro(event(("first_name",), "Zoë")))
    front = EVENT.header + b"".join(PARTS.values())
    assert shortest.startswith(front)
    value = EVENT.header + b"".join((PARTS | {part: encoding}).values()) + shortest[len(front) :]

    sent = snapshot_of(value)

    assert sent is not None
    assert customer_from_avro(WriterSchemas().decode(sent, CUSTOMER)).customer == STATE
