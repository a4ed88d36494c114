"""The snapshots of `customers` as a channel reads them: records are read and decoded in a thread, the loop of the
channel applies them and moves the positions.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from threading import Condition, Event
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Connection, Engine
from structlog import get_logger

from tenten.consumers.channel.background_reader import BackgroundReader
from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.databases import channel_database
from tenten.consumers.channel.distribution.apply import Applied, apply
from tenten.consumers.channel.distribution.prefetch import PrefetchedBatch, SnapshotPrefetcher
from tenten.consumers.channel.distribution.read_position import ReadPosition
from tenten.consumers.channel.positions import Moves, TopicRead
from tenten.consumers.channel.snapshots import Changes
from tenten.kafka.assigned_reader import AssignedReader
from tenten.kafka.record_spans import RecordSpans
from tenten.kafka.schema_registry import writer_schemas
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings

log = get_logger(__name__)

FETCH_WAIT_MS: Final = 1_000
FETCH_BYTES_MIN: Final = 65_536
"""The broker collects this much, or for that long, before it sends snapshots, which costs it a third. No clerk waits
for them: the number of their own customer comes with the reply.
"""

_USUAL_PLANS: Final = "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = on"
"""The statements of large batches are planned for the batch, not once, as the loop's own ones are."""


class SnapshotStream:
    """Every partition of `customers`. Use it as a context manager; one thread at a time."""

    def __init__(
        self, settings: Settings, engine: Engine, view: ChannelView, position: ReadPosition, arrived: Condition
    ) -> None:
        self._settings = settings
        self._view = view
        self._position = position
        self._arrived = arrived
        self._dialect = channel_database(engine).dialect
        self._spans = RecordSpans("apply", {"channel": view.channel_id, "topic": position.topic.name})
        self._current: PrefetchedBatch | None = None
        self._first = self._slice_end = 0
        self._applied = Applied()
        self._seconds = 0.0
        self._reached: set[int] = set()
        self._ends: dict[int, int] = {}
        """Ends that the reading thread has reached behind what was taken."""

    def __enter__(self) -> Self:
        topic, group = self.topic, self._settings.channel_group(self._view.channel_id)
        with ExitStack() as stack:
            reader = AssignedReader(
                self._settings,
                topic.name,
                group,
                self._position.next_offsets,
                fetch_wait_ms=FETCH_WAIT_MS,
                fetch_bytes_min=FETCH_BYTES_MIN,
                spans=self._spans,
            )
            self._reader = stack.enter_context(reader)
            # Writer schemas of its own: they are looked up in the thread that reads.
            view = replace(self._view, writers=writer_schemas(self._settings))
            self._prefetcher = SnapshotPrefetcher(self._reader, view, self._dialect)
            self._background = stack.enter_context(BackgroundReader(topic.name, self._arrived, self._read))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def end(self) -> None:
        """End reading. Does not wait for the reading thread."""
        self._background.end()

    @property
    def topic(self) -> TopicRead:
        """The topic."""
        return self._position.topic

    def has_arrived(self) -> bool:
        """Whether there is something to apply. Does not block."""
        return self._current is not None or self._background.has_arrived()

    def was_away(self) -> bool:
        """Whether the channel was away for so long that it may have missed tombstones."""
        return self._position.was_away(datetime.now(UTC), self._prefetcher.stopped)

    def take(self, rows_max: int) -> Changes | None:
        """The changes of the next records, at most `rows_max` of them; the same ones again until `committed`.

        Does not block. Raises: `OffsetUnavailable`; `KafkaRefused`, `KafkaException`, and the errors of the schema
        lookup that waiting cannot fix.
        """
        if self._current is None:
            self._current = self._background.take()
            self._first = self._slice_end = 0
            if self._current is not None:
                self._note_ends(self._current.ends)
        batch = self._current.batch if self._current else None
        if batch is None:
            return None
        self._slice_end = min(batch.rows, self._first + rows_max)
        return batch.changes(self._first, self._slice_end)

    def write(self, connection: Connection, changes: Changes, at: datetime) -> None:
        """Apply the changes that were taken. Idempotent. Raises: `WriteConflict`."""
        if changes.frames is not None and connection.dialect.name == "postgresql":
            connection.exec_driver_sql(_USUAL_PLANS)
        self._applied += apply(connection, self._view, changes, at)
        failpoint("distribution.before_commit")

    def moves(self) -> Moves:
        """The positions to move with the records that were taken, and past markers behind them."""
        current = self._current
        if current is not None and current.batch is not None and self._slice_end < current.batch.rows:
            offsets = self._position.moves(current.next_offsets(self._slice_end), {})
            return Moves(topic=self.topic, offsets=offsets)
        with self._arrived:
            ends = dict(self._ends)
        offsets = self._position.moves(current.next_offsets(self._slice_end) if current else {}, ends)
        return Moves(topic=self.topic, offsets=offsets, at_end=self._position.at_end(offsets, ends))

    def committed(self, moves: Moves, at: datetime, seconds: float) -> None:
        """Record that the changes that were taken are applied, and these moves committed."""
        self._position.moved(moves.offsets, moves.at_end, at)
        self._spans.end({partition: next_offset for partition, (_, next_offset) in moves.offsets.items()})
        with self._arrived:
            for partition, (_, next_offset) in moves.offsets.items():
                if self._ends.get(partition, next_offset + 1) <= next_offset:
                    del self._ends[partition]
        if self._slice_end == self._first:
            return
        failpoint("distribution.after_commit")
        self._first = self._slice_end
        self._seconds += seconds
        assert self._current is not None
        if self._current.batch is None or self._first >= self._current.batch.rows:
            self._log_applied(self._current)
            self._current = None

    def is_behind(self) -> bool:
        """Whether an end was reached that is not stored yet."""
        return bool(self._ends)

    def is_complete(self) -> bool:
        """Whether every partition was at its end since the stream was opened."""
        return len(self._reached) == self.topic.partitions

    def confirm(self, stable_offsets: Mapping[int, int]) -> None:
        """Compare with recent last stable offsets: a position there, or past it, is at the end."""
        if self._current is None:
            self._note_ends(self._position.confirmed_ends(stable_offsets))

    def show_lag(self) -> None:
        """Commit the positions for lag monitors, now and then. Does not block."""
        self._reader.commit_for_monitoring(self._position.next_offsets)

    def _read(self, ended: Event) -> PrefetchedBatch | None:
        """The next batch. Runs in the reading thread, where it waits for schemas that cannot be looked up at the
        moment: replies go on meanwhile.
        """
        try:
            fetched = self._prefetcher.fetch(Retry("distribution", self._view.channel_id, ended))
        except Stopped:
            return None
        if fetched.batch is not None:
            return fetched
        self._note_ends(fetched.ends)
        return None

    def _note_ends(self, ends: Mapping[int, int]) -> None:
        """Record ends behind everything that was taken. The reading thread calls it only where no records wait.

        Kafka tells an end once: an earlier one that is noted after it, by another thread, does not replace it.
        """
        with self._arrived:
            for partition, end in ends.items():
                self._ends[partition] = max(end, self._ends.get(partition, end))
            self._reached.update(ends)

    def _log_applied(self, fetched: PrefetchedBatch) -> None:
        assert fetched.batch is not None
        log.info(
            "batch_applied",
            channel=self._view.channel_id,
            topic=self.topic.name,
            records=fetched.batch.rows,
            inserted=self._applied.inserted,
            updated=self._applied.updated,
            edited=self._applied.edited,
            removed=self._applied.removed,
            next_offsets=fetched.next_offsets(fetched.batch.rows),
            seconds=round(self._seconds, 3),
        )
        self._applied, self._seconds = Applied(), 0.0
