"""Compare headquarters' database with the `customers` topic, and have differing customers published again.

Every customer is compared by content, never by counts: a compacted topic has no meaningful count. The stream continues
meanwhile, so differing customers are compared several times, with newer rows and records, before they are reported.
Each is then touched: the partition's owner publishes its current snapshot. Nothing else is written.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from threading import Event
from typing import Final

import uuid_utils
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from sqlalchemy import Engine, select

from tenten.avro.wire import Unreadable, WriterSchemas, contract, encode
from tenten.consumers.headquarters.customers.outputs import snapshot
from tenten.kafka.client_config import REQUEST_SECONDS, consumer_configuration, producer_configuration
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.records import read_until, record_position
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.errors import DatabaseRefused
from tenten.runtime.settings import Settings
from tenten.schemas.messages import (
    HEADQUARTERS,
    Customer,
    CustomerEvent,
    EventKind,
    canonical,
    customer_from_avro,
    to_avro,
)
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS
from tenten.sql.customer_rows import HEADQUARTERS_TABLES, StoredCustomer, read_customers

CHUNK_CUSTOMERS: Final = 5_000
RETRIES_MAX: Final = 5
"""Further comparisons of a difference before it is reported."""

RETRY_SECONDS: Final = 1.0

Digest = bytes | None
"""16 bytes of a customer's content; None for an erased customer."""

Progress = Callable[[str, int, int], None]
"""Called with the source being read, the number read, and the total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """The customer ids at which database and topic differ, sorted."""

    customers: int
    """The number of customers in the database."""
    missing: tuple[str, ...]
    """In the database and not on the topic, or a tombstone there."""
    surplus: tuple[str, ...]
    """On the topic, and missing or erased in the database."""
    different: tuple[str, ...]

    @property
    def none(self) -> bool:
        """True when database and topic agree."""
        return not (self.missing or self.surplus or self.different)


def verify(settings: Settings, engine: Engine, progress: Progress = lambda *_: None) -> Differences:
    """Compare every customer of the database with the newest record of the topic, and touch those that differ.

    Keeps 16 bytes and an id of each customer in memory. Raises: `KafkaRefused`, `KafkaException`; `DatabaseRefused`
    when a record on the topic is unreadable.
    """
    topic = _TopicDigests(settings)
    try:
        database = dict(_database_digests(engine, progress))
        topic.read_on(progress)
        differing = _differing(database, topic.digests, database.keys() | topic.digests.keys())
        for _ in range(RETRIES_MAX):
            if not differing:
                break
            Event().wait(RETRY_SECONDS)
            with engine.begin() as headquarters:
                stored = read_customers(headquarters, HEADQUARTERS_TABLES, differing)
            database.update((customer_id, _digest_of(stored.get(customer_id))) for customer_id in differing)
            topic.read_on(progress)
            differing = _differing(database, topic.digests, differing)
        differences = _differences(database, topic.digests, differing)
    finally:
        topic.close()
    _touch(settings, (*differences.missing, *differences.surplus, *differences.different))
    return differences


def _differing(database: dict[str, Digest], topic: dict[str, Digest], ids: Iterable[str]) -> set[str]:
    return {customer_id for customer_id in ids if database.get(customer_id) != topic.get(customer_id)}


def _differences(database: dict[str, Digest], topic: dict[str, Digest], differing: set[str]) -> Differences:
    ids = sorted(differing)
    return Differences(
        customers=sum(1 for digest in database.values() if digest is not None),
        missing=tuple(customer_id for customer_id in ids if topic.get(customer_id) is None),
        surplus=tuple(customer_id for customer_id in ids if database.get(customer_id) is None),
        different=tuple(customer_id for customer_id in ids if database.get(customer_id) and topic.get(customer_id)),
    )


def _database_digests(engine: Engine, progress: Progress) -> Iterator[tuple[str, Digest]]:
    """The id and digest of every customer of the database, read in chunks."""
    customers = HEADQUARTERS_TABLES.customers
    with engine.begin() as headquarters:
        ids = headquarters.execute(select(customers.c.customer_id).order_by(customers.c.customer_id)).scalars().all()
    for start in range(0, len(ids), CHUNK_CUSTOMERS):
        chunk = ids[start : start + CHUNK_CUSTOMERS]
        with engine.begin() as headquarters:
            stored = read_customers(headquarters, HEADQUARTERS_TABLES, chunk)
        for customer_id in chunk:
            yield customer_id, _digest_of(stored.get(customer_id))
        progress("database", start + len(chunk), len(ids))


def _digest_of(stored: StoredCustomer | None) -> Digest:
    return None if stored is None or stored.erased else _digest(snapshot(stored))


def _digest(customer: Customer) -> bytes:
    """16 bytes of the canonical encoding: equal for equal customers, however their records were encoded."""
    record = to_avro(customer) | {"customer": to_avro(canonical(customer.customer))}
    return blake2b(encode(contract("Customer"), record), digest_size=16).digest()


class _TopicDigests:
    """The digest of the newest record of each key of `customers`; `read_on` continues where it ended."""

    def __init__(self, settings: Settings) -> None:
        self.digests: dict[str, Digest] = {}
        self._settings = settings
        self._topic = settings.topic(CUSTOMERS)
        self._writers: WriterSchemas = writer_schemas(settings)
        self._partitions = topic_ids(settings, [self._topic])[self._topic].partitions
        self._next = earliest_offsets(settings, self._topic, self._partitions)
        options = {"group.id": settings.group("verify"), "auto.offset.reset": "error", "enable.partition.eof": True}
        self._consumer = Consumer(consumer_configuration(settings, **options))
        self._consumer.assign(
            [TopicPartition(self._topic, partition, start) for partition, start in self._next.items()]
        )

    def read_on(self, progress: Progress) -> None:
        """Read to the current last stable offsets."""
        ends = last_stable_offsets(self._settings, self._topic, self._partitions)
        total = sum(max(0, end - self._next[partition]) for partition, end in ends.items())
        for count, message in enumerate(read_until(self._consumer, self._next, ends)):
            self._add(message)
            if count % 1_000 == 0:
                progress("topic", count, total)
        progress("topic", total, total)

    def _add(self, message: Message) -> None:
        customer_id = (message.key() or b"").decode(errors="replace")
        value = message.value()
        if value is None:
            self.digests[customer_id] = None
            return
        try:
            self.digests[customer_id] = _digest(customer_from_avro(self._writers.decode(value, contract("Customer"))))
        except Unreadable as error:
            partition, offset = record_position(message)
            raise DatabaseRefused(
                f"record {partition}/{offset} of {self._topic} {error.text}; no customer was touched"
            ) from error

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _touch(settings: Settings, ids: Iterable[str]) -> None:
    """Have the current snapshot of each of these customers published by the owner of its partition."""
    header = publish_schemas(settings)["CustomerEvent"]
    producer = Producer(producer_configuration(settings))
    for customer_id in ids:
        event = CustomerEvent(
            customer_id=customer_id,
            event_id=str(uuid_utils.uuid7()),
            channel_id=HEADQUARTERS,
            kind=EventKind.TOUCHED,
            occurred_at=datetime.now(UTC),
        )
        value = encode(contract("CustomerEvent"), to_avro(event), header)
        headers: list[tuple[str, str | bytes | None]] = [("id", event.event_id), ("type", "CustomerTouched")]
        producer.produce(settings.topic(ASYNC_CUSTOMERS), value, customer_id, headers=headers)
        producer.poll(0)
    if producer.flush(REQUEST_SECONDS):
        raise KafkaException(f"no answer within {REQUEST_SECONDS} s: verify again")
