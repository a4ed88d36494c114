"""Records of Kafka: headers and positions of delivered ones, reading up to an offset, and queueing new ones."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from threading import Event
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from tenten.kafka.client_config import REQUEST_SECONDS

Headers = list[tuple[str, str | bytes | None]]
"""Record headers, as the client takes them."""

_QUEUE_FULL_POLL_SECONDS: Final = 0.05


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """The headers of a delivered record, in order; a name may occur more than once."""
    headers: Any = message.headers() or []
    return list(headers)


def record_position(message: Message) -> tuple[int, int]:
    """Partition and offset of a delivered record."""
    partition, offset = message.partition(), message.offset()
    # Every delivered record has both.
    assert partition is not None
    assert offset is not None
    return partition, offset


def read_until(
    consumer: Consumer, next_offsets: MutableMapping[int, int], ends: Mapping[int, int]
) -> Iterator[Message]:
    """Yield every record from `next_offsets` to before `ends`, by partition. Advances `next_offsets`.

    Control markers and gaps are skipped. The consumer is assigned there and has `enable.partition.eof`.
    Raises: `KafkaException` when no broker answers, or a record was deleted.
    """
    while any(next_offsets[partition] < end for partition, end in ends.items()):
        message = consumer.poll(REQUEST_SECONDS)
        if message is None:
            raise KafkaException(f"no answer within {REQUEST_SECONDS} s")
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        partition, offset = record_position(message)
        if error is None and offset < ends[partition]:
            yield message
        next_offsets[partition] = offset if error is not None else offset + 1


def produce(
    producer: Producer,
    topic: str,
    key: str | bytes | None,
    value: str | bytes | None,
    *,
    headers: Headers | None = None,
    timestamp_ms: int = 0,
    on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
    stop: Event | None = None,
) -> bool:
    """Queue one record; while the producer's queue is full, serve its callbacks and wait.

    False when `stop` was set before there was room. `timestamp_ms` 0 is the current time.
    Raises: `KafkaException` for a record that cannot be queued.
    """
    while True:
        try:
            producer.produce(topic, value, key, headers=headers or [], timestamp=timestamp_ms, on_delivery=on_delivery)
        except BufferError:
            if stop is not None and stop.is_set():
                return False
            producer.poll(_QUEUE_FULL_POLL_SECONDS)
        else:
            return True
