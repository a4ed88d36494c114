"""What Kafka tells: heartbeats as they come, and every few seconds the workers of headquarters and the dead letters.

Three threads follow it, whatever the number of browsers; one that waits for an answer does not delay another. A page
never waits for Kafka: it shows what was last known, and since when Kafka has not answered.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.dead_letters import DeadLetter, list_dead_letters
from tenten.consumers.headquarters.known_channels import ChannelRegistry
from tenten.kafka.client_config import consumer_configuration
from tenten.kafka.client_errors import refusal_of
from tenten.kafka.client_waits import wait_for_leaders
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.errors import DatabaseRefused
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.schemas.topics import CHANNEL_STATUS, DEAD_LETTERS_OF, Topic
from tenten.status.heartbeats import Heard, Heartbeats, Received, Refused
from tenten.status.kafka_state import read_workers
from tenten.status.servers import kafka_problem

LETTERS_MAX: Final = 5_000
"""Of each topic the newest dead letters that are shown; `tenten dead-letters list` has all."""

_RECORDS: Final = 1_000
_POLL_SECONDS: Final = 0.5
_WORKERS_SECONDS: Final = 5.0
_WANTED_SECONDS: Final = 30.0
"""Workers are not asked about while no page has been shown for this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter without its content."""

    topic: Topic
    partition: int
    offset: int
    position: str
    reason: str
    text: str
    origin: str
    attempt: str
    failed_at: datetime
    is_cut: bool
    value_bytes: int

    @classmethod
    def of(cls, letter: DeadLetter) -> "Letter":
        """The same without its content."""
        return cls(
            topic=letter.topic,
            partition=letter.partition,
            offset=letter.offset,
            position=letter.position,
            reason=letter.reason,
            text=letter.text,
            origin=letter.origin,
            attempt=letter.header("x-dlq-attempt"),
            failed_at=datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC),
            is_cut=letter.is_cut,
            value_bytes=len(letter.value or b""),
        )


def _place(letter: Letter) -> tuple[datetime, str, int, int]:
    """The place in a list, unlike that of any other."""
    return letter.failed_at, letter.topic.name, letter.partition, letter.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSeen:
    """What Kafka last told."""

    heard: Mapping[str, Heard] | None = None
    """The last authentic heartbeat by channel; None until all were read."""
    refused: Mapping[str, Refused] = field(default_factory=dict)
    """The last heartbeat in a channel's name that the channel has not written."""
    members: Mapping[str, int] = field(default_factory=dict)
    """Running processes by worker of headquarters; empty until they are known."""
    lags: Mapping[str, int] = field(default_factory=dict)
    """Records that each worker has not processed."""
    letters: tuple[Letter, ...] | None = None
    """The newest first; None until they were read."""
    problem: str | None = None
    """Why Kafka does not tell more."""


