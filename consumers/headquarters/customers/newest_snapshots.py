"""Assignment check: the newest snapshots on `customers` must not be newer than the database.

The group's offsets usually reveal an older database, but they may have expired, or been reset or deleted with the
topic. A restored or recreated database would then read all events again and assign other numbers than the channels
have.
"""

from collections.abc import Collection, Iterable
from typing import Final

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import ARRAY, Engine, any_, bindparam, select

from tenten.avro.wire import Unreadable, contract
from tenten.kafka.client_config import consumer_configuration
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.records import read_until
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.rules.limits import is_guid
from tenten.runtime.errors import DatabaseOlderThanStream
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import customers
from tenten.schemas.tables.types import Guid
from tenten.schemas.topics import CUSTOMERS

NEWEST_OFFSETS: Final = 50
"""Offsets before the end of each partition that are compared."""


def check_newest_snapshots(settings: Settings, engine: Engine, partitions: Collection[int]) -> None:
    """Compare the newest snapshots of these partitions with the database, which commits every snapshot before Kafka.

    `partitions` are those of the input topic: the same partition of both topics holds the same customers.
    Raises: `DatabaseOlderThanStream`; `KafkaRefused`, `KafkaException`; errors of the database.
    """
    topic_versions = dict(_newest_versions(settings, partitions))
    if not topic_versions:
        return
    ids = bindparam(None, sorted(topic_versions), type_=ARRAY(Guid))
    query = select(customers.c.customer_id, customers.c.version, customers.c.erased_at)
    with engine.begin() as headquarters:
        rows = headquarters.execute(query.where(customers.c.customer_id == any_(ids))).all()
    database_versions = {row.customer_id: None if row.erased_at is not None else row.version for row in rows}
    behind = [
        customer_id
        for customer_id, version in topic_versions.items()
        if customer_id not in database_versions or _is_newer(version, database_versions[customer_id])
    ]
    if behind:
        raise DatabaseOlderThanStream(
            f"{len(behind)} of the newest {len(topic_versions)} customers on {settings.topic(CUSTOMERS)} are newer "
            "there than in headquarters' database: the database is older than the stream, perhaps restored from a "
            "backup or recreated, and would assign account numbers twice. Restore a database that is as recent as the "
            "stream"
        )


def _is_newer(topic_version: int | None, database_version: int | None) -> bool:
    """True if the topic is ahead of the database. None means erased, which is final."""
    if database_version is None:
        return False
    return topic_version is None or topic_version > database_version


def _newest_versions(settings: Settings, partitions: Collection[int]) -> Iterable[tuple[str, int | None]]:
    """Customer ids and versions, in the order of the topic; None for a tombstone."""
    topic = settings.topic(CUSTOMERS)
    count = topic_ids(settings, [topic])[topic].partitions
    all_ends = last_stable_offsets(settings, topic, count)
    ends = {partition: end for partition, end in all_ends.items() if partition in partitions}
    earliest = earliest_offsets(settings, topic, count)
    starts = {partition: max(earliest[partition], end - NEWEST_OFFSETS) for partition, end in ends.items()}
    writers = writer_schemas(settings)
    options = {"group.id": settings.group("newest"), "auto.offset.reset": "error", "enable.partition.eof": True}
    consumer = Consumer(consumer_configuration(settings, **options))
    try:
        consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
        for message in read_until(consumer, starts, ends):
            customer_id, value = (message.key() or b"").decode(errors="replace"), message.value()
            if not is_guid(customer_id):
                continue
            try:
                version = None if value is None else writers.decode(value, contract("Customer"))["version"]
            except Unreadable:
                continue
            yield customer_id, version
    finally:
        consumer.close()
