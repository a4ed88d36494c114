"""Events of headquarters itself, signed with its own key: touches and erasures.

A touch has the worker that owns the customer's partition publish its snapshot, and judge its held events.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from sqlalchemy import Engine

from tenten.avro.wire import contract, encode
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.signing import RecordSigner
from tenten.kafka.client_config import REQUEST_SECONDS, producer_configuration
from tenten.kafka.records import Headers, produce
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS, CustomerEvent, EventKind, to_avro
from tenten.schemas.topics import ASYNC_CUSTOMERS


def touch_of(customer_id: str, event_id: str) -> CustomerEvent:
    """The event that touches a customer."""
    return CustomerEvent(
        customer_id=customer_id,
        event_id=event_id,
        channel_id=HEADQUARTERS,
        kind=EventKind.TOUCHED,
        occurred_at=datetime.now(UTC),
    )


def erasure_of(customer_id: str, event_id: str, operator: str | None, occurred_at: datetime) -> CustomerEvent:
    """The event that erases a customer."""
    return CustomerEvent(
        customer_id=customer_id,
        event_id=event_id,
        channel_id=HEADQUARTERS,
        kind=EventKind.ERASED,
        operator=operator,
        occurred_at=occurred_at,
    )


def send_own_events(settings: Settings, engine: Engine, events: Iterable[CustomerEvent], header: bytes) -> None:
    """Send these events, framed with this header and signed by headquarters, and wait until the broker has all of them.

    Raises: `KafkaException` if it does not have one of them within 10 s; errors of the database.
    """
    with engine.begin() as headquarters:
        signer = RecordSigner.of_headquarters(ensure_headquarters_keys(headquarters))
    producer = Producer(producer_configuration(settings))
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            errors.append(error)

    for event in events:
        value = encode(contract("CustomerEvent"), to_avro(event), header)
        headers: Headers = [("id", event.event_id), ("type", event.kind.type_name)]
        headers += signer.headers(ASYNC_CUSTOMERS.name, event.customer_id.encode(), value)
        topic = settings.topic(ASYNC_CUSTOMERS)
        produce(producer, topic, event.customer_id, value, headers=headers, on_delivery=delivered)
    unfinished = producer.flush(REQUEST_SECONDS)
    if unfinished:
        producer.purge()
    if errors:
        raise KafkaException(errors[0])
    if unfinished:
        raise KafkaException(f"{unfinished} events were not acknowledged within {REQUEST_SECONDS} s")
