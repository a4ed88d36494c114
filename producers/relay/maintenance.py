"""Relay maintenance, once a minute: check topic ids, queue unanswered rows again, prune settled rows, events and keys.

It works in small steps, between which the relay sends.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from confluent_kafka import KafkaException
from sqlalchemy import Connection, delete, insert, select
from structlog import get_logger

from tenten.kafka.topics_admin import check_partitions
from tenten.producers.outbox import retention
from tenten.producers.relay.producer import RelayProducer
from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import LockHeld
from tenten.schemas.tables.channel import request_keys, topics
from tenten.sql.channel_events import prune_events
from tenten.sql.locks import DatabaseLock

log = get_logger(__name__)

SETTLED_DAYS_KEPT: Final = 30
"""The retention of replies; then a settled row is deleted with its personal data."""

KEY_DAYS_KEPT: Final = 7
"""How long an idempotency key with another content is recognised."""

MAINTENANCE_SECONDS: Final = 60

_FIRST_MAINTENANCE_SECONDS: Final = 10
"""Settlement first reads the replies that arrived while the channel was stopped."""

_ALL_ROWS_SECONDS: Final = 3600
"""How often all rows are looked at, not only those appended since: a row may become visible late."""

_SLICE_ROWS: Final = 1_000
"""Rows that one step looks at."""


class Maintenance:
    """The relay's periodic maintenance."""

    def __init__(self, connection: Connection, producer: RelayProducer, lock: DatabaseLock) -> None:
        self._connection = connection
        self._producer = producer
        self._lock = lock
        self._next_at = time.monotonic() + _FIRST_MAINTENANCE_SECONDS
        self._all_rows_at = 0.0
        self._steps: Iterator[None] | None = None
        self._schedule_after = self._prune_after = 0

    def run_when_due(self) -> bool:
        """Do the next step, if one is due; whether more are left.

        Raises: `LockHeld`, `TopicChanged`, `KafkaRefused`; the database's errors.
        """
        if self._steps is None:
            if time.monotonic() < self._next_at:
                return False
            self._steps = self._pass()
        for _ in self._steps:
            return True
        self._steps = None
        self._next_at = time.monotonic() + MAINTENANCE_SECONDS
        return False

    def _pass(self) -> Iterator[None]:
        """All that is done once a minute, in steps."""
        if not self._lock.is_held():
            raise LockHeld("the lock of this channel's relay was lost with its connection")
        try:
            self._producer.refresh_topics()
        except KafkaException as error:
            if not is_transient(error):
                raise
            return
        yield
        yield from check_topics(self._connection, self._producer)
        if time.monotonic() >= self._all_rows_at:
            self._all_rows_at = time.monotonic() + _ALL_ROWS_SECONDS
            self._schedule_after = self._prune_after = 0
        now = datetime.now(UTC)
        schedule_after = retention.first_to_schedule(self._connection) - 1
        yield from schedule_resends(self._connection, now, self._schedule_after)
        self._schedule_after = schedule_after
        yield from resend(self._connection, now)
        for last in prune(self._connection, now - timedelta(days=SETTLED_DAYS_KEPT), self._prune_after):
            self._prune_after = last
            yield
        while prune_events(self._connection, now):
            yield
        prune_request_keys(self._connection, now - timedelta(days=KEY_DAYS_KEPT))


def check_topics(connection: Connection, producer: RelayProducer) -> Iterator[None]:
    """Record new topics. When a topic was recreated, queue again all unanswered rows that were sent to the earlier one.

    Raises: `TopicChanged` when the partition count of a recorded topic has changed.
    """
    for aggregate_type, topic in producer.topic_names.items():
        info = producer.topics[topic]
        of_topic = select(topics.c.topic_id, topics.c.partitions).where(topics.c.topic == topic)
        recorded = {row.topic_id: row.partitions for row in connection.execute(of_topic)}
        if info.topic_id in recorded:
            check_partitions(topic, recorded[info.topic_id], info.partitions)
            continue
        if recorded:
            yield from queue_again(connection, aggregate_type)
        # Recorded after its rows are queued: a crash between repeats them.
        connection.execute(insert(topics).values(topic=topic, topic_id=info.topic_id, partitions=info.partitions))
        connection.execute(delete(topics).where(topics.c.topic == topic, topics.c.topic_id != info.topic_id))


def queue_again(connection: Connection, aggregate_type: str) -> Iterator[None]:
    """Queue all unanswered rows of this type again."""
    for window in _windows(connection):
        _log_requeued(retention.queue_window_again(connection, window, aggregate_type))
        yield


def schedule_resends(connection: Connection, now: datetime, after: int = 0) -> Iterator[None]:
    """Schedule the unanswered rows after this sequence, as far as they were sent, to be sent again in an hour."""
    for window in _windows(connection, after):
        retention.schedule_resends(connection, window, now)
        yield


def resend(connection: Connection, now: datetime) -> Iterator[None]:
    """Queue the scheduled rows again whose time has come."""
    is_full = True
    while is_full:
        due, queued = retention.resend_due(connection, now, _SLICE_ROWS)
        _log_requeued(queued)
        is_full = due == _SLICE_ROWS
        yield


def prune(connection: Connection, settled_before: datetime, after: int = 0) -> Iterator[int]:
    """Delete the rows after this sequence that were settled before that time; yields up to where it has looked."""
    for window in _windows(connection, after):
        is_last = retention.is_younger(connection, window, settled_before)
        if sequences := retention.prunable(connection, window, settled_before):
            retention.prune(connection, sequences)
            log.info("outbox_pruned", rows=len(sequences))
        if is_last:
            return
        yield window.last


def prune_request_keys(connection: Connection, recorded_before: datetime) -> int:
    """Delete idempotency keys that were recorded before that time; how many."""
    old = request_keys.c.recorded_at < recorded_before
    if connection.scalar(select(request_keys.c.request_key).where(old).limit(1)) is None:
        return 0
    return connection.execute(delete(request_keys).where(old)).rowcount


def _windows(connection: Connection, after: int = 0) -> Iterator[retention.Window]:
    """The rows of the outbox after this sequence, slice by slice."""
    while (window := retention.next_window(connection, after, _SLICE_ROWS)) is not None:
        yield window
        after = window.last


def _log_requeued(rows: int) -> None:
    if rows:
        log.info("outbox_requeued", rows=rows)
