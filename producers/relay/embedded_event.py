"""Find the customer event inside a transaction without decoding the transaction, which would cost ten times as much."""

from typing import Final, NamedTuple

from tenten.avro.wire import header_bytes

LEADING_FIELDS: Final = (
    ("channel_id", "transaction_id"),
    ("kind", "occurred_at", "business_date"),
    ("legal_entity",),
    ("customer_id", "customer_event_id", "customer_event"),
)
"""The first fields of every transaction: texts, numbers, a text, and texts or bytes that may be null."""


class EmbeddedEvent(NamedTuple):
    """A customer event inside a transaction."""

    customer_id: bytes
    """The key of the event's record."""
    value: bytes
    """Framed."""


def embedded_event(payload: bytes) -> EmbeddedEvent | None:
    """The customer event inside a framed transaction; None if it has none."""
    at = header_bytes(payload)
    for _ in LEADING_FIELDS[0]:
        at = _end_of_data(payload, at)
    for _ in LEADING_FIELDS[1]:
        _, at = _number(payload, at)
    for _ in LEADING_FIELDS[2]:
        at = _end_of_data(payload, at)
    customer_id, at = _nullable(payload, at)
    _, at = _nullable(payload, at)
    value, at = _nullable(payload, at)
    return None if customer_id is None or value is None else EmbeddedEvent(customer_id, value)


def _number(payload: bytes, at: int) -> tuple[int, int]:
    """An Avro int or long, and where it ends."""
    number = shift = 0
    while True:
        byte = payload[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7


def _end_of_data(payload: bytes, at: int) -> int:
    """Where an Avro text, or bytes, end."""
    length, at = _number(payload, at)
    return at + length


def _nullable(payload: bytes, at: int) -> tuple[bytes | None, int]:
    """An Avro text, or bytes, that may be null (the first type of the union), and where it ends."""
    branch, at = _number(payload, at)
    if branch == 0:
        return None, at
    length, at = _number(payload, at)
    return payload[at : at + length], at + length
