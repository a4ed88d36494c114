"""Settlement: closes what a channel is waiting for, by headquarters' replies.

Input: the channel's own partition of `channel-replies`, from the position in the channel's database.
Output: settled outbox rows, account numbers, the statuses of orders, sales and ends of day, and the position, in one
SQL transaction.
Promise: every reply is settled once, in order, and its effects become visible together.

    crash                            consequence
    before the commit                no effect; the same replies are read again
    after the commit                 reading continues behind them

Replies to events that this database does not have (it was restored from a backup) change nothing. Replies to other
channels in the same partition are skipped by their key. Replies with an unknown outcome, and records of another type,
leave their events unsettled. An unreadable reply to this channel stops settlement, as none
may be skipped; it is retried every few seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from time import monotonic
from typing import Final

from sqlalchemy import Connection, Engine, text
from structlog import get_logger

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.positions import (
    TopicRead,
    initialise_positions,
    move_positions,
    read_positions,
    register_topic,
    replace_positions,
    was_recreated,
)
from tenten.consumers.channel.settlement.customers import settle_customers
from tenten.consumers.channel.settlement.replies import ReplyDecoder
from tenten.consumers.channel.settlement.transactions import settle_transactions
from tenten.consumers.channel.topic_watch import TopicWatch
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import POLL_SECONDS, AssignedReader, OffsetUnavailable, Records
from tenten.kafka.partitioner import partition_of
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Reply
from tenten.schemas.topics import CHANNEL_REPLIES
from tenten.sql.engine import open_database
from tenten.sql.migrations import check_version
from tenten.sql.notifications import SETTLED_CHANNEL

log = get_logger(__name__)

RETRY_SECONDS: Final = 10.0
"""The time after which an unreadable reply is retried."""

STORE_SECONDS: Final = 1.0
"""The time after which the position is stored where there is nothing else to store."""

_POSTGRESQL_ROWS: Final = 2_000


def run(settings: Settings, channel_name: str, stop: Event) -> None:
    """Settle until `stop` is set.

    Raises, each with a remedy: `TopicChanged`, `KafkaRefused`, `DatabaseRefused`, `SettingsError`.
    """
    view = ChannelView.of(settings, channel_name, writer_schemas(settings))
    engine = open_database(settings.channel(channel_name).database)
    retry = Retry("settlement", channel_name, stop)
    decoder = ReplyDecoder(view)
    restart = False
    try:
        while not stop.is_set():
            with retry.retrying():
                check_version(engine, "channel")
                position = _load_position(settings, engine, channel_name, restart)
                restart = False
                try:
                    _follow(settings, engine, view, position, decoder=decoder, retry=retry, stop=stop)
                except OffsetUnavailable:
                    # Kafka has deleted older replies; unsettled events are sent again and get another reply.
                    log.warning("reply_offset_lost", channel=channel_name, next_offset=position.next_offset)
                    restart = True
    finally:
        engine.dispose()


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


def _load_position(settings: Settings, engine: Engine, channel_name: str, restart: bool) -> _PartitionPosition:
    """The channel's position: offset 0 of a topic that is new or recreated, or with `restart`."""
    name = settings.topic(CHANNEL_REPLIES)
    info = topic_ids(settings, [name])[name]
    now = datetime.now(UTC)
    with engine.begin() as connection:
        topic = register_topic(connection, name, info)
        partition = partition_of(channel_name, topic.partitions)
        positions = read_positions(connection, topic)
        if restart or (partition not in positions and was_recreated(connection, topic)):
            replace_positions(connection, topic, {partition: 0}, now)
        elif partition not in positions:
            initialise_positions(connection, topic, [partition], now)
        else:
            offset = positions[partition].next_offset
            return _PartitionPosition(topic=topic, partition=partition, next_offset=offset, read_to=offset)
    return _PartitionPosition(topic=topic, partition=partition, next_offset=0, read_to=0)


def _follow(
    settings: Settings,
    engine: Engine,
    view: ChannelView,
    position: _PartitionPosition,
    *,
    decoder: ReplyDecoder,
    retry: Retry,
    stop: Event,
) -> None:
    """Settle replies until `stop` is set or the position must be loaded again."""
    slices = Slices(engine.dialect.name, _POSTGRESQL_ROWS)
    group = settings.group(f"channel.{view.channel_id}")
    stored_at, stopped_at = 0.0, -1
    with (
        AssignedReader(settings, position.topic.name, group, {position.partition: position.next_offset}) as reader,
        TopicWatch(settings, position.topic) as watch,
    ):
        while not stop.is_set() and not watch.topic_changed():
            records = reader.read(BatchLimits(), POLL_SECONDS)
            replies, unreadable_at = decoder.decode(records)
            _settle_replies(engine, view, position, replies, slices)
            position.read(records, unreadable_at)
            if unreadable_at is not None:
                if unreadable_at != stopped_at:
                    log.error(
                        "reply_unreadable", channel=view.channel_id, partition=position.partition, offset=unreadable_at
                    )
                stopped_at = unreadable_at
                stop.wait(RETRY_SECONDS)
                reader.assign({position.partition: unreadable_at})
            elif monotonic() - stored_at >= STORE_SECONDS and position.is_behind():
                _store_position(engine, position)
                stored_at = monotonic()
                reader.commit_for_monitoring({position.partition: position.next_offset})
                retry.recovered()


def _settle_replies(
    engine: Engine,
    view: ChannelView,
    position: _PartitionPosition,
    replies: Sequence[tuple[int, Reply]],
    slices: Slices,
) -> None:
    """Settle replies, given with their offsets, in one transaction or several; each moves the position."""
    for first, end in slices.cut(len(replies)):
        started = monotonic()
        slice_of_replies = [reply for _, reply in replies[first:end]]
        next_offset = replies[end - 1][0] + 1
        with engine.begin() as connection, slices.timed(end - first):
            now = datetime.now(UTC)
            settle(connection, view, slice_of_replies, now)
            moves = {position.partition: (position.next_offset, next_offset)}
            move_positions(connection, position.topic, moves, (), now)
            failpoint("settlement.before_commit")
        failpoint("settlement.after_commit")
        position.next_offset = position.read_to = next_offset
        log.info(
            "replies_settled",
            channel=view.channel_id,
            partition=position.partition,
            replies=len(slice_of_replies),
            next_offset=next_offset,
            seconds=round(monotonic() - started, 3),
        )


def settle(connection: Connection, view: ChannelView, replies: Sequence[Reply], at: datetime) -> None:
    """Settle replies to this channel, in order. Idempotent. A fixed number of statements.

    Locks customers before the outbox, and transactions after customers, as a clerk's change does.
    """
    to_transactions = [reply for reply in replies if reply.transaction_status]
    to_customers = [reply for reply in replies if not reply.transaction_status]
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
