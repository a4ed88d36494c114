"""One topic of replies as a channel reads it: from the records to the database and the position."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Connection, Engine, text
from structlog import get_logger

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.positions import (
    TopicRead,
    move_positions,
    read_positions,
    register_topic,
    replace_positions,
    was_recreated,
)
from tenten.consumers.channel.settlement.customers import settle_customers
from tenten.consumers.channel.settlement.replies import ReplyDecoder
from tenten.consumers.channel.settlement.transactions import send_open_transactions_again, settle_transactions
from tenten.consumers.channel.topic_watch import TopicWatch
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import AssignedReader, OffsetUnavailable, Records
from tenten.kafka.offsets import earliest_offsets
from tenten.kafka.partitioner import partition_of
from tenten.kafka.topics_admin import topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.failpoints import failpoint
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Reply, TransactionReply
from tenten.schemas.topics import Topic
from tenten.sql.notifications import SETTLED_CHANNEL

log = get_logger(__name__)

RETRY_SECONDS: Final = 10.0
"""The time after which an unreadable reply is retried."""

STORE_SECONDS: Final = 1.0
"""The time after which the position is stored where there is nothing else to store."""

_POSTGRESQL_ROWS: Final = 2_000


class ReplyStream:
    """The channel's own partition of one topic of replies. Use it as a context manager.

    Raises when opened: `TopicChanged`, `KafkaRefused`, `KafkaException`, and the errors of the database.
    """

    def __init__(self, settings: Settings, engine: Engine, view: ChannelView, topic: Topic) -> None:
        self._settings = settings
        self._engine = engine
        self._view = view
        self._decoder = ReplyDecoder(view, topic)
        self._slices = Slices(engine.dialect.name, _POSTGRESQL_ROWS)
        self._position = _load_position(settings, engine, view.channel_id, settings.topic(topic))
        self._stored_at = 0.0
        self._unreadable_at: int | None = None
        """The offset of the unreadable reply before which reading has stopped."""
        self._retry_at = 0.0
        self._logged_offset = -1
        self.has_more = False
        """Whether the last read has returned records: more may follow at once."""

    def __enter__(self) -> Self:
        topic, group = self._position.topic, self._settings.channel_group(self._view.channel_id)
        with ExitStack() as stack:
            self._reader = stack.enter_context(
                AssignedReader(self._settings, topic.name, group, self._position.assigned())
            )
            self._watch = stack.enter_context(TopicWatch(self._settings, topic))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def topic_changed(self) -> bool:
        """As `TopicWatch.topic_changed`."""
        return self._watch.topic_changed()

    def is_readable(self) -> bool:
        """Whether it may be read now; not for a while after an unreadable reply. Does not block."""
        return self._unreadable_at is None or monotonic() >= self._retry_at

    def settle_next(self, wait_seconds: float) -> bool:
        """Read and settle the next replies; wait at most this long for the first. True if a position was stored.

        A position that Kafka has deleted is replaced by the beginning.
        Raises: `KafkaRefused`, `KafkaException`, `WriteConflict`, and the errors of the database.
        """
        if self._unreadable_at is not None:
            self._reader.assign({self._position.partition: self._unreadable_at})
            self._unreadable_at = None
        try:
            records = self._reader.read(BatchLimits(), wait_seconds)
        except OffsetUnavailable:
            self._restart()
            return False
        self.has_more = bool(records.keys)
        replies, unreadable_at = self._decoder.decode(records)
        self._settle(replies)
        self._position.read(records, unreadable_at)
        if unreadable_at is not None:
            self._wait_before(unreadable_at)
        elif monotonic() - self._stored_at >= STORE_SECONDS and self._position.is_behind():
            _store_position(self._engine, self._position)
            self._stored_at = monotonic()
            return True
        self._reader.commit_for_monitoring(self._position.assigned())
        return False

    def _settle(self, replies: Sequence[tuple[int, Reply | TransactionReply]]) -> None:
        """Settle replies, given with their offsets, in one transaction or several; each moves the position."""
        position = self._position
        for first, end in self._slices.cut(len(replies)):
            started = monotonic()
            slice_of_replies = [reply for _, reply in replies[first:end]]
            next_offset = replies[end - 1][0] + 1
            with self._engine.begin() as connection, self._slices.timed(end - first):
                now = datetime.now(UTC)
                settle(connection, self._view, slice_of_replies, now)
                moves = {position.partition: (position.next_offset, next_offset)}
                move_positions(connection, position.topic, moves, (), now)
                failpoint("settlement.before_commit")
            failpoint("settlement.after_commit")
            position.next_offset = position.read_to = next_offset
            log.info(
                "replies_settled",
                channel=self._view.channel_id,
                topic=position.topic.name,
                partition=position.partition,
                replies=len(slice_of_replies),
                next_offset=next_offset,
                seconds=round(monotonic() - started, 3),
            )

    def _wait_before(self, unreadable_at: int) -> None:
        """Stop reading for a while before an unreadable reply; log it once."""
        self._unreadable_at, self._retry_at, self.has_more = unreadable_at, monotonic() + RETRY_SECONDS, False
        if unreadable_at != self._logged_offset:
            self._logged_offset = unreadable_at
            log.error(
                "reply_unreadable",
                channel=self._view.channel_id,
                topic=self._position.topic.name,
                partition=self._position.partition,
                offset=unreadable_at,
            )

    def _restart(self) -> None:
        """Continue at the beginning: Kafka has deleted replies that were not read yet.

        Unsettled events are sent again and get another reply, and so are transactions without a final one.
        """
        position = self._position
        log.warning(
            "reply_offset_lost",
            channel=self._view.channel_id,
            topic=position.topic.name,
            next_offset=position.next_offset,
        )
        with self._engine.begin() as connection:
            replace_positions(connection, position.topic, {position.partition: 0}, datetime.now(UTC))
            send_open_transactions_again(connection)
        self._position = _PartitionPosition(
            topic=position.topic, partition=position.partition, next_offset=0, read_to=0
        )
        self._reader.assign(self._position.assigned())


@dataclass(kw_only=True)
class _PartitionPosition:
    """The channel's position in its partition."""

    topic: TopicRead
    partition: int
    next_offset: int
    """As stored in the database."""
    read_to: int
    end: int | None = None
    """The offset of the partition's end, when it was reached."""

    def assigned(self) -> dict[int, int]:
        """The stored position by partition."""
        return {self.partition: self.next_offset}

    def read(self, records: Records, unreadable_at: int | None) -> None:
        """Record how far the partition has been read: to the end of these records, or to the unreadable one."""
        if unreadable_at is not None:
            self.read_to = unreadable_at
        elif records.keys:
            self.read_to = records.offsets[-1] + 1
        self.end = records.ends.get(self.partition, self.end)

    def is_behind(self) -> bool:
        """Whether the stored position is behind the reading, or the end is not stored yet."""
        return self.end is not None or self.read_to != self.next_offset


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
    return _PartitionPosition(topic=topic, partition=partition, next_offset=next_offset, read_to=next_offset)


def settle(
    connection: Connection, view: ChannelView, replies: Sequence[Reply | TransactionReply], at: datetime
) -> None:
    """Settle replies to this channel, in order. Idempotent. A fixed number of statements.

    Locks customers before the outbox, and transactions after customers, as a clerk's change does.
    """
    to_customers = [reply for reply in replies if isinstance(reply, Reply)]
    to_transactions = [reply for reply in replies if isinstance(reply, TransactionReply)]
    if to_customers:
        settle_customers(connection, view, to_customers, at)
    if to_transactions:
        settle_transactions(connection, to_transactions, at)
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": SETTLED_CHANNEL})


def _store_position(engine: Engine, position: _PartitionPosition) -> None:
    """Move the position past records that are not for this channel, and store the end where it was reached."""
    now = datetime.now(UTC)
    at_end = position.end is not None and position.end >= position.read_to
    next_offset = max(position.read_to, position.end or 0)
    with engine.begin() as connection:
        moves = {position.partition: (position.next_offset, next_offset)}
        move_positions(connection, position.topic, moves, [position.partition] if at_end else (), now)
    position.next_offset = position.read_to = next_offset
    position.end = None
