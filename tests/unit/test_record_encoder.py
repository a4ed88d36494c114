"""The encoder of single records writes the bytes of fastavro."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.record_encoder import encode_record
from tenten.avro.wire import contract, encode
from tenten.schemas.messages import (
    Attribute,
    Customer,
    CustomerEvent,
    CustomerState,
    EventKind,
    SupersededEvent,
    to_avro,
)
from tests.customers import IDS, valid_states

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
EVENT = CustomerEvent(customer_id=IDS[0], event_id=IDS[1], channel_id="houston", kind=EventKind.CREATED, occurred_at=AT)


@given(valid_states(), st.sampled_from(EventKind), st.none() | st.text(max_size=5), st.integers(0, 2**63 - 1))
def test_event_has_the_bytes_of_fastavro(
    state: CustomerState, kind: EventKind, operator: str | None, version: int
) -> None:
    """With every field, and with none."""
    superseded = SupersededEvent(event_id=IDS[2], changed=("last_name", "contacts/x"))
    event = replace(
        EVENT,
        kind=kind,
        operator=operator,
        based_on_version=version,
        changed=("first_name",) * 200,
        supersedes=(superseded,),
        customer=state,
    )
    for each in (event, EVENT):
        assert encode_record("CustomerEvent", each) == encode(contract("CustomerEvent"), to_avro(each))


@given(valid_states())
def test_snapshot_has_the_bytes_of_fastavro(state: CustomerState) -> None:
    """Snapshots use the same types."""
    customer = Customer(customer_id=IDS[0], account_number="C-1", version=7, updated_at=AT, customer=state)
    assert encode_record("Customer", customer) == encode(contract("Customer"), to_avro(customer))


def test_decimal_with_too_many_places_is_an_error() -> None:
    """It is not rounded."""
    attribute = Attribute(name="size", decimal=Decimal("0.0000001"))
    event = replace(EVENT, customer=CustomerState(legal_entity="usrt", attributes=(attribute,)))
    with pytest.raises(ValueError, match="decimal places"):
        encode_record("CustomerEvent", event)
