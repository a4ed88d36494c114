"""Read assigned partitions from positions stored in a database: a channel is a full replica, not a group member.

Guarantees: only committed records; no offset that Kafka chose; the end of a partition is reported.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tenten.kafka.client_config import consumer_configuration
from tenten.kafka.client_errors import refusal_of
from tenten.kafka.client_waits import wait_for_leaders, wake
from tenten.kafka.record_spans import RecordSpans
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.settings import Settings

POLL_SECONDS: Final = 0.5
"""How long an idle read waits: the longest delay of SIGTERM on a quiet topic."""

_CONSUME_RECORDS: Final = 1_000
"""How many records are consumed per call while a batch fills."""

MONITORING_SECONDS: Final = 60.0
"""The shortest time between two commits of offsets, which only lag monitors read: each one is a record for Kafka."""

_MARKER_SECONDS: Final = 1.0
"""How long offsets that have moved wait before they are committed: the end behind a transaction's marker follows."""


class OffsetUnavailable(Exception):
    """A position is before the first or after the last record of the topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Delivered records, in order within each partition: four columns of equal length, and the ends reached."""

    keys: Sequence[bytes | None] = ()
    values: Sequence[bytes | None] = ()
    partitions: Sequence[int] = ()
    offsets: Sequence[int] = ()
    ends: Mapping[int, int] = field(default_factory=dict)
    """By partition, the offset of its end if it was reached: past control markers, which are not records."""

    def rows(self, rows: Sequence[int]) -> "Records":
        """These records without the ends."""
        return Records(
            keys=[self.keys[row] for row in rows],
            values=[self.values[row] for row in rows],
            partitions=[self.partitions[row] for row in rows],
            offsets=[self.offsets[row] for row in rows],
        )

    def next_offsets(self, rows: int | None = None) -> dict[int, int]:
        """By partition, the offset after the last of the first `rows` records (None: all of them)."""
        last = dict(zip(self.partitions[:rows], self.offsets[:rows], strict=True))
        return {partition: offset + 1 for partition, offset in last.items()}


