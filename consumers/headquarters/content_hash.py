"""The hash of an event's content, which tells a repeat from another event with the same id.

It covers the Avro bytes behind the framing, so the same bytes are a repeat in either framing. A writer of another
release encodes the same content differently: where the hash differs, the event is compared in the other known schemas
(`has_content`), which costs nothing for the events whose hash is equal.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from tenten.avro.wire import Unreadable, WriterSchemas, contract, header_bytes, resolved_body
from tenten.schemas.messages import CustomerEvent, EventKind, to_avro

NO_CONTENT: Final = 0
"""The hash of a touch: nothing is lost with it, and headquarters repeats its own with other times."""

_HASH_BYTES: Final = 8
"""Two events with one id are compared with each other only, so a chance of 2^-64 is small enough."""


def content_hash(value: bytes) -> int:
    """The hash of a framed event that is not a touch, as a signed number of 64 bits. Raises: `Unreadable`."""
    return _hash(value[header_bytes(value) :])


def content_hashes(values: Sequence[bytes | None]) -> list[int | None]:
    """The hash of each framed event, as above; None for a value without framing."""
    return [_hash_or_none(value) for value in values]


def content_hash_of(event: CustomerEvent, value_hash: int | None) -> int | None:
    """The hash that is logged for an event, given that of its value."""
    return NO_CONTENT if event.kind is EventKind.TOUCHED else value_hash


def has_content(event: CustomerEvent, logged: int, writers: WriterSchemas) -> bool:
    """Whether the event has this hash in another schema that it may have been written with."""
    record = to_avro(event)
    bodies = (
        resolved_body(record, writer, contract("CustomerEvent")) for writer in writers.known(contract("CustomerEvent"))
    )
    return any(body is not None and _hash(body) == logged for body in bodies)


def _hash_or_none(value: bytes | None) -> int | None:
    try:
        return None if value is None else content_hash(value)
    except Unreadable:
        return None


def _hash(body: bytes) -> int:
    return int.from_bytes(blake2b(body, digest_size=_HASH_BYTES).digest(), "big", signed=True)
