"""The topic, partition and offset of every record of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import Message

from tenten.kafka.records import record_position


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPositions:
    """The record positions of a batch: partition and offset by row."""

    topic: str
    partitions: Sequence[int]
    offsets: Sequence[int]


def record_positions(topic: str, messages: Sequence[Message]) -> RecordPositions:
    """The record positions of these messages, in their order."""
    positions = [record_position(message) for message in messages]
    return RecordPositions(
        topic=topic, partitions=[partition for partition, _ in positions], offsets=[offset for _, offset in positions]
    )
