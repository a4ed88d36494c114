"""Relay maintenance, once a minute: check topic ids, re-send unanswered rows, prune settled rows."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from confluent_kafka import KafkaException
from sqlalchemy import Connection, insert, select
from structlog import get_logger

from tenten.kafka.topics_admin import check_partitions
from tenten.producers.outbox import retention
from tenten.producers.relay.producer import RelayProducer
from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import LockHeld
from tenten.schemas.tables.channel import topics
from tenten.sql.locks import DatabaseLock

log = get_logger(__name__)

REPLY_SECONDS_MAX: Final = 3600
"""A row without a reply is sent again after this time."""

SETTLED_DAYS_KEPT: Final = 30
"""The retention of replies; then a settled row is deleted with its personal data."""

MAINTENANCE_SECONDS: Final = 60

_FIRST_MAINTENANCE_SECONDS: Final = 10
"""Settlement first reads the replies that arrived while the channel was stopped."""

_SLICE_ROWS: Final = 1_000


class Maintenance:
    """The relay's periodic maintenance."""

    def __init__(self, producer: RelayProducer, lock: DatabaseLock) -> None:
        self._producer = producer
        self._lock = lock
        self._next_at = time.monotonic() + _FIRST_MAINTENANCE_SECONDS

    def run_when_due(self, connection: Connection) -> None:
        """Raises: `LockHeld`, `TopicChanged`, `KafkaRefused`; the database's errors."""
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + MAINTENANCE_SECONDS
        if not self._lock.is_held():
            raise LockHeld("the lock of this channel's relay was lost with its connection")
        try:
            self._producer.refresh_topics()
        except KafkaException as error:
            if not is_transient(error):
                raise
            return
        now = datetime.now(UTC)
        check_topics(connection, self._producer)
        requeue_overdue(connection, now - timedelta(seconds=REPLY_SECONDS_MAX), self._producer.topic_ids)
        prune(connection, now - timedelta(days=SETTLED_DAYS_KEPT))


def check_topics(connection: Connection, producer: RelayProducer) -> None:
    """Record new topics. Raises: `TopicChanged` when the partition count of a recorded topic has changed."""
    for topic, info in producer.topics.items():
        key = {"topic": topic, "topic_id": info.topic_id}
        recorded = connection.scalar(select(topics.c.partitions).filter_by(**key))
        if recorded is None:
            connection.execute(insert(topics).values(**key, partitions=info.partitions))
        else:
            check_partitions(topic, recorded, info.partitions)


def requeue_overdue(connection: Connection, sent_before: datetime, topic_ids: Mapping[str, str]) -> None:
    """Mark unsent, in slices, the unanswered rows sent before that time or to a topic that was deleted.

    `topic_ids` has the current topic id of each aggregate type.
    """
    while sequences := retention.overdue(connection, sent_before, topic_ids, _SLICE_ROWS):
        retention.mark_unsent(connection, sequences)
        log.info("outbox_requeued", rows=len(sequences))


def prune(connection: Connection, settled_before: datetime) -> None:
    """Delete, in slices, the rows settled before that time."""
    while sequences := retention.prunable(connection, settled_before, _SLICE_ROWS):
        retention.prune(connection, sequences)
        log.info("outbox_pruned", rows=len(sequences))
