"""Prove that headquarters' database and the `customers` topic agree, and have sent again what does not.

Every customer is compared by content, never by counts: a compacted topic has no meaningful count. The stream goes on
meanwhile, so what differs at first is looked at again, in the database and further on in the topic, before it is named.
What is missing or different is touched: the partition's owner emits its current snapshot. Nothing else is written.
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
from tenten.kafka.client import (
    REQUEST_SECONDS,
    consumer_configuration,
    earliest_offsets,
    last_stable_offsets,
    place,
    producer_configuration,
    read_on,
    topic_ids,
)
from tenten.kafka.schema_registry import publish_schemas, writer_schemas
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
LOOKS: Final = 5
"""How often a difference is looked at before it is named."""

LOOK_AGAIN_SECONDS: Final = 1.0

Digest = bytes | None
"""What a customer is, in 16 bytes; None for an erased one."""

Progress = Callable[[str, int, int], None]
"""Told what is being read, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Where database and topic disagree, by customer id, sorted; and how many customers the database has."""

    customers: int
    missing: tuple[str, ...]
    """In the database and not on the topic, or a tombstone there."""
    surplus: tuple[str, ...]
    """On the topic, and unknown to or erased in the database."""
    different: tuple[str, ...]

    @property
    def none(self) -> bool:
        """True when database and topic agree."""
        return not (self.missing or self.surplus or self.different)


def verify(settings: Settings, engine: Engine, progress: Progress = lambda *_: None) -> Differences:
    """Compare every customer of the database with the newest record of the topic, and touch what differs.

    Holds 16 bytes and an id of each customer in memory. Raises: `KafkaRefused`, `KafkaException`, `DatabaseRefused`
    when a record on the topic cannot be read.
    """
    topic = _TopicDigests(settings)
    try:
        database = dict(_database_digests(engine, progress))
        topic.read_on(progress)
        differing = _differing(database, topic.digests, database.keys() | topic.digests.keys())
        for _ in range(LOOKS):
            if not differing:
                break
            Event().wait(LOOK_AGAIN_SECONDS)
            with engine.begin() as headquarters:
                now = read_customers(headquarters, HEADQUARTERS_TABLES, differing)
            database.update((one, _digest_of(now.get(one))) for one in differing)
            topic.read_on(progress)
            differing = _differing(database, topic.digests, differing)
        found = _sorted_out(database, topic.digests, differing)
    finally:
        topic.close()
    _touch(settings, (*found.missing, *found.surplus, *found.different))
    return found


def _differing(database: dict[str, Digest], topic: dict[str, Digest], ids: Iterable[str]) -> set[str]:
    return {one for one in ids if database.get(one) != topic.get(one)}


def _sorted_out(database: dict[str, Digest], topic: dict[str, Digest], differing: set[str]) -> Differences:
    return Differences(
        customers=sum(1 for digest in database.values() if digest is not None),
        missing=tuple(sorted(one for one in differing if topic.get(one) is None)),
        surplus=tuple(sorted(one for one in differing if database.get(one) is None)),
        different=tuple(sorted(one for one in differing if database.get(one) and topic.get(one))),
    )


def _database_digests(engine: Engine, progress: Progress) -> Iterator[tuple[str, Digest]]:
    """Every customer of the database, in chunks."""
    customers = HEADQUARTERS_TABLES.customers
    with engine.begin() as headquarters:
        ids = headquarters.execute(select(customers.c.customer_id).order_by(customers.c.customer_id)).scalars().all()
    for start in range(0, len(ids), CHUNK_CUSTOMERS):
        chunk = ids[start : start + CHUNK_CUSTOMERS]
        with engine.begin() as headquarters:
            stored = read_customers(headquarters, HEADQUARTERS_TABLES, chunk)
        for one in chunk:
            yield one, _digest_of(stored.get(one))
        progress("database", start + len(chunk), len(ids))


def _digest_of(stored: StoredCustomer | None) -> Digest:
    return None if stored is None or stored.erased else _digest(snapshot(stored))


def _digest(customer: Customer) -> bytes:
    """16 bytes of the canonical encoding: equal for equal customers, whoever wrote the bytes."""
    record = to_avro(customer) | {"customer": to_avro(canonical(customer.customer))}
    return blake2b(encode(contract("Customer"), record), digest_size=16).digest()


class _TopicDigests:
    """The newest record of each key of `customers`, as a digest; can be read on."""

    def __init__(self, settings: Settings) -> None:
        self.digests: dict[str, Digest] = {}
        self._settings = settings
        self._topic = settings.topic(CUSTOMERS)
        self._writers: WriterSchemas = writer_schemas(settings)
        self._partitions = topic_ids(settings, [self._topic])[self._topic].partitions
        self._next = earliest_offsets(settings, self._topic, self._partitions)
        own = {"group.id": settings.group("verify"), "auto.offset.reset": "error", "enable.partition.eof": True}
        self._consumer = Consumer(consumer_configuration(settings, **own))
        self._consumer.assign(
            [TopicPartition(self._topic, partition, start) for partition, start in self._next.items()]
        )

    def read_on(self, progress: Progress) -> None:
        """Read to the last stable offsets of now."""
        ends = last_stable_offsets(self._settings, self._topic, self._partitions)
        total = sum(max(0, end - self._next[partition]) for partition, end in ends.items())
        for count, message in enumerate(read_on(self._consumer, self._next, ends)):
            self._take(message)
            if count % 1_000 == 0:
                progress("topic", count, total)
        progress("topic", total, total)

    def _take(self, message: Message) -> None:
        customer_id = (message.key() or b"").decode(errors="replace")
        value = message.value()
        if value is None:
            self.digests[customer_id] = None
            return
        try:
            self.digests[customer_id] = _digest(customer_from_avro(self._writers.decode(value, contract("Customer"))))
        except Unreadable as error:
            partition, offset = place(message)
            raise DatabaseRefused(
                f"record {partition}/{offset} of {self._topic} {error.text}; nothing was touched"
            ) from error

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def _touch(settings: Settings, ids: Iterable[str]) -> None:
    """Ask the partition's owner to emit the current snapshot of each."""
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
