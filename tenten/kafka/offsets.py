"""The first and last offsets of a topic's partitions, and those that a consumer group has committed."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from tenten.kafka.client_config import REQUEST_SECONDS, consumer_configuration
from tenten.kafka.client_errors import ErrorListener, call_kafka
from tenten.kafka.topics_admin import ask
from tenten.runtime.settings import Settings

Partition: TypeAlias = tuple[str, int]
"""A topic with prefix, and the number of one of its partitions."""


def last_stable_offsets(settings: Settings, topic: str, partitions: int) -> dict[int, int]:
    """The last stable offset of each partition of a topic (name with prefix): the end for readers of committed
    records.
    """
    return _of_topic(end_offsets(settings, _parts(topic, partitions)))


def earliest_offsets(settings: Settings, topic: str, partitions: int) -> dict[int, int]:
    """The first readable offset of each partition of a topic (name with prefix)."""
    return _of_topic(begin_offsets(settings, _parts(topic, partitions)))


def end_offsets(settings: Settings, parts: Sequence[Partition]) -> dict[Partition, int]:
    """As `last_stable_offsets`, for partitions of existing topics. One request to each broker.

    Raises: `KafkaRefused`; `KafkaException`, also while a partition has no leader.
    """
    return _offsets(settings, parts, OffsetSpec.latest())  # type: ignore[no-untyped-call]  # its stubs lack it


def begin_offsets(settings: Settings, parts: Sequence[Partition]) -> dict[Partition, int]:
    """As `earliest_offsets`, for partitions of existing topics. One request to each broker.

    Raises: as `end_offsets`.
    """
    return _offsets(settings, parts, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # as above


def _parts(topic: str, partitions: int) -> list[Partition]:
    return [(topic, partition) for partition in range(partitions)]


def _of_topic(offsets: Mapping[Partition, int]) -> dict[int, int]:
    return {partition: offset for (_, partition), offset in offsets.items()}


def _offsets(settings: Settings, parts: Sequence[Partition], which: OffsetSpec) -> dict[Partition, int]:
    if not parts:
        return {}
    asked = {TopicPartition(*part): which for part in parts}
    answers = ask(
        settings,
        lambda admin: admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=REQUEST_SECONDS
        ),
    )
    try:
        return {(at.topic, at.partition): call_kafka(future.result, at.topic).offset for at, future in answers.items()}
    except KafkaException as error:
        # The client's answer while no partition has a leader, as after a broker was frozen.
        if _code_of(error) == KafkaError._NOENT:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)) from error
        raise


def _code_of(error: KafkaException) -> int | None:
    """The code of the client's error; None for our own exceptions."""
    carried = error.args[0] if error.args else None
    return carried.code() if isinstance(carried, KafkaError) else None


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
