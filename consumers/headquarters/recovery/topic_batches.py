"""Reads a whole topic, all partitions together, in batches."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from tenten.kafka.client_config import consumer_configuration
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.records import read_until
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.settings import Settings
from tenten.schemas.topics import Topic

BATCH_RECORDS: Final = 2_000

_QUEUE: Final = {
    "queued.max.messages.kbytes": 8_192,
    "queued.min.messages": 2 * BATCH_RECORDS,
    "fetch.max.bytes": 4 * 1024 * 1024,
    "fetch.message.max.bytes": 512 * 1024,
}
"""The database is slower than the broker: what is fetched ahead only waits, and takes memory."""

Progress = Callable[[str, int, int], None]
"""Called with the source that is read, the number of offsets read, and the total."""


def topic_batches(settings: Settings, topic: Topic, progress: Progress) -> Iterator[list[Message]]:
    """The records of a topic up to its current end, in the order of each partition.

    Raises: `KafkaRefused`; `KafkaException` when no broker answers.
    """
    name = settings.topic(topic)
    partitions = topic_ids(settings, [name])[name].partitions
    starts, ends = earliest_offsets(settings, name, partitions), last_stable_offsets(settings, name, partitions)
    yield from records_between(settings, name, starts, ends, progress)


def records_between(
    settings: Settings,
    name: str,
    starts: Mapping[int, int],
    ends: Mapping[int, int],
    progress: Progress,
) -> Iterator[list[Message]]:
    """The records between these offsets of a topic (name with prefix).

    Raises: `KafkaException` when no broker answers.
    """
    source, first = name.removeprefix(settings.prefix), sum(starts.values())
    total = sum(ends.values()) - first
    options = {
        "group.id": settings.reader_group(),
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        **_QUEUE,
    }
    consumer = Consumer(consumer_configuration(settings, **options))
    batch: list[Message] = []
    position = dict(starts)
    try:
        consumer.assign([TopicPartition(name, partition, start) for partition, start in starts.items()])
        progress(source, 0, total)
        for message in read_until(consumer, position, ends):
            batch.append(message)
            if len(batch) == BATCH_RECORDS:
                yield batch
                batch = []
                progress(source, sum(position.values()) - first, total)
        if batch:
            yield batch
        progress(source, total, total)
    finally:
        consumer.close()
