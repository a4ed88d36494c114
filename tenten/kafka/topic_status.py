"""Whether a topic is complete: headquarters says so on `headquarters-status`, for one topic id.

A topic is complete up to offsets if the records before them include every customer that headquarters had at that time.
Later customers follow in later records, so a reader that has passed these offsets, and reads on, misses nobody.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tenten.avro.wire import Unreadable, contract, encode
from tenten.kafka.client_config import REPEATABLE, REQUEST_SECONDS, consumer_configuration, producer_configuration
from tenten.kafka.client_errors import refusal_of
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.records import read_until
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.settings import Settings
from tenten.schemas.messages import TopicStatus, to_avro, topic_status_from_avro
from tenten.schemas.topics import HEADQUARTERS_STATUS, Topic

_PARTITION: Final = 0
"""The topic has one partition."""


def read_topic_status(settings: Settings, topic: Topic) -> TopicStatus | None:
    """The newest status of a topic; None without one, and for one that this release cannot read.

    Raises: `KafkaRefused`; `KafkaException` when no broker answers.
    """
    name = settings.topic(HEADQUARTERS_STATUS)
    # The client would ask for the offsets of a topic that does not exist until its timeout.
    topic_ids(settings, [name])
    starts, ends = earliest_offsets(settings, name, 1), last_stable_offsets(settings, name, 1)
    options = {"group.id": settings.reader_group(), "auto.offset.reset": "error", "enable.partition.eof": True}
    consumer = Consumer(consumer_configuration(settings, **options))
    newest: bytes | None = None
    try:
        consumer.assign([TopicPartition(name, _PARTITION, starts[_PARTITION])])
        for message in read_until(consumer, starts, ends):
            if message.key() == topic.name.encode():
                newest = message.value()
    finally:
        consumer.close()
    if newest is None:
        return None
    try:
        return topic_status_from_avro(writer_schemas(settings).decode(newest, contract("TopicStatus")))
    except Unreadable:
        return None


def is_complete(settings: Settings, topic: Topic, topic_id: str, read_to: Mapping[int, int]) -> bool:
    """Whether a reader that has read this topic up to these offsets has seen every customer of headquarters.

    Raises: as `read_topic_status`.
    """
    status = read_topic_status(settings, topic)
    if status is None or status.topic_id != topic_id or len(status.complete_offsets) != len(read_to):
        return False
    return all(read_to.get(partition, -1) >= offset for partition, offset in enumerate(status.complete_offsets))


def declare_complete(settings: Settings, topic: Topic, topic_id: str, offsets: Mapping[int, int]) -> None:
    """Write that the topic with this id is complete up to these offsets. Waits for the acknowledgement.

    Raises: `KafkaRefused`; `KafkaException`.
    """
    status = TopicStatus(
        topic=topic.name,
        topic_id=topic_id,
        complete_offsets=tuple(offsets[partition] for partition in sorted(offsets)),
        since=datetime.now(UTC),
    )
    header = publish_schemas(settings)["TopicStatus"]
    _write(settings, topic, encode(contract("TopicStatus"), to_avro(status), header))


def declare_incomplete(settings: Settings, topic: Topic) -> None:
    """Withdraw what was declared about this topic. Idempotent. Raises: as `declare_complete`."""
    _write(settings, topic, None)


def _write(settings: Settings, topic: Topic, value: bytes | None) -> None:
    name = settings.topic(HEADQUARTERS_STATUS)
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(producer_configuration(settings, **REPEATABLE))
    producer.produce(name, value, topic.name, on_delivery=delivered)
    if producer.flush(REQUEST_SECONDS):
        raise KafkaException(f"no answer within {REQUEST_SECONDS} s")
    for failure in failures:
        raise refusal_of(KafkaException(failure), name) or KafkaException(failure)
