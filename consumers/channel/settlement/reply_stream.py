"""One topic of replies as a channel reads it: records are read and decoded in a thread, the loop of the channel settles
them and moves the position.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Condition, Event
from time import monotonic
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Engine
from structlog import get_logger

from tenten.consumers.channel.background_reader import BackgroundReader
from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.positions import (
    Moves,
    TopicRead,
    read_positions,
    register_topic,
    replace_positions,
    was_recreated,
)
from tenten.consumers.channel.settlement.replies import AnyReply, ReplyDecoder
from tenten.consumers.channel.settlement.transactions import send_open_transactions_again
from tenten.kafka.assigned_reader import POLL_SECONDS, AssignedReader, OffsetUnavailable
from tenten.kafka.offsets import earliest_offsets
from tenten.kafka.partitioner import partition_of
from tenten.kafka.record_spans import RecordSpans
from tenten.kafka.topics_admin import topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.topics import CHANNEL_REPLIES, TRANSACTION_REPLIES, Topic

log = get_logger(__name__)

REPLY_TOPICS: Final = (CHANNEL_REPLIES, TRANSACTION_REPLIES)
"""The topics of replies; headquarters of an earlier release has the first one only."""

RETRY_SECONDS: Final = 10.0
"""The time after which an unreadable reply is retried."""

FETCH_WAIT_MS: Final = 5_000
"""How long the broker holds a request while there is no reply; a reply is sent at once. Each request costs both sides.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadReplies:
    """Replies with their offsets, the offset to which the partition was read with them, and its end if that is it."""

    replies: Sequence[tuple[int, AnyReply]]
    read_to: int
    end: int | None


class ReplyStream:
    """The channel's own partition of one topic of replies. Use it as a context manager; one thread at a time.

    Raises when opened: `TopicChanged`, `KafkaRefused`, `KafkaException`, and the errors of the database.
    """

    def __init__(self, settings: Settings, engine: Engine, view: ChannelView, topic: Topic, arrived: Condition) -> None:
        self._settings = settings
        self._engine = engine
        self._channel_id = view.channel_id
        self._decoder = ReplyDecoder(view, topic)
        self._arrived = arrived
        self._spans = RecordSpans(
            "settle", {"channel": view.channel_id, "topic": settings.topic(topic)}, view.channel_id
        )
        self._position = _load_position(settings, engine, view.channel_id, settings.topic(topic))
        self.was_restarted = False
        """Whether the stored position is another one now: the stream must be opened again."""
        self._current: _ReadReplies | None = None
        self._first = self._slice_end = 0
        # Of the reading thread.
        self._unreadable_at: int | None = None
        self._retry_at = 0.0
        self._logged_offset = -1

    def __enter__(self) -> Self:
        topic, group = self.topic, self._settings.channel_group(self._channel_id)
        with ExitStack() as stack:
            self._reader = stack.enter_context(
                AssignedReader(
                    self._settings,
                    topic.name,
                    group,
                    self._position.assigned(),
                    fetch_wait_ms=FETCH_WAIT_MS,
                    spans=self._spans,
                )
            )
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
        """Whether there is something to settle. Does not block."""
        return self._current is not None or self._background.has_arrived()

    def take(self, rows_max: int) -> Sequence[AnyReply]:
        """The next replies to settle; the same ones again until `committed`. Does not block.

        Where Kafka has deleted the reply at the position, `was_restarted` is true afterwards.
        Raises: `KafkaRefused`, `KafkaException`, errors of the database, and errors of the schema lookup that waiting
        cannot fix.
        """
        if self._current is None:
            try:
                self._current, self._first = self._background.take(), 0
            except OffsetUnavailable:
                self._restart()
            if self._current is not None:
                self._pass_to(self._current.read_to, self._current.end)
        replies = self._current.replies if self._current else ()
        self._slice_end = min(len(replies), self._first + max(0, rows_max))
        return [reply for _, reply in replies[self._first : self._slice_end]]

    def moves(self) -> Moves:
        """The position to move with the replies that were taken, and past records and markers behind them."""
        position, current = self._position, self._current
        if current is not None and self._slice_end < len(current.replies):
            is_empty = self._slice_end == self._first
            next_offset = position.next_offset if is_empty else current.replies[self._slice_end - 1][0] + 1
            return Moves(topic=position.topic, offsets=position.move_to(next_offset))
        with self._arrived:
            next_offset, end = max(position.next_offset, position.passed_to), position.end
        at_end = [position.partition] if next_offset == end else ()
        return Moves(topic=position.topic, offsets=position.move_to(next_offset), at_end=at_end)

    def committed(self, moves: Moves, _: datetime, seconds: float) -> None:
        """Record that the replies that were taken are settled, and these moves committed."""
        position = self._position
        for move in moves.offsets.values():
            position.next_offset = move[1]
        self._spans.end({position.partition: position.next_offset})
        with self._arrived:
            if moves.at_end and position.end == position.next_offset:
                position.end = None
        replies = self._slice_end - self._first
        self._first = self._slice_end
        if self._current is not None and self._first >= len(self._current.replies):
            self._current = None
        if replies:
            failpoint("settlement.after_commit")
            log.info(
                "replies_settled",
                channel=self._channel_id,
                topic=position.topic.name,
                partition=position.partition,
                replies=replies,
                next_offset=position.next_offset,
                seconds=round(seconds, 3),
            )

    def is_behind(self) -> bool:
        """Whether the stored position is behind the reading, or the end is not stored yet."""
        return self._position.end is not None or self._position.passed_to > self._position.next_offset

    def show_lag(self) -> None:
        """Commit the position for lag monitors, now and then. Does not block."""
        self._reader.commit_for_monitoring(self._position.assigned())

    def _restart(self) -> None:
        """Store the beginning as position: Kafka has deleted replies that were not read yet.

        Unsettled events are sent again and get another reply, and so are transactions without a final one.
        """
        self.was_restarted = True
        position = self._position
        log.warning(
            "reply_offset_lost",
            channel=self._channel_id,
            topic=position.topic.name,
            next_offset=position.next_offset,
        )
        with self._engine.begin() as connection:
            replace_positions(connection, position.topic, {position.partition: 0}, datetime.now(UTC))
            send_open_transactions_again(connection)

    def _read(self, ended: Event) -> _ReadReplies | None:
        """The next replies of this channel. Runs in the reading thread, where it waits for schemas that cannot be
        looked up at the moment: snapshots go on meanwhile.
        """
        if self._unreadable_at is not None:
            if monotonic() < self._retry_at:
                ended.wait(min(POLL_SECONDS, RETRY_SECONDS))
                return None
            self._reader.assign({self._position.partition: self._unreadable_at})
            self._unreadable_at = None
        records = self._reader.read(BatchLimits())
        try:
            retry = Retry("settlement", self._channel_id, ended)
            replies, unreadable_at = retry.run_until_success(lambda: self._decoder.decode(records))
        except Stopped:
            return None
        read_to = records.offsets[-1] + 1 if records.keys else 0
        if unreadable_at is not None:
            read_to = unreadable_at
            self._wait_before(unreadable_at)
        end = records.ends.get(self._position.partition) if unreadable_at is None else None
        if replies:
            return _ReadReplies(replies=replies, read_to=read_to, end=end)
        self._pass_to(read_to, end)
        return None

    def _pass_to(self, read_to: int, end: int | None) -> None:
        """Record that everything before this offset is taken, or not for this channel; and the end if it is reached.

        The reading thread calls it only where no replies wait to be taken.
        """
        with self._arrived:
            self._position.passed_to = max(self._position.passed_to, read_to, end or 0)
            if end is not None:
                self._position.end = max(end, self._position.end or 0)

    def _wait_before(self, unreadable_at: int) -> None:
        """Stop reading for a while before an unreadable reply; log it once."""
        self._unreadable_at, self._retry_at = unreadable_at, monotonic() + RETRY_SECONDS
        if unreadable_at != self._logged_offset:
            self._logged_offset = unreadable_at
            log.error(
                "reply_unreadable",
                channel=self._channel_id,
                topic=self._position.topic.name,
                partition=self._position.partition,
                offset=unreadable_at,
            )


