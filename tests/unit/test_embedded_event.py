"""Finding the customer event inside a transaction without decoding the transaction."""

from datetime import UTC
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.wire import contract, encode, reframe, released_contract
from tenten.producers.relay.embedded_event import LEADING_FIELDS, EmbeddedEvent, embedded_event
from tenten.schemas.messages import RetailTransaction, TransactionKind, to_avro
from tests.examples import examples

GUIDS = st.uuids().map(str)


@examples(200)
@given(
    st.fixed_dictionaries(
        {
            "channel_id": st.text(max_size=300),
            "kind": st.sampled_from(TransactionKind),
            "occurred_at": st.datetimes(timezones=st.just(UTC)),
            "business_date": st.dates(),
            "legal_entity": st.text(max_size=300),
            "customer_id": st.none() | GUIDS,
            "customer_event_id": st.none() | GUIDS,
            "customer_event": st.none() | st.binary(max_size=2_000),
        }
    )
)
def test_event_is_found_in_every_transaction(leading: dict[str, Any]) -> None:
    """Whatever the fields before it are, and in either framing."""
    transaction = RetailTransaction(**leading, transaction_id=str(UUID(int=1)), currency="USD", total=Decimal(1))
    payload = encode(contract("RetailTransaction"), to_avro(transaction))
    customer_id, event = leading["customer_id"], leading["customer_event"]
    expected = None if customer_id is None or event is None else EmbeddedEvent(customer_id.encode(), event)
    assert embedded_event(payload) == expected
    assert embedded_event(reframe(payload, b"\0\0\0\0\7")) == expected


def test_every_schema_begins_with_the_fields_that_are_read() -> None:
    """Those of this release and of the last one: payloads of both are in outboxes."""
    texts, numbers, entity, nullable = LEADING_FIELDS
    expected = [*texts, *numbers, *entity, *nullable]
    for schema in (contract("RetailTransaction"), released_contract("RetailTransaction")):
        fields = schema.json["fields"][: len(expected)]
        assert [field["name"] for field in fields] == expected
        assert [field["type"][0] for field in fields if field["name"] in nullable] == ["null"] * len(nullable)
