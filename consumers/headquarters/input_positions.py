"""The offsets from which a restored database reads its inputs again: those of its own positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from sqlalchemy import Connection, Engine, text

from tenten.consumers.headquarters.accepted_topics import accept_topic
from tenten.consumers.headquarters.positions import Stream, create_positions, read_positions
from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.offsets import committed_offsets, earliest_offsets, last_stable_offsets
from tenten.kafka.topics_admin import TopicInfo, ask, topic_ids
from tenten.runtime.settings import Settings
from tenten.schemas.topics import Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A consumer group's input, its offsets and the positions of the database, all by partition."""

    group: str
    name: str
    topic: TopicInfo
    positions: Mapping[int, int]
    committed: Mapping[int, int]
    """Without partitions of which the group has committed nothing."""
    earliest: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def stream(self) -> Stream:
        """The owner of the positions."""
        return Stream(consumer_group=self.group, topic_id=self.topic.topic_id)

    @property
    def expired(self) -> int:
        """The number of offsets that the database has not processed and the topic does not have any more."""
        return sum(max(0, self.earliest[partition] - at) for partition, at in self.positions.items())

    @property
    def to_repeat(self) -> int:
        """The number of offsets between the database's positions and the group's offsets."""
        return sum(max(0, at - self.start(partition)) for partition, at in self.committed.items())

    def starts(self) -> dict[int, int]:
        """By partition: the position of the database, within the topic."""
        return {partition: self.start(partition) for partition in self.positions}

    def processed(self) -> dict[int, int]:
        """By partition: the offset before which the group has processed every record; not before `starts`."""
        return {
            partition: min(max(start, self.committed.get(partition, start)), self.ends[partition])
            for partition, start in self.starts().items()
        }

    def start(self, partition: int) -> int:
        """The position of the database, within the topic."""
        return min(max(self.positions[partition], self.earliest[partition]), self.ends[partition])


def read_input(settings: Settings, engine: Engine, group: str, topic: Topic) -> Input:
    """The input of a group as it is now. Creates missing positions. Raises: `KafkaRefused`, `KafkaException`."""
    name, consumer_group = settings.topic(topic), settings.group(group)
    info = topic_ids(settings, [name])[name]
    stream = Stream(consumer_group=consumer_group, topic_id=info.topic_id)
    with engine.begin() as headquarters:
        accept_topic(headquarters, name, info)
        create_positions(headquarters, stream, range(info.partitions))
        positions = read_positions(headquarters, stream)
    return Input(
        group=consumer_group,
        name=name,
        topic=info,
        positions=positions,
        committed=committed_offsets(settings, consumer_group, name, info.partitions, wait=True),
        earliest=earliest_offsets(settings, name, info.partitions),
        ends=last_stable_offsets(settings, name, info.partitions),
    )


def set_back(settings: Settings, engine: Engine, read: Input) -> None:
    """Set positions and committed offsets so that the worker reads on where the database stands. Idempotent.

    An offset that is behind its position stays: the outputs of that batch may be missing.
    """
    starts = {partition: read.start(partition) for partition in read.positions}
    with engine.begin() as headquarters:
        _set_positions(headquarters, read.stream, starts)
    offsets = [
        TopicPartition(read.name, partition, min(start, read.committed.get(partition, start)))
        for partition, start in sorted(starts.items())
    ]
    changed = ConsumerGroupTopicPartitions(read.group, offsets)
    answers = ask(
        settings, lambda admin: admin.alter_consumer_group_offsets([changed], request_timeout=REQUEST_SECONDS)
    )
    for partition in call_kafka(answers[read.group].result, read.group).topic_partitions or []:
        if partition.error is not None:
            raise KafkaException(partition.error)


def _set_positions(headquarters: Connection, stream: Stream, starts: Mapping[int, int]) -> None:
    rows = [
        {
            "consumer_group": stream.consumer_group,
            "topic_id": stream.topic_id,
            "partition": partition,
            "next_offset": start,
        }
        for partition, start in sorted(starts.items())
    ]
    headquarters.execute(_SET_POSITION, rows)


_SET_POSITION: Final = text(
    """
    UPDATE positions SET next_offset = :next_offset
    WHERE consumer_group = :consumer_group AND topic_id = :topic_id AND partition = :partition
    """
)
"""Positions before the topic's first record, or after its last, are moved into it."""