class KafkaWatch:
    """Follows Kafka from `start` until `stop` is set."""

    def __init__(self, settings: Settings, engine: Engine, stop: Event) -> None:
        self._settings = settings
        self._engine = engine
        self._stop = stop
        self._lock = Lock()
        self._wanted_at = time.monotonic()
        self._registry = ChannelRegistry(engine)
        self._heartbeats = Heartbeats(mode=settings.authentication, is_logged=True)
        self._heard: Mapping[str, Heard] = {}
        self._refused: Mapping[str, Refused] = {}
        self._has_heard_all = False
        self._members: Mapping[str, int] = {}
        self._lags: Mapping[str, int] = {}
        self._letters: dict[str, dict[tuple[int, int], Letter]] = {}
        self._letter_ends: dict[str, Mapping[int, int]] = {}
        self._problems: dict[str, str] = {}

    def start(self) -> None:
        """Start the threads."""
        steps = (
            ("heartbeats", self._follow_heartbeats),
            ("workers", self._ask_about_workers),
            ("letters", self._read_all_letters),
        )
        for name, step in steps:
            Thread(target=self._repeat, args=(name, step), name=name, daemon=True).start()

    def seen(self) -> KafkaSeen:
        """What Kafka last told. Does not block."""
        self._wanted_at = time.monotonic()
        with self._lock:
            letters = [letter for of_topic in self._letters.values() for letter in of_topic.values()]
            return KafkaSeen(
                heard=self._heard if self._has_heard_all else None,
                refused=self._refused,
                members=self._members,
                lags=self._lags,
                letters=tuple(sorted(letters, key=_place, reverse=True))
                if len(self._letter_ends) == len(DEAD_LETTERS_OF)
                else None,
                problem=next(iter(self._problems.values()), None),
            )

    def _repeat(self, name: str, step: Callable[[Callable[[], None]], None]) -> None:
        """Repeat a step until `stop` is set. A failure is shown on the pages; the step is repeated after a pause."""
        retry = Retry("dashboard", "", self._stop, is_retryable=lambda _: True)

        def succeeded() -> None:
            retry.recovered()
            with self._lock:
                self._problems.pop(name, None)

        while not self._stop.is_set():
            with retry.retrying():
                try:
                    step(succeeded)
                except Exception as error:
                    self._note(name, error)
                    raise

    def _note(self, name: str, error: Exception) -> None:
        if isinstance(error, DBAPIError | DatabaseRefused):
            # The snapshot asks the database as well, and says so.
            return
        try:
            text = kafka_problem(self._settings, error)
        except Exception:  # noqa: BLE001 - it has no sentence; the log names its type
            text = f"Kafka cannot be followed ({type(error).__name__}): see the log of this process"
        with self._lock:
            self._problems[name] = text

    def _follow_heartbeats(self, succeeded: Callable[[], None]) -> None:
        """Read `channel-status` from its beginning, and on. Raises: `KafkaRefused`, `KafkaException`; errors of the
        database while it has never told the keys that decide which heartbeats count.
        """
        self._registry.refresh()
        own = {
            "group.id": self._settings.reader_group(),
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
        consumer = Consumer(consumer_configuration(self._settings, **own))
        writers = writer_schemas(self._settings)
        try:
            topic = self._settings.topic(CHANNEL_STATUS)
            wait_for_leaders(consumer, [topic])
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            while not self._stop.is_set():
                self._keep(consumer.consume(_RECORDS, _POLL_SECONDS), writers)
                if self._has_heard_all:
                    succeeded()
        finally:
            consumer.close()

    def _keep(self, messages: list[Message], writers: WriterSchemas) -> None:
        records: list[Message] = []
        reached_end = False
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                reached_end = True
            else:
                failure = KafkaException(error)
                raise refusal_of(failure, message.topic() or "") or failure
        if records:
            with suppress(DBAPIError, DatabaseRefused):
                # While the database is away, the keys that it told last count.
                self._registry.refresh()
            self._heartbeats.take([Received(record, writers) for record in records], self._registry.known.keys)
            with self._lock:
                self._heard, self._refused = dict(self._heartbeats.heard), dict(self._heartbeats.refused)
        if reached_end:
            self._has_heard_all = True

    def _ask_about_workers(self, succeeded: Callable[[], None]) -> None:
        """Ask once, and wait until the next time. Raises: `KafkaRefused`, `KafkaException`, `DBAPIError`."""
        if self._is_wanted():
            state = read_workers(self._settings)
            with self._lock:
                self._members, self._lags = state.members, state.lags
            succeeded()
        self._pause()

    def _read_all_letters(self, succeeded: Callable[[], None]) -> None:
        """Read new dead letters once, and wait until the next time. Raises: as `_ask_about_workers`."""
        if self._is_wanted():
            for topic in DEAD_LETTERS_OF.values():
                self._read_letters(topic)
            succeeded()
        self._pause()

    def _is_wanted(self) -> bool:
        return time.monotonic() - self._wanted_at < _WANTED_SECONDS

    def _pause(self) -> None:
        """Wait for the next time; a short while if no page is shown, so that the next one is soon up to date."""
        self._stop.wait(_WORKERS_SECONDS if self._is_wanted() else _POLL_SECONDS)

    def _read_letters(self, topic: Topic) -> None:
        """Read the dead letters that have come since the last time."""
        name = self._settings.topic(topic)
        partitions = topic_ids(self._settings, [name])[name].partitions
        ends = last_stable_offsets(self._settings, name, partitions)
        before = self._letter_ends.get(name, {})
        if any(ends.get(partition, 0) < end for partition, end in before.items()):
            # The topic was created again.
            before = {}
            self._letters.pop(name, None)
        if ends == before:
            return
        after = {partition: end - 1 for partition, end in before.items()}
        found = dict(self._letters.get(name, {}))
        for letter in list_dead_letters(self._settings, self._engine, topic, after):
            found[letter.partition, letter.offset] = Letter.of(letter)
        newest = sorted(found.items(), key=lambda item: item[1].failed_at)[-LETTERS_MAX:]
        with self._lock:
            self._letters[name] = dict(newest)
            self._letter_ends[name] = ends
