"""Publish the settings of channels on `channel-settings`: each record whose content has changed since it was published.

What is published is compared with the topic itself: after a crash, a restored database or a recreated topic the next
publisher finds exactly the differences. Each record has a mark of its content in a header, so that only what differs is
decoded: before a publisher overwrites it, keys and suspensions that the database lacks are taken back. Headquarters
signs these records, so that it believes nobody else.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.wire import contract, encode
from tenten.consumers.headquarters.published_settings import MARK_HEADER, read_published, take_back_acceptance
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.signing import RecordSigner
from tenten.kafka.client_config import producer_configuration
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
            "registrar",
            producer_configuration(settings),
            lambda: f"{settings.prefix}headquarters-registrar",
            topic=self._name,
        )
        self._topic: TopicInfo | None = None
        self._signer: RecordSigner | None = None
        self._published: dict[str, str] = {}
        """The mark of the newest record of each channel."""

    def begin(self) -> None:
        """Lock out earlier publishers, read what is published, and take back from it what the database lacks.

        Raises: `KafkaRefused`, `KafkaException`; errors of the database.
        """
        self._producer.ready()
        self._topic = topic_ids(self._settings, [self._name])[self._name]
        published = read_published(self._settings, self._topic.partitions)
        with consistent_view(self._engine) as headquarters:
            marks = settings_marks(headquarters)
        different = [record for record in published if record.mark != self._full(marks.get(record.channel_id))]
        take_back_acceptance(self._settings, self._engine, different)
        with self._engine.begin() as headquarters:
            self._signer = RecordSigner.of_headquarters(ensure_headquarters_keys(headquarters))
        self._published = {record.channel_id: record.mark for record in published}

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
        schema, signer = contract(CHANNEL_SETTINGS.value), self._signer
        assert signer is not None  # set by `begin`
        with self._producer.records() as out:
            for channel, mark in found:
                key, value = channel.channel_id.encode(), encode(schema, to_avro(channel), self._header)
                signed = signer.headers(CHANNEL_SETTINGS.name, key, value)
                out.send(self._name, key, value, [(MARK_HEADER, self._full(mark)), *signed])
        self._published.update({channel.channel_id: self._full(mark) for channel, mark in found})
        failpoint("registrar.after_batch")
        return len(found)

    def _remove(self, names: Sequence[str]) -> None:
        with self._producer.records() as out:
            for name in names:
                out.send(self._name, name.encode(), None)
        for name in names:
            del self._published[name]

    def _full(self, mark: str | None) -> str:
        return f"{self._release}-{mark}{'' if self._checks_keys else '-unchecked'}"


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), RECORDS_MAX):
        yield names[first : first + RECORDS_MAX]
