"""The newest records of topics, read from a little before the end of each partition."""

from collections.abc import Iterator, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tenten.kafka.client_config import REQUEST_SECONDS, consumer_configuration
from tenten.kafka.offsets import Partition, begin_offsets, end_offsets
from tenten.kafka.records import record_position
from tenten.runtime.settings import Settings

_DEPTHS: Final = (20, 1_000, 50_000)
"""Offsets before the end: the next depth is read where the last one has only markers and aborted records."""


def newest_records(
    settings: Settings, topics: Mapping[str, int], not_before: Mapping[Partition, int]
) -> Iterator[Message]:
    """The newest committed records of each partition, oldest first; `topics` has partition counts by name with prefix.

    Records before the offsets `not_before` are left out.
    Raises: `KafkaRefused`; `KafkaException`.
    """
    places = [(topic, number) for topic, partitions in topics.items() for number in range(partitions)]
    ends = end_offsets(settings, places)
    begins = {place: max(at, not_before.get(place, 0)) for place, at in begin_offsets(settings, places).items()}
    silent = {place for place, end in ends.items() if begins[place] < end}
    if not silent:
        return
    consumer = Consumer(consumer_configuration(settings, **_options(settings)))
    try:
        for depth in _DEPTHS:
            starts = {place: max(begins[place], ends[place] - depth) for place in silent}
            for message in _read(consumer, starts, ends):
                silent.discard((message.topic() or "", record_position(message)[0]))
                yield message
            silent = {place for place in silent if starts[place] > begins[place]}
            if not silent:
                return
    finally:
        consumer.close()


def _options(settings: Settings) -> dict[str, object]:
    return {
        # It is assigned its partitions, so it never joins this group.
        "group.id": settings.reader_group(),
        "auto.offset.reset": "error",
        # Only the end of a partition has an offset past the control markers. A broker reports it after this time.
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 20,
    }


def _read(consumer: Consumer, starts: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[Message]:
    """Every record from `starts` to before `ends`. Raises: `KafkaException` when no broker answers."""
    consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in starts.items()])
    unfinished = set(starts)
    while unfinished:
        message = consumer.poll(REQUEST_SECONDS)
        if message is None:
            raise KafkaException(f"no answer within {REQUEST_SECONDS} s")
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        number, offset = record_position(message)
        place = (message.topic() or "", number)
        if place not in unfinished:
            continue
        if error is None and offset < ends[place]:
            yield message
        if error is not None or offset + 1 >= ends[place]:
            unfinished.discard(place)
