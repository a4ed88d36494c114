"""Publish the settings of channels on `channel-settings`: each record whose content has changed since it was published.

What is published is compared with the topic itself: after a crash, a restored database or a recreated topic the next
publisher finds exactly the differences. Each record has a mark of its content in a header, so that nothing is decoded.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Final

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.wire import contract, encode
from tenten.kafka.client_config import consumer_configuration, producer_configuration
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.records import headers_of, read_until
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.kafka.transactional_producer import TransactionalProducer
from tenten.registry.channel_records import read_marked_settings, settings_marks
from tenten.runtime.failpoints import failpoint
from tenten.runtime.release import release
from tenten.runtime.settings import Settings
from tenten.schemas.messages import to_avro
from tenten.schemas.topics import CHANNEL_SETTINGS
from tenten.sql.engine import consistent_view

log = get_logger(__name__)

RECORDS_MAX: Final = 500
"""The most records of one transaction."""

MARK_HEADER: Final = "mark"
"""The header with the mark of the content."""


class SettingsPublisher:
    """Publishes as the only one: a new publisher ends the transaction of an earlier one, and locks it out."""

    def __init__(self, settings: Settings, engine: Engine, header: bytes) -> None:
        """`header`: the framing of the records."""
        self._settings = settings
        self._engine = engine
        self._header = header
        self._name = settings.topic(CHANNEL_SETTINGS)
        # Another release may write the same settings differently.
        self._release = f"{release()}-{contract(CHANNEL_SETTINGS.value).fingerprint.hex()}"
        self._checks_keys = settings.authentication != "off"
        self._producer = TransactionalProducer(
            "registrar", producer_configuration(settings), lambda: f"{settings.prefix}headquarters-registrar"
        )
        self._topic: TopicInfo | None = None
        self._published: dict[str, str] = {}
        """The mark of the newest record of each channel."""

    def begin(self) -> None:
        """Lock out earlier publishers, and read what is published. Raises: `KafkaRefused`, `KafkaException`."""
        self._producer.ready()
        self._topic = topic_ids(self._settings, [self._name])[self._name]
        self._published = _read_marks(self._settings, self._name, self._topic.partitions)

    def close(self) -> None:
        """Discard the producer. Idempotent."""
        self._producer.discard()

    def was_recreated(self) -> bool:
        """Whether the topic is another one than that which was read. Raises: `KafkaRefused`, `KafkaException`."""
        return topic_ids(self._settings, [self._name])[self._name] != self._topic

    def publish(self, stop: Event) -> int:
        """Publish what has changed, and return the number of records. Ends early when `stop` is set. Idempotent.

        Raises: `TransactionFailed`, `KafkaRefused`, errors of the database; then call `begin` again.
        """
        with consistent_view(self._engine) as headquarters:
            marks = settings_marks(headquarters)
        changed = [name for name, mark in marks.items() if self._published.get(name) != self._full(mark)]
        removed = [name for name in self._published if name not in marks]
        sent = 0
        for names in _batches(sorted(changed)):
            if stop.is_set():
                return sent
            sent += self._publish(names)
        for names in _batches(sorted(removed)):
            self._remove(names)
        if sent or removed:
            log.info("channel_settings_published", channels=sent, removed=len(removed))
        return sent + len(removed)

    def _publish(self, names: Sequence[str]) -> int:
        with consistent_view(self._engine) as headquarters:
            found = list(read_marked_settings(headquarters, names, datetime.now(UTC), checks_keys=self._checks_keys))
        schema = contract(CHANNEL_SETTINGS.value)
        with self._producer.records() as out:
            for channel, mark in found:
                value = encode(schema, to_avro(channel), self._header)
                out.send(self._name, channel.channel_id.encode(), value, [(MARK_HEADER, self._full(mark))])
        self._published.update({channel.channel_id: self._full(mark) for channel, mark in found})
        failpoint("registrar.after_batch")
        return len(found)

    def _remove(self, names: Sequence[str]) -> None:
        with self._producer.records() as out:
            for name in names:
                out.send(self._name, name.encode(), None)
        for name in names:
            del self._published[name]

    def _full(self, mark: str) -> str:
        return f"{self._release}-{mark}{'' if self._checks_keys else '-unchecked'}"


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), RECORDS_MAX):
        yield names[first : first + RECORDS_MAX]


def _read_marks(settings: Settings, name: str, partitions: int) -> dict[str, str]:
    """The mark of the newest record of each channel; channels that were removed are left out."""
    starts, ends = earliest_offsets(settings, name, partitions), last_stable_offsets(settings, name, partitions)
    options = {"group.id": settings.reader_group(), "auto.offset.reset": "error", "enable.partition.eof": True}
    consumer = Consumer(consumer_configuration(settings, **options))
    marks: dict[str, str] = {}
    try:
        consumer.assign([TopicPartition(name, partition, offset) for partition, offset in starts.items()])
        for message in read_until(consumer, starts, ends):
            channel_id = (message.key() or b"").decode(errors="replace")
            headers: Mapping[str, bytes | None] = dict(headers_of(message))
            if message.value() is None:
                marks.pop(channel_id, None)
            else:
                marks[channel_id] = (headers.get(MARK_HEADER) or b"").decode(errors="replace")
    finally:
        consumer.close()
    return marks
