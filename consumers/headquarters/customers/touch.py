"""Touch customers: the worker that owns the partition publishes the current snapshot of each."""

from collections.abc import Iterable
from datetime import UTC, datetime

import uuid_utils
from confluent_kafka import KafkaException, Producer

from tenten.avro.wire import contract, encode
from tenten.kafka.client_config import REQUEST_SECONDS, producer_configuration
from tenten.kafka.records import Headers, produce
from tenten.kafka.schema_registry import publish_schemas
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS, CustomerEvent, EventKind, to_avro
from tenten.schemas.topics import ASYNC_CUSTOMERS


def touch(settings: Settings, ids: Iterable[str]) -> None:
    """Send a touch event for each of these customers. Waits for the acknowledgements; raises: `KafkaException`."""
    header = publish_schemas(settings)["CustomerEvent"]
    producer = Producer(producer_configuration(settings))
    for customer_id in ids:
        event = CustomerEvent(
            customer_id=customer_id,
            event_id=str(uuid_utils.uuid7()),
            channel_id=HEADQUARTERS,
            kind=EventKind.TOUCHED,
            occurred_at=datetime.now(UTC),
        )
        value = encode(contract("CustomerEvent"), to_avro(event), header)
        headers: Headers = [("id", event.event_id), ("type", "CustomerTouched")]
        produce(producer, settings.topic(ASYNC_CUSTOMERS), customer_id, value, headers=headers)
    if producer.flush(REQUEST_SECONDS):
        raise KafkaException(f"no answer within {REQUEST_SECONDS} s: verify again")
