"""Read parts of topics once, for a limited time. Never joins a group, and commits nothing."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tenten.kafka.client_config import consumer_configuration
from tenten.kafka.client_errors import refusal_of
from tenten.kafka.client_waits import wait_for_leaders
from tenten.kafka.offsets import Partition
from tenten.kafka.records import record_position
from tenten.runtime.settings import Settings

_RECORDS = 1_000
_WAIT_SECONDS = 0.1


def read_parts(
    settings: Settings, parts: Mapping[Partition, tuple[int, int | None]], seconds_max: float
) -> Iterator[Message]:
    """The committed records of each part, from its first offset to before its end (None: the end of the partition).

    Raises: `KafkaRefused`; `KafkaException`, also if that takes longer than `seconds_max`.
    """
    own = {
        "group.id": settings.reader_group(),
        "auto.offset.reset": "earliest",
        # Only the end of a partition has an offset past the control markers.
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
    }
    left = {part: end for part, (start, end) in parts.items() if end is None or start < end}
    if not left:
        return
    until = time.monotonic() + seconds_max
    consumer = Consumer(consumer_configuration(settings, **own))
    try:
        wait_for_leaders(consumer, {topic for topic, _ in left})
        consumer.assign([TopicPartition(*part, parts[part][0] or OFFSET_BEGINNING) for part in left])
        while left and time.monotonic() < until:
            for message in consumer.consume(_RECORDS, _WAIT_SECONDS):
                part, offset, is_end = _place(message)
                end = left.get(part)
                if not is_end and part in left and (end is None or offset < end):
                    yield message
                if is_end or (end is not None and offset >= end - 1):
                    left.pop(part, None)
    finally:
        consumer.close()
    if left:
        raise KafkaException(f"no answer within {seconds_max} s")


def count_records(
    settings: Settings, parts: Mapping[Partition, tuple[int, int]], seconds_max: float
) -> dict[Partition, int]:
    """The number of committed records in each part, without control markers and gaps. Raises: as `read_parts`."""
    counts: Counter[Partition] = Counter()
    for message in read_parts(settings, {part: (start, end) for part, (start, end) in parts.items()}, seconds_max):
        counts[_place(message)[0]] += 1
    return {part: counts[part] for part in parts}


def _place(message: Message) -> tuple[Partition, int, bool]:
    """The partition and offset of a record, or of the end of a partition. Raises: `KafkaRefused`, `KafkaException`."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        failure = KafkaException(error)
        raise refusal_of(failure, message.topic() or "") or failure
    partition, offset = record_position(message)
    return (message.topic() or "", partition), offset, error is not None
