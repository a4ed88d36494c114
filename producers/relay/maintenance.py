"""What a relay does once a minute: see whether the topics are the same, send again what has no answer, prune."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from confluent_kafka import KafkaException
from sqlalchemy import Connection, insert, select
from structlog import get_logger

from tenten.kafka.topics_admin import check_partitions
from tenten.producers import outbox
from tenten.producers.relay.producer import Line
from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import LockHeld
from tenten.schemas.tables.channel import topics
from tenten.sql.locks import DatabaseLock

log = get_logger(__name__)

ANSWER_SECONDS_MAX: Final = 3600
"""A row that has no answer for so long is sent again."""

SETTLED_DAYS_KEPT: Final = 30
"""As long as replies are kept. Then a settled row goes, and the personal data in it."""

CHORES_SECONDS: Final = 60
"""How often the topics are looked at, and what is overdue or no longer needed."""

_FIRST_CHORES_SECONDS: Final = 10
"""After a start the answers that came meanwhile are read first."""

_SLICE_ROWS: Final = 1_000


class Chores:
    """What is done once a minute: look whether the topics are the same, send again what has no answer, prune."""

    def __init__(self, line: Line, lock: DatabaseLock) -> None:
        self._line = line
        self._lock = lock
        self._next_at = time.monotonic() + _FIRST_CHORES_SECONDS

    def do_when_due(self, connection: Connection) -> None:
        """Raises: `LockHeld`, `TopicChanged`, `KafkaRefused`; what the database raises."""
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + CHORES_SECONDS
        if not self._lock.is_held():
            raise LockHeld("the lock of this channel's relay was lost with its connection")
        try:
            self._line.look()
        except KafkaException as error:
            if not is_transient(error):
                raise
            return
        now = datetime.now(UTC)
        check_topics(connection, self._line)
        send_again(connection, now - timedelta(seconds=ANSWER_SECONDS_MAX), self._line.topic_ids)
        prune(connection, now - timedelta(days=SETTLED_DAYS_KEPT))


def check_topics(connection: Connection, line: Line) -> None:
    """Note a topic when it is seen first. Raises: `TopicChanged` when one has other partitions than it had."""
    for topic, info in line.topics.items():
        key = {"topic": topic, "topic_id": info.topic_id}
        known = connection.scalar(select(topics.c.partitions).filter_by(**key))
        if known is None:
            connection.execute(insert(topics).values(**key, partitions=info.partitions))
        else:
            check_partitions(topic, known, info.partitions)


def send_again(connection: Connection, sent_before: datetime, topic_ids: Mapping[str, str]) -> None:
    """Make unsent, in slices, what has no answer and was sent before that time or to a topic that is gone.

    `topic_ids` has what each aggregate type's topic is now.
    """
    while sequences := outbox.overdue(connection, sent_before, topic_ids, _SLICE_ROWS):
        outbox.mark_unsent(connection, sequences)
        log.info("sent_again", rows=len(sequences))


def prune(connection: Connection, settled_before: datetime) -> None:
    """Delete, in slices, what was settled before that time."""
    while sequences := outbox.settled_before(connection, settled_before, _SLICE_ROWS):
        outbox.prune(connection, sequences)
        log.info("pruned", rows=len(sequences))
