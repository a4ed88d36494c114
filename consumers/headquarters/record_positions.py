"""The topic, partition and offset of every record of a batch."""

from collections.abc import Mapping, Sequence
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


def is_read_again(
    positions: RecordPositions, row: int, stored_at: tuple[int | None, int | None] | None, stored_to: Mapping[int, int]
) -> bool:
    """Whether a record is the one that was stored from this partition and offset: read again after a failure, and not
    sent again. `stored_to` has the positions before the batch, where they are known.

    A record that the positions have not passed is another one: the topic was recreated, and its offsets begin again.
    """
    partition, offset = positions.partitions[row], positions.offsets[row]
    return (partition, offset) == stored_at and offset < stored_to.get(partition, offset + 1)
