"""The settings of a channel in its process: what headquarters publishes, stored in the channel's database and used at
once.

A thread reads the channel's partition of `channel-settings`. Each process of the channel does, so that each learns of a
change within a second; they store the same. Without the topic, or before headquarters has published anything for the
channel, the settings of tenten.toml are used.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Condition, Event, Thread
from time import monotonic
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.wire import Unreadable, contract
from tenten.kafka.assigned_reader import AssignedReader, OffsetUnavailable
from tenten.kafka.partitioner import partition_of
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.error_codes import error_code
from tenten.runtime.errors import KafkaRefused
from tenten.runtime.settings import Settings
from tenten.runtime.settings.from_headquarters import differing_settings, with_headquarters
from tenten.schemas.messages import ChannelSettings, channel_settings_from_avro
from tenten.schemas.topics import Topic
from tenten.sql.channel_settings import RecordPosition, read_channel_settings, store_channel_settings
from tenten.sql.engine import consistent_view

log = get_logger(__name__)

FETCH_WAIT_MS: Final = 10_000
"""How long the broker holds a request while nothing changes; a change is sent at once."""

_QUEUE_KBYTES: Final = 2_048

RETRY_SECONDS: Final = 5.0
REFUSED_SECONDS: Final = 60.0
"""How long after a failure the topic is tried again; longer where Kafka has refused it, or it does not exist."""

WATCH_SECONDS: Final = 60.0
"""How often the topic is compared with the one that is read, on average."""

CLOSE_SECONDS: Final = 5.0
"""How long the end of the thread is waited for."""

_NAMES_MAX: Final = 20
"""The most settings that a log event names."""


class OwnSettings:
    """The settings that are in force for a channel. `changed` is notified after a change, from a thread of its own."""

    def __init__(
        self, configured: Settings, engine: Engine, channel_name: str, topic: Topic, changed: Condition
    ) -> None:
        """`configured`: the settings of tenten.toml."""
        self._configured = configured
        self._engine = engine
        self._channel_name = channel_name
        self._topic = configured.topic(topic)
        self._contract = contract(topic.value)
        self._writers = writer_schemas(configured)
        self._changed = changed
        self._position: RecordPosition | None = None
        self._published: ChannelSettings | None = None
        self._logged: list[str] = []
        self._is_failure_logged = False
        self._ended = Event()
        self._thread = Thread(target=self._run, name="settings", daemon=True)
        self.current = configured
        """Replaced as a whole, never changed."""

    def start(self) -> None:
        """Use the stored settings, and begin to read newer ones. Idempotent. Raises: errors of the database."""
        if self._thread.ident is None:
            with consistent_view(self._engine) as connection:
                stored = read_channel_settings(connection, self._channel_name)
            if stored is not None:
                self._position = stored.position
                self._use(stored.settings)
            self._thread.start()

    def close(self) -> None:
        """End reading. Waits a little for the thread, which may be waiting for the broker. Idempotent."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except OffsetUnavailable:
                self._position = None
            except Exception as error:  # noqa: BLE001 - whatever fails here, the channel goes on with what it has
                self._log_failure(error)
                self._ended.wait(_pause_seconds(error))

    def _follow(self) -> None:
        """Read until the end, or until the topic is another one."""
        info = topic_ids(self._configured, [self._topic])[self._topic]
        partition = partition_of(self._channel_name, info.partitions)
        is_known = self._position is not None and self._position.topic_id == info.topic_id
        # From the record that is stored: another release may understand more of it.
        offset = self._position.offset if self._position is not None and is_known else 0
        group = self._configured.channel_group(self._channel_name)
        reader = AssignedReader(
            self._configured, self._topic, group, {partition: offset}, _QUEUE_KBYTES, fetch_wait_ms=FETCH_WAIT_MS
        )
        with reader:
            watch_at = _next_watch()
            while not self._ended.is_set():
                records = reader.read(BatchLimits())
                self._take(records.keys, records.values, records.offsets, info)
                self._is_failure_logged = False
                if monotonic() >= watch_at:
                    watch_at = _next_watch()
                    if topic_ids(self._configured, [self._topic])[self._topic] != info:
                        return

    def _take(
        self, keys: Sequence[bytes | None], values: Sequence[bytes | None], offsets: Sequence[int], info: TopicInfo
    ) -> None:
        """Store and use the newest record of this channel among these, if there is one."""
        own = [row for row, key in enumerate(keys) if key == self._channel_name.encode()]
        if not own:
            return
        value, position = values[own[-1]], RecordPosition(info.topic_id, offsets[own[-1]])
        if value is None:
            log.warning("channel_settings_removed", channel=self._channel_name)
            return
        try:
            settings = channel_settings_from_avro(self._writers.decode(value, self._contract))
        except Unreadable as problem:
            log.warning("channel_settings_unreadable", channel=self._channel_name, reason=problem.reason)
            return
        # The record that is stored is read again at each start.
        if (position, settings) != (self._position, self._published):
            with self._engine.begin() as connection:
                store_channel_settings(connection, settings, position, datetime.now(UTC))
            self._position = position
            log.info("channel_settings_received", channel=self._channel_name, version=settings.version)
            self._use(settings)

    def _use(self, settings: ChannelSettings) -> None:
        """Put these settings in force; log once which settings of tenten.toml are not used."""
        different = differing_settings(self._configured, self._channel_name, settings)
        if different and different != self._logged:
            log.warning("channel_settings_differ", channel=self._channel_name, settings=different[:_NAMES_MAX])
        self._logged = different
        self._published = settings
        with self._changed:
            self.current = with_headquarters(self._configured, self._channel_name, settings)
            self._changed.notify_all()

    def _log_failure(self, error: Exception) -> None:
        if not self._is_failure_logged:
            self._is_failure_logged = True
            log.warning(
                "channel_settings_failed",
                channel=self._channel_name,
                topic=self._topic,
                error=type(error).__name__,
                code=error_code(error),
            )


def _pause_seconds(error: Exception) -> float:
    return (REFUSED_SECONDS if isinstance(error, KafkaRefused) else RETRY_SECONDS) * random.uniform(0.8, 1.2)


def _next_watch() -> float:
    return monotonic() + WATCH_SECONDS * random.uniform(0.8, 1.2)