class AssignedReader:
    """A consumer of given partitions of one topic. Use it as a context manager; one thread at a time.

    Raises when reading: `OffsetUnavailable`; `KafkaRefused`; `KafkaException`. An unavailable broker raises nothing:
    reads are empty until it is back.

    `queue_kbytes`: how much is fetched ahead; `fetch_wait_ms`: how long the broker may hold a fetch that finds less
    than `fetch_bytes_min`. Default as for every consumer. `spans` begin with the records that are read.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        group: str,
        next_offsets: Mapping[int, int],
        queue_kbytes: int | None = None,
        *,
        spans: RecordSpans | None = None,
        fetch_wait_ms: int | None = None,
        fetch_bytes_min: int | None = None,
    ) -> None:
        self._settings = settings
        self._spans = spans
        self._topic = topic
        self._group = group
        self._next_offsets = dict(next_offsets)
        self._paused: set[int] = set()
        self._monitored: dict[int, int] = {}
        self._shown: dict[int, int] = {}
        self._moved_at = self._monitored_at = -math.inf
        fetch = {
            "queued.max.messages.kbytes": queue_kbytes,
            # A response is in memory until its last record was read, so its size counts as well.
            "fetch.max.bytes": None if queue_kbytes is None else queue_kbytes * 1024,
            "fetch.message.max.bytes": None if queue_kbytes is None else queue_kbytes * 1024 // 16,
            "fetch.wait.max.ms": fetch_wait_ms,
            "fetch.min.bytes": fetch_bytes_min,
        }
        self._fetch = {name: value for name, value in fetch.items() if value is not None}

    def __enter__(self) -> Self:
        own: dict[str, Any] = {
            # Only for lag monitors: the reader is not a member, and never reads offsets committed under it.
            "group.id": self._group,
            # The caller handles a position that the topic does not have: nothing is skipped or repeated silently.
            "auto.offset.reset": "error",
            # Only the end-of-partition event has an offset past the control markers at the end.
            "enable.partition.eof": True,
            **self._fetch,
        }
        self._consumer = Consumer(consumer_configuration(self._settings, **own))
        wait_for_leaders(self._consumer, [self._topic])
        self.assign(self._next_offsets)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commit_moved()
        self._consumer.close()

    def assign(self, next_offsets: Mapping[int, int]) -> None:
        """Read only these partitions, from these offsets."""
        self._next_offsets = dict(next_offsets)
        self._paused.clear()
        self._consumer.assign([self._at(partition, offset) for partition, offset in self._next_offsets.items()])

    def read(self, limits: BatchLimits, seconds: float | None = None, linger_seconds: float = 0.0) -> Records:
        """Return fetched records up to the limits; waits at most `seconds` (None: `POLL_SECONDS`) for the first.

        A small batch waits `linger_seconds` for more.
        """
        self._commit_when_due()
        # Unlike `poll`, which wakes up five times a second, it waits for the whole time.
        messages = self._consumer.consume(1, POLL_SECONDS if seconds is None else seconds)
        if not messages:
            return Records()
        self._collect(messages, limits)
        if linger_seconds and len(messages) < _CONSUME_RECORDS:
            sleep(linger_seconds)
            self._collect(messages, limits)
        return self._records(messages)

    def _collect(self, messages: list[Message], limits: BatchLimits) -> None:
        """Add records that are already fetched, up to the limits."""
        size = sum(map(len, messages))
        while len(messages) < limits.records_max and size < limits.bytes_max:
            more = self._consumer.consume(min(_CONSUME_RECORDS, limits.records_max - len(messages)), timeout=0)
            if not more:
                return
            messages.extend(more)
            size += sum(map(len, more))

    def pause(self, partition: int, offset: int) -> None:
        """Stop reading this partition until `resume`, which continues at this offset."""
        self._consumer.pause([TopicPartition(self._topic, partition)])
        self._paused.add(partition)
        self._next_offsets[partition] = offset

    def resume(self, partitions: Iterable[int]) -> None:
        """Continue paused partitions at their offsets. May block for a second per partition."""
        resumed = list(partitions)
        for partition in resumed:
            position = self._at(partition, self._next_offsets[partition])
            self._consumer.seek(position)
            self._consumer.resume([position])
            self._paused.discard(partition)
        wake(self._consumer, self._topic, resumed)

    def commit_for_monitoring(self, next_offsets: Mapping[int, int]) -> None:
        """Have these offsets committed, for lag monitors only: at most once a minute, those that have moved.

        Any thread may call it; the reading one commits, asynchronously. The last offsets are committed on closing.
        """
        self._shown = dict(next_offsets)

    def _commit_when_due(self) -> None:
        """Commit offsets that have moved. Does not block."""
        now = monotonic()
        if self._shown.items() <= self._monitored.items():
            self._moved_at = now
        elif now - self._moved_at >= _MARKER_SECONDS and now - self._monitored_at >= MONITORING_SECONDS:
            self._commit_moved()
            self._monitored_at = now

    def _commit_moved(self) -> None:
        moved = self._shown.items() - self._monitored.items()
        if moved:
            offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in sorted(moved)]
            self._consumer.commit(offsets=offsets, asynchronous=True)
            self._monitored.update(moved)

    def _at(self, partition: int, offset: int) -> TopicPartition:
        return TopicPartition(self._topic, partition, offset or OFFSET_BEGINNING)

    def _records(self, messages: Sequence[Message]) -> Records:
        ends: dict[int, int] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                partition, end = self._end(message, error)
                ends[partition] = end
        good = [message for message in messages if message.error() is None]
        if self._paused:
            good = [message for message in good if message.partition() not in self._paused]
        if self._spans is not None:
            self._spans.begin(good)
        records = Records(
            keys=[message.key() for message in good],
            values=[message.value() for message in good],
            # The stubs allow None, but only errors have it.
            partitions=[message.partition() or 0 for message in good],
            offsets=[message.offset() or 0 for message in good],
        )
        # Records delivered after an end are past it.
        after = records.next_offsets()
        reached = {
            partition: end
            for partition, end in ends.items()
            if end >= after.get(partition, 0) and partition not in self._paused
        }
        return Records(
            keys=records.keys,
            values=records.values,
            partitions=records.partitions,
            offsets=records.offsets,
            ends=reached,
        )

    @staticmethod
    def _end(message: Message, error: KafkaError) -> tuple[int, int]:
        partition, offset = message.partition(), message.offset()
        if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
            return partition, offset
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise OffsetUnavailable(f"partition {partition} has no record at the position")
        failure = KafkaException(error)
        raise refusal_of(failure) or failure
