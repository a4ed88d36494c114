"""Records that become visible at once: written in an open Kafka transaction, which consumers see when it commits.

So the consumers under measurement are started, warmed up and at the end of the topic when the clock starts.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Self

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks import bare_loop as loop
from benchmarks.customers import Record, snapshots
from benchmarks.stage import Stage
from tenten.identity.signing import RecordSigner
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS

_PRODUCER: Final = {
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 20,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 524_288,
    "transaction.timeout.ms": 120_000,
    "log_level": 3,
}
_TRANSACTION_RECORDS: Final = 100_000
_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.1


class Filling:
    """Records written to a topic but not committed yet."""

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        records: Iterable[Record],
        kind: str,
        signers: Mapping[str, RecordSigner] | None = None,
    ) -> None:
        """Write the records with the headers that relays and headquarters give them.

        `signers`: by channel, who signs its events for `async-customers`.
        """
        servers = {"bootstrap.servers": bootstrap_servers}
        earlier = high_watermarks(bootstrap_servers, topic)
        self._producer = Producer({**servers, **_PRODUCER, "transactional.id": f"filling-{topic}"})
        self._producer.init_transactions(_SECONDS)
        self._producer.begin_transaction()
        self.records = 0
        for record in records:
            headers: list[tuple[str, str | bytes | None]] = [("id", record.event_id), ("type", kind)]
            if signers:
                headers += signers[record.channel].headers(ASYNC_CUSTOMERS.name, record.key, record.value)
            self._produce(topic, record, headers)
            self.records += 1
        self._producer.flush(_SECONDS)
        watermarks = high_watermarks(bootstrap_servers, topic)
        self.next_offsets = {
            partition: high for partition, high in watermarks.items() if high > earlier.get(partition, 0)
        }
        """By partition that has some of these records: the offset after the last of them."""

    def _produce(self, topic: str, record: Record, headers: list[tuple[str, str | bytes | None]]) -> None:
        while True:
            try:
                self._producer.produce(topic, record.value, record.key, headers=headers)
                return
            except BufferError:
                self._producer.poll(0.05)

    def release(self) -> float:
        """Commit the records; the time (`time.perf_counter`) before the commit."""
        started_at = time.perf_counter()
        self._producer.commit_transaction(_SECONDS)
        self._producer.close()
        return started_at


class Transactions:
    """A producer of snapshots in transactions, as headquarters is. Use it as a context manager."""

    def __init__(self, on: Stage) -> None:
        self._topic = on.settings.topic(CUSTOMERS)
        servers = {"bootstrap.servers": on.servers.bootstrap_servers, "log_level": 3}
        self._producer = Producer({**servers, **loop.PRODUCER, "transactional.id": f"transactions-{self._topic}"})

    def __enter__(self) -> Self:
        self._producer.init_transactions(_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close()

    def commit(self, records: Sequence[Record]) -> None:
        """Produce these records and commit."""
        self._producer.begin_transaction()
        for record in records:
            headers: list[tuple[str, str | bytes | None]] = [("id", record.event_id), ("type", "Customer")]
            self._producer.produce(self._topic, record.value, record.key, headers=headers)
        self._producer.commit_transaction(_SECONDS)


def fill_customers(on: Stage, customers: int) -> None:
    """Produce the snapshots of this many customers, as headquarters would have."""
    records = snapshots(customers, 1)
    for first in range(0, customers, _TRANSACTION_RECORDS):
        part = islice(records, min(_TRANSACTION_RECORDS, customers - first))
        Filling(on.servers.bootstrap_servers, on.settings.topic(CUSTOMERS), part, "Customer").release()


def high_watermarks(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """By partition that has records: the offset after the last one, committed or not."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "unused", "isolation.level": "read_uncommitted"}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=_SECONDS).topics[topic].partitions
        watermarks = {
            partition: _high_watermark(consumer, TopicPartition(topic, partition)) for partition in partitions
        }
    finally:
        consumer.close()
    return {partition: high for partition, high in watermarks.items() if high > 0}


def _high_watermark(consumer: Consumer, partition: TopicPartition) -> int:
    """The offset after the last record of a partition. A new topic has no leader yet: asked again for a while."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            watermarks: tuple[int, int] = consumer.get_watermark_offsets(partition, timeout=_SECONDS)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return watermarks[1]
