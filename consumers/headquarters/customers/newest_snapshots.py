"""The second guard at an assignment: the newest snapshots on the topic must be known to the database.

The group's offsets tell most of it, but they can be gone: expired, reset, or deleted with the topic. A database that
was restored, or made anew, would then read everything again and give out other numbers than the channels have.
"""

from collections.abc import Collection, Iterable
from typing import Final

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import ARRAY, Engine, any_, bindparam, select

from tenten.avro.wire import Unreadable, contract
from tenten.kafka.client import consumer_configuration, earliest_offsets, last_stable_offsets, read_on, topic_ids
from tenten.kafka.schema_registry import writer_schemas
from tenten.rules.limits import GUID
from tenten.runtime.errors import DatabaseOlderThanStream
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import customers
from tenten.schemas.tables.types import Guid
from tenten.schemas.topics import CUSTOMERS

NEWEST_OFFSETS: Final = 50
"""How far before its end each partition is looked at."""


def check_newest(settings: Settings, engine: Engine, partitions: Collection[int]) -> None:
    """Compare the newest snapshots of these partitions with the database.

    Before they went out, the database had them: the same partitions of both topics hold the same customers.
    Raises: `DatabaseOlderThanStream`; `KafkaRefused`, `KafkaException`; what the database raises.
    """
    on_topic = dict(_newest(settings, partitions))
    if not on_topic:
        return
    ids = bindparam(None, sorted(on_topic), type_=ARRAY(Guid))
    query = select(customers.c.customer_id, customers.c.version, customers.c.erased_at)
    with engine.begin() as headquarters:
        rows = headquarters.execute(query.where(customers.c.customer_id == any_(ids))).all()
    known = {row.customer_id: None if row.erased_at is not None else row.version for row in rows}
    behind = [one for one, version in on_topic.items() if one not in known or _is_newer(version, known[one])]
    if behind:
        raise DatabaseOlderThanStream(
            f"{len(behind)} of the newest {len(on_topic)} customers on {settings.topic(CUSTOMERS)} are newer there "
            "than in headquarters' database: the database is older than the stream, perhaps restored from a backup or "
            "made anew, and would give numbers out again. Restore one that is as new as the stream"
        )


def _is_newer(on_topic: int | None, known: int | None) -> bool:
    """Whether the topic is ahead of the database; None is erased, and nothing comes after that."""
    if known is None:
        return False
    return on_topic is None or on_topic > known


def _newest(settings: Settings, partitions: Collection[int]) -> Iterable[tuple[str, int | None]]:
    """Customer ids and versions, in the order of the topic; None for a tombstone."""
    topic = settings.topic(CUSTOMERS)
    count = topic_ids(settings, [topic])[topic].partitions
    all_ends = last_stable_offsets(settings, topic, count)
    ends = {partition: end for partition, end in all_ends.items() if partition in partitions}
    earliest = earliest_offsets(settings, topic, count)
    starts = {partition: max(earliest[partition], end - NEWEST_OFFSETS) for partition, end in ends.items()}
    writers = writer_schemas(settings)
    own = {"group.id": settings.group("newest"), "auto.offset.reset": "error", "enable.partition.eof": True}
    consumer = Consumer(consumer_configuration(settings, **own))
    try:
        consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
        for message in read_on(consumer, starts, ends):
            customer_id, value = (message.key() or b"").decode(errors="replace"), message.value()
            if not GUID.fullmatch(customer_id):
                continue
            try:
                version = None if value is None else writers.decode(value, contract("Customer"))["version"]
            except Unreadable:
                continue
            yield customer_id, version
    finally:
        consumer.close()