@dataclass(kw_only=True)
class _PartitionPosition:
    """The channel's position in its partition."""

    topic: TopicRead
    partition: int
    next_offset: int
    """As stored in the database."""
    passed_to: int = 0
    """The records before this offset are taken, or are not for this channel."""
    end: int | None = None
    """The offset of the partition's end, when it was reached and is not stored yet."""

    def assigned(self) -> dict[int, int]:
        """The stored position by partition."""
        return {self.partition: self.next_offset}

    def move_to(self, next_offset: int) -> dict[int, tuple[int, int]]:
        """The stored and the next position by partition."""
        return {self.partition: (self.next_offset, next_offset)}


def _load_position(settings: Settings, engine: Engine, channel_name: str, name: str) -> _PartitionPosition:
    """The channel's position in a topic (name with prefix); the first record where the channel has none.

    Where replies may have been deleted before the channel could read them, transactions without a final one are sent
    again.
    """
    info = topic_ids(settings, [name])[name]
    partition = partition_of(channel_name, info.partitions)
    begins_at = earliest_offsets(settings, name, info.partitions)[partition]
    with engine.begin() as connection:
        topic = register_topic(connection, name, info)
        stored = read_positions(connection, topic).get(partition)
        next_offset = begins_at if stored is None else max(begins_at, stored.next_offset)
        if stored is None or stored.next_offset < begins_at:
            if stored is not None:
                log.warning("reply_offset_lost", channel=channel_name, topic=name, next_offset=stored.next_offset)
            if begins_at > 0 or was_recreated(connection, topic):
                send_open_transactions_again(connection)
            replace_positions(connection, topic, {partition: next_offset}, datetime.now(UTC))
    return _PartitionPosition(topic=topic, partition=partition, next_offset=next_offset)
