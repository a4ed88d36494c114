"""The loop of a channel: headquarters' replies and snapshots become rows, one SQL transaction per wake-up.

Input: the channel's own partition of `channel-replies` and `transaction-replies`, and every partition of `customers`.
Each topic has a consumer and a thread that reads and decodes ahead: replies at once, snapshots collected by the broker.
Output: the tables of the channel, and its positions. Each time the loop wakes up it writes all records that have
arrived in one transaction: first the replies, then the snapshots, then the positions of both by compare-and-set.

A backlog of snapshots is cut into slices, and replies go with the next slice. While another process has the apply lock,
or a resync runs, replies are settled alone. An unreadable record stops its own partition only (snapshots) or its own
topic (replies), in the thread that reads. There a schema that cannot be looked up at the moment is waited for, too.

The settings of the channel are read beside them (own_settings.py). When its filter changes, a resync that runs by the
former one ends, and the streams are opened again: the position stands beside its filter, so a resync follows.

`settlement/run.py` and `distribution/run.py` run this loop with one kind of input.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Condition, Event, Thread
from time import monotonic
from typing import Final

from sqlalchemy import Connection, Engine
from structlog import get_logger

from tenten.consumers.channel.counted import count_batch, creates_of
from tenten.consumers.channel.distribution.background_resync import BackgroundResync
from tenten.consumers.channel.distribution.read_position import (
    ReadPosition,
    is_complete_at_last,
    load_read_position,
)
from tenten.consumers.channel.distribution.snapshot_stream import SnapshotStream
from tenten.consumers.channel.loop_state import Loop
from tenten.consumers.channel.own_settings import OwnSettings
from tenten.consumers.channel.positions import Moves, move_positions
from tenten.consumers.channel.record_decoding import check_column_library
from tenten.consumers.channel.settlement.replies import AnyReply
from tenten.consumers.channel.settlement.reply_stream import REPLY_TOPICS, ReplyStream
from tenten.consumers.channel.settlement.settle import settle
from tenten.consumers.channel.snapshots import Changes
from tenten.consumers.channel.topic_watch import TopicWatch
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import OffsetUnavailable
from tenten.kafka.topics_admin import topic_exists
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.errors import LockHeld
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.schemas.topics import CHANNEL_SETTINGS, Topic
from tenten.sql.engine import open_database
from tenten.sql.locks import try_apply_lock
from tenten.sql.migrations import check_version
from tenten.sql.postgresql_driver import driver_of

log = get_logger(__name__)

STORE_SECONDS: Final = 1.0
"""The time after which positions alone are stored: past control markers, and past records that are not for the channel.
"""

_LOCKED_SECONDS: Final = 0.01
"""The pause before the apply lock, which another process has, is tried again."""

_POSTGRESQL_REPLIES: Final = 2_000
"""Replies per transaction on PostgreSQL."""

_SNAPSHOTS_MIN: Final = 20
"""The smallest slice of snapshots beside replies, so that these cannot hold them up."""


def run(
    settings: Settings,
    channel_name: str,
    stop: Event,
    *,
    with_replies: bool = True,
    with_snapshots: bool = True,
    settings_topic: Topic = CHANNEL_SETTINGS,
) -> None:
    """Settle replies and apply snapshots until `stop` is set. Waits for the first settings of the channel.

    Raises, each with a remedy: `TopicChanged`, `KafkaRefused`, `DatabaseRefused`, `SettingsError`, and
    `SnapshotUnreadable` from a resync that was necessary.
    """
    settings = settings.for_channel(channel_name)
    engine = open_database(settings.channel(channel_name).database)
    if with_snapshots:
        check_column_library(engine.dialect.name)
    name = "channel" if with_replies and with_snapshots else "settlement" if with_replies else "distribution"
    retry = Retry(name, channel_name, stop)
    arrived = Condition()
    own = OwnSettings(settings, engine, channel_name, settings_topic, arrived)
    loop = Loop(
        channel_id=channel_name, settings=settings, own=own, engine=engine, retry=retry, stop=stop, arrived=arrived
    )
    Thread(target=_wake_to_stop, args=(loop,), name="stop", daemon=True).start()
    resync: BackgroundResync | None = None
    resync_reason: str | None = None
    try:
        while not stop.is_set():
            with retry.retrying():
                check_version(engine, "channel")
                own.start()
                if loop.filter_has_changed() and resync is not None:
                    resync.close()
                    resync = resync_reason = None
                if not loop.adopt_settings():
                    continue
                position: ReadPosition | None = None
                if with_snapshots and resync is None:
                    position, new_reason = load_read_position(loop.settings, engine, loop.view.filter)
                    resync_reason = resync_reason or new_reason
                if position is not None and resync_reason is not None:
                    log.warning("resync_needed", channel=channel_name, because=resync_reason)
                    resync, position = BackgroundResync(loop.settings, channel_name, loop.arrived), None
                try:
                    _follow(loop, position, resync, with_replies=with_replies)
                except OffsetUnavailable as error:
                    resync_reason = str(error)
                if resync is not None and resync.has_ended():
                    ended, resync = resync, None
                    _check_resync(ended, retry)
                    resync_reason = None
    finally:
        if resync is not None:
            resync.close()
        own.close()
        engine.dispose()


def _wake_to_stop(loop: Loop) -> None:
    """Wake the loop when `stop` is set, so that it need not look for that."""
    loop.stop.wait()
    with loop.arrived:
        loop.arrived.notify_all()


def _check_resync(resync: BackgroundResync, retry: Retry) -> None:
    """Raises: the errors of the resync that has ended; while another process resyncs this channel, waits a little."""
    try:
        resync.check()
    except LockHeld:
        retry.pause()


@dataclass(slots=True, kw_only=True)
class _Streams:
    """The topics that the loop reads at the moment."""

    replies: Sequence[ReplyStream]
    snapshots: SnapshotStream | None
    watch: TopicWatch
    reply_slices: Slices
    snapshot_slices: Slices
    stored_at: float = 0.0
    snapshots_at: float = 0.0
    """Not earlier than this time snapshots are tried again, after another process had the apply lock."""

    def all(self) -> "list[ReplyStream | SnapshotStream]":
        """Every stream."""
        return [*self.replies, *([] if self.snapshots is None else [self.snapshots])]

    def show_lag(self) -> None:
        """Show the positions to lag monitors, now and then. Does not block."""
        for stream in self.all():
            stream.show_lag()

    def end(self) -> None:
        """End reading in all threads, so that none is waited for before the others know."""
        for stream in (*self.replies, self.snapshots):
            if stream is not None:
                stream.end()

    def must_reopen(self) -> bool:
        """Whether the streams must be opened again. Does not block. Raises: as `TopicWatch.topics_changed`."""
        away = self.snapshots is not None and self.snapshots.was_away()
        return self.watch.topics_changed() or away or any(stream.was_restarted for stream in self.replies)

    def ready(self) -> bool:
        """Whether something can be written. Does not block."""
        snapshots = self.snapshots is not None and self.snapshots.has_arrived() and monotonic() >= self.snapshots_at
        return snapshots or any(stream.has_arrived() for stream in self.replies)


def _follow(loop: Loop, position: ReadPosition | None, resync: BackgroundResync | None, *, with_replies: bool) -> None:
    """Write what arrives until `stop` is set, the resync has ended, or the streams must be opened again.

    Raises: `OffsetUnavailable` for a position in `customers`.
    """
    with (
        ExitStack() as stack,
        _connection(loop.engine) as connection,
    ):
        streams = _open(loop, position, stack, with_replies=with_replies)
        stack.callback(streams.end)
        while not loop.stop.is_set() and not (resync is not None and resync.has_ended()):
            _wait(loop, streams)
            if streams.must_reopen() or loop.filter_has_changed():
                return
            replies = _take_replies(streams)
            changes = _take_snapshots(streams, replies)
            if replies or changes is not None:
                _write(loop, streams, connection, replies, changes)
                loop.retry.recovered()
                streams.show_lag()
            elif monotonic() - streams.stored_at >= STORE_SECONDS:
                _store_positions(loop, streams, connection)


def _open(loop: Loop, position: ReadPosition | None, stack: ExitStack, *, with_replies: bool) -> _Streams:
    """Open the topics that exist."""
    settings, view = loop.settings, loop.view
    topics = REPLY_TOPICS if with_replies else ()
    missing = [settings.topic(topic) for topic in topics[1:] if not topic_exists(settings, settings.topic(topic))]
    if missing and not loop.missing_is_logged:
        loop.missing_is_logged = True
        log.warning("reply_topic_missing", channel=view.channel_id, topic=missing[0])
    replies = [
        stack.enter_context(ReplyStream(settings, loop.engine, view, topic, loop.arrived))
        for topic in topics
        if settings.topic(topic) not in missing
    ]
    snapshots = None
    if position is not None:
        snapshots = stack.enter_context(SnapshotStream(settings, loop.engine, view, position, loop.arrived))
    read = [stream.topic for stream in replies] + ([] if snapshots is None else [snapshots.topic])
    watch = TopicWatch(
        settings,
        read,
        missing=missing,
        with_offsets=None if snapshots is None else snapshots.topic,
        awaited=None if snapshots is None else partial(is_complete_at_last, settings, loop.engine, snapshots.topic),
    )
    dialect = loop.engine.dialect.name
    return _Streams(
        replies=replies,
        snapshots=snapshots,
        watch=stack.enter_context(watch),
        reply_slices=Slices(dialect, _POSTGRESQL_REPLIES),
        snapshot_slices=Slices(dialect, BatchLimits().records_max),
    )


@contextmanager
def _connection(engine: Engine) -> Generator[Connection]:
    """The connection of the loop, closed at the end."""
    with engine.connect() as connection:
        try:
            if engine.dialect.name == "postgresql":
                _keep_plans(connection)
            yield connection
        finally:
            connection.invalidate()


def _keep_plans(connection: Connection) -> None:
    """Plan prepared statements once. They look rows up by keys, also where they were planned for an empty table."""
    connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql("SET enable_seqscan = off")
    connection.commit()
    # Only statements that ask for it are prepared.
    driver_of(connection).prepare_threshold = None


def _wait(loop: Loop, streams: _Streams) -> None:
    """Wait a little until something can be written, or `stop` is set."""
    with loop.arrived:
        if not streams.ready() and not loop.stop.is_set():
            postponed_seconds = streams.snapshots_at - monotonic()
            loop.arrived.wait(min(STORE_SECONDS, postponed_seconds) if postponed_seconds > 0 else STORE_SECONDS)


def _take_replies(streams: _Streams) -> list[AnyReply]:
    """The next replies of every topic."""
    replies: list[AnyReply] = []
    for stream in streams.replies:
        replies.extend(stream.take(streams.reply_slices.rows - len(replies)))
    return replies


def _take_snapshots(streams: _Streams, replies: Sequence[AnyReply]) -> Changes | None:
    """The next snapshots; fewer beside many replies, so that the transaction takes no longer."""
    if streams.snapshots is None or monotonic() < streams.snapshots_at:
        return None
    share = 1 - len(replies) / streams.reply_slices.rows
    return streams.snapshots.take(max(_SNAPSHOTS_MIN, int(share * streams.snapshot_slices.rows)))


def _write(
    loop: Loop, streams: _Streams, connection: Connection, replies: Sequence[AnyReply], changes: Changes | None
) -> None:
    """Settle the replies, apply the changes, and move the positions of both, in one transaction.

    Where another process has the apply lock, the changes are left for the next time.
    """
    started, now = monotonic(), datetime.now(UTC)
    with _transaction(connection, changes) as may_apply:
        if changes is not None and not may_apply:
            streams.snapshots_at = monotonic() + _LOCKED_SECONDS
            changes = None
        creates = creates_of(connection, replies)
        if replies:
            settle(connection, loop.view, replies, now, () if changes is None else changes.touched())
        if changes is not None and streams.snapshots is not None:
            streams.snapshots.write(connection, changes, now)
        written = streams.replies if not may_apply else streams.all()
        moves = _move_positions(connection, written, now)
    seconds = monotonic() - started
    count_batch(len(replies), changes, creates, now, seconds)
    for stream, moved in moves:
        stream.committed(moved, now, seconds)
    streams.stored_at = monotonic()
    if changes is None:
        streams.reply_slices.took(len(replies), seconds)
    elif not replies:
        streams.snapshot_slices.took(changes.rows, seconds)


@contextmanager
def _transaction(connection: Connection, changes: Changes | None) -> Generator[bool]:
    """Begin a transaction; whether it may apply the changes, if there are any."""
    if changes is not None:
        with try_apply_lock(connection) as may_apply:
            yield may_apply
    else:
        with connection.begin():
            yield True


def _move_positions(
    connection: Connection, streams: "Sequence[ReplyStream | SnapshotStream]", at: datetime
) -> "list[tuple[ReplyStream | SnapshotStream, Moves]]":
    """Move the positions of these streams; the moves of each."""
    moves = [(stream, stream.moves()) for stream in streams]
    changed = [moved for _, moved in moves if moved.at_end or any(old != new for old, new in moved.offsets.values())]
    move_positions(connection, changed, at)
    return moves


def _store_positions(loop: Loop, streams: _Streams, connection: Connection) -> None:
    """Store positions past records and markers that change nothing, and show positions to lag monitors."""
    streams.stored_at = monotonic()
    if streams.snapshots is not None:
        streams.snapshots.confirm(streams.watch.take_stable_offsets())
    if any(stream.is_behind() for stream in streams.all()):
        now = datetime.now(UTC)
        with connection.begin():
            moves = _move_positions(connection, streams.all(), now)
        for stream, moved in moves:
            stream.committed(moved, now, 0.0)
        if streams.snapshots is None or streams.snapshots.is_complete():
            # Some partitions at their end prove nothing: the records in question may be in another one.
            loop.retry.recovered()
    streams.show_lag()
