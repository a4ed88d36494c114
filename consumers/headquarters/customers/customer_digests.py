"""Digests of customers, from their rows and from the records of a topic, partition by partition."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from tenten.avro.wire import Unreadable, contract, encode
from tenten.consumers.headquarters.customers.outputs import snapshot
from tenten.kafka.client_config import consumer_configuration
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.records import read_until, record_position
from tenten.kafka.schema_registry import writer_schemas
from tenten.runtime.errors import DatabaseRefused
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Customer, canonical, customer_from_avro, to_avro
from tenten.schemas.topics import Topic
from tenten.sql.customer_rows import StoredCustomer

Digest = bytes | None
"""16 bytes of a customer's content; None for an erased customer, and one that does not exist."""

_REPORT_RECORDS: Final = 1_000


def digest_of(stored: StoredCustomer | None) -> Digest:
    """The digest of a customer as the database has it."""
    return None if stored is None or stored.erased else _digest(snapshot(stored))


def _digest(customer: Customer) -> bytes:
    """16 bytes of the canonical encoding: equal for equal customers, however their records were encoded."""
    record = to_avro(customer) | {"customer": to_avro(canonical(customer.customer))}
    return blake2b(encode(contract("Customer"), record), digest_size=16).digest()


class TopicPartitionDigests:
    """Reads one partition of a topic at a time: the digest of the newest record of each key. Close it."""

    def __init__(self, settings: Settings, topic: Topic, partitions: int) -> None:
        self._settings = settings
        self._topic = settings.topic(topic)
        self._partitions = partitions
        self._writers = writer_schemas(settings)
        self._next: dict[int, int] = {}
        self._partition = 0
        options = {"group.id": settings.reader_group(), "auto.offset.reset": "error", "enable.partition.eof": True}
        self._consumer = Consumer(consumer_configuration(settings, **options))

    @property
    def read_to(self) -> int:
        """The offset up to which the current partition was read."""
        return self._next[self._partition]

    def read(self, partition: int, report: Callable[[], None] = lambda: None) -> dict[bytes, Digest]:
        """Read this partition from its beginning to its end; the digest of each key that has not only a tombstone.

        `report` is called now and then. Raises: `DatabaseRefused` for an unreadable record; `KafkaException`.
        """
        self._assign(partition)
        return {key: digest for key, digest in self._records(report).items() if digest is not None}

    def read_on(self) -> dict[bytes, Digest]:
        """Read the current partition on to its current end: the digests of the keys that were written meanwhile."""
        return self._records(lambda: None)

    def keys(self) -> set[bytes]:
        """The keys of all partitions, read from their beginning."""
        keys: set[bytes] = set()
        for partition in range(self._partitions):
            self._assign(partition)
            keys.update(message.key() or b"" for message in read_until(self._consumer, self._next, self._ends()))
        return keys

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def _assign(self, partition: int) -> None:
        start = earliest_offsets(self._settings, self._topic, self._partitions)[partition]
        self._partition, self._next = partition, {partition: start}
        self._consumer.assign([TopicPartition(self._topic, partition, start)])

    def _ends(self) -> dict[int, int]:
        ends = last_stable_offsets(self._settings, self._topic, self._partitions)
        return {self._partition: ends[self._partition]}

    def _records(self, report: Callable[[], None]) -> dict[bytes, Digest]:
        digests: dict[bytes, Digest] = {}
        for count, message in enumerate(read_until(self._consumer, self._next, self._ends()), start=1):
            digests[message.key() or b""] = self._digest_of(message)
            if count % _REPORT_RECORDS == 0:
                report()
        return digests

    def _digest_of(self, message: Message) -> Digest:
        value = message.value()
        if value is None:
            return None
        try:
            return _digest(customer_from_avro(self._writers.decode(value, contract("Customer"))))
        except Unreadable as error:
            partition, offset = record_position(message)
            raise DatabaseRefused(
                f"record {partition}/{offset} of {self._topic} {error.text}; no customer was touched"
            ) from error
