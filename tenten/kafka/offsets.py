"""The first and last offsets of a topic's partitions."""

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
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
