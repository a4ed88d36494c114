"""The hash that tells a repeat from another event with the same id."""

from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given

from tenten.avro.wire import (
    WriterSchemas,
    confluent_header,
    contract,
    encode,
    header_bytes,
    reframe,
    released_contract,
    resolved_body,
)
from tenten.consumers.headquarters.content_hash import (
    NO_CONTENT,
    content_hash,
    content_hash_of,
    content_hashes,
    has_content,
)
from tenten.schemas.messages import CustomerEvent, CustomerState, EventKind, event_from_avro, to_avro
from tests.customers import valid_states
from tests.examples import examples

EVENT: Final = CustomerEvent(
    customer_id="0192f0c1-0000-7000-8000-000000000001",
    event_id="0192f0c1-1111-7000-8000-000000000001",
    channel_id="houston",
    kind=EventKind.CREATED,
    occurred_at=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
)


def created(state: CustomerState, **fields: object) -> CustomerEvent:
    """The creation of this customer."""
    return CustomerEvent(**{**{name: getattr(EVENT, name) for name in EVENT.__slots__}, "customer": state, **fields})


def framed(event: CustomerEvent) -> bytes:
    """The value of its record."""
    return encode(contract("CustomerEvent"), to_avro(event))


@given(state=valid_states())
@examples(30)
def test_same_content_has_one_hash_in_either_framing(state: CustomerState) -> None:
    """Any other content has another one."""
    value = framed(created(state))

    assert content_hash(reframe(value, confluent_header(7))) == content_hash(value)
    assert content_hash(framed(created(state, operator="Ann"))) != content_hash(value)


@given(state=valid_states())
@examples(30)
def test_content_is_recognised_where_a_writer_of_the_last_release_encoded_it(state: CustomerState) -> None:
    """Unless it has a value that the last release does not know, so that the content differs."""
    event = created(state)
    earlier = resolved_body(to_avro(event), released_contract("CustomerEvent"), contract("CustomerEvent"))
    if earlier is None:
        assert state.known_as is not None
        return
    value = released_contract("CustomerEvent").header + earlier
    writers = WriterSchemas()

    assert event_from_avro(writers.decode(value, contract("CustomerEvent"))) == event
    assert content_hash(value) != content_hash(framed(event))
    assert has_content(event, content_hash(value), writers)
    assert not has_content(created(state, operator="Ann"), content_hash(value), writers)


@pytest.mark.parametrize("value", [None, b"", b"broken"])
def test_value_without_framing_has_no_hash(value: bytes | None) -> None:
    """Headquarters cannot read it anyway."""
    assert content_hashes([value]) == [None]


def test_touches_have_no_content() -> None:
    """Headquarters sends the same touch again with another time."""
    touch = created(CustomerState(legal_entity="usrt"), kind=EventKind.TOUCHED)

    assert content_hash_of(touch, content_hash(framed(touch))) == NO_CONTENT
    assert header_bytes(framed(touch)) == len(contract("CustomerEvent").header)
