"""The first and last offsets of a topic's partitions, and those that a consumer group has committed."""

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from tenten.kafka.client_config import REQUEST_SECONDS, consumer_configuration
from tenten.kafka.client_errors import ErrorListener, call_kafka
from tenten.kafka.topics_admin import ask
from tenten.runtime.settings import Settings


def last_stable_offsets(settings: Settings, topic: str, partitions: int) -> dict[int, int]:
    """The last stable offset of each partition of a topic (name with prefix): the end for readers of committed
    records.
    """
    return _offsets(settings, topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]  # its stubs lack it


def earliest_offsets(settings: Settings, topic: str, partitions: int) -> dict[int, int]:
    """The first readable offset of each partition of a topic (name with prefix)."""
    return _offsets(settings, topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # as above


def _offsets(settings: Settings, topic: str, partitions: int, which: OffsetSpec) -> dict[int, int]:
    partitions_asked = {TopicPartition(topic, partition): which for partition in range(partitions)}
    answers = ask(
        settings,
        lambda admin: admin.list_offsets(
            partitions_asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=REQUEST_SECONDS
        ),
    )
    return {asked.partition: call_kafka(future.result, topic).offset for asked, future in answers.items()}


def committed_offsets(
    settings: Settings, group: str, topic: str, partitions: int, *, wait: bool = False
) -> dict[int, int]:
    """The offsets that a group has committed in a topic (names with prefix), by partition; others are left out.

    With `wait` it waits for transactions that are still open. Raises: `KafkaRefused`, `KafkaException`.
    """
    # The administrative question for the same crashes the process while a new cluster has no coordinator of the group
    # (confluent-kafka 2.16).
    own = {"group.id": group, "isolation.level": "read_committed" if wait else "read_uncommitted"}
    errors = ErrorListener()
    consumer = Consumer(consumer_configuration(settings, **own, error_cb=errors))
    try:
        asked = [TopicPartition(topic, partition) for partition in range(partitions)]
        found = call_kafka(lambda: consumer.committed(asked, timeout=REQUEST_SECONDS), group)
    except KafkaException:
        # A missing privilege is reported only here, as an error of the client or as one instead of a record.
        message = consumer.poll(0)
        error = None if message is None else message.error()
        if error is not None:
            errors(error)
        errors.check()
        raise
    finally:
        consumer.close()
    for position in found:
        if position.error is not None:
            raise KafkaException(position.error)
    return {partition.partition: partition.offset for partition in found if partition.offset >= 0}
