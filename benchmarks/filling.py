"""Records that appear all at once: written within an open Kafka transaction, seen by nobody until it commits.

So whoever reads the topic is started, warm and waiting at its end when the clock starts.
"""

import time
from collections.abc import Iterable
from typing import Final

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.customers import Record

_PRODUCER: Final = {
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 20,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 524_288,
    "transaction.timeout.ms": 120_000,
    "log_level": 3,
}
_SECONDS: Final = 60.0


class Filling:
    """A topic's next records, written but not released."""

    def __init__(self, bootstrap_servers: str, topic: str, records: Iterable[Record], kind: str) -> None:
        """Write the records with the headers that relays and headquarters give them."""
        servers = {"bootstrap.servers": bootstrap_servers}
        self._producer = Producer({**servers, **_PRODUCER, "transactional.id": f"filling-{topic}"})
        self._producer.init_transactions(_SECONDS)
        self._producer.begin_transaction()
        self.records = 0
        for record in records:
            headers: list[tuple[str, str | bytes | None]] = [("id", record.event_id), ("type", kind)]
            self._produce(topic, record, headers)
            self.records += 1
        self._producer.flush(_SECONDS)
        self.next_offsets = _high_watermarks(bootstrap_servers, topic)
        """By partition: one past the last of these records."""

    def _produce(self, topic: str, record: Record, headers: list[tuple[str, str | bytes | None]]) -> None:
        while True:
            try:
                self._producer.produce(topic, record.value, record.key, headers=headers)
                return
            except BufferError:
                self._producer.poll(0.05)

    def release(self) -> float:
        """Let everybody see the records; gives the moment (of `time.perf_counter`) before that began."""
        started_at = time.perf_counter()
        self._producer.commit_transaction(_SECONDS)
        self._producer.close()
        return started_at


def _high_watermarks(bootstrap_servers: str, topic: str) -> dict[int, int]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "unused", "isolation.level": "read_uncommitted"}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=_SECONDS).topics[topic].partitions
        marks = {
            one: consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=_SECONDS) for one in partitions
        }
    finally:
        consumer.close()
    return {partition: high for partition, (_, high) in marks.items() if high > 0}
