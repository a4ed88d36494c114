"""The 1010 job: keeps a channel's customers current.

Input: every partition of `customers`, from the positions in the channel's own database.
Output: the tables of the channel, and the positions, in one SQL transaction.
Promise: the channel equals the topic at its positions after any crash; no record is skipped or applied backwards.

    crash                            consequence
    before the commit                no effect; the same records are read again
    after the commit                 reading continues behind them

An unreadable snapshot stops its partition only; it is retried every few seconds. A channel that was away for so long
that it may have missed tombstones, or whose topic was recreated, is resynced.
"""

from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from time import monotonic
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.databases import channel_database
from tenten.consumers.channel.distribution.apply import Applied, apply
from tenten.consumers.channel.distribution.prefetch import PrefetchedBatch, SnapshotPrefetcher
from tenten.consumers.channel.distribution.read_position import ReadPosition, load_read_position
from tenten.consumers.channel.distribution.resync import resync
from tenten.consumers.channel.positions import move_positions
from tenten.consumers.channel.record_decoding import check_column_library
from tenten.consumers.channel.topic_watch import TopicWatch
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import AssignedReader, OffsetUnavailable
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.errors import LockHeld
from tenten.runtime.failpoints import failpoint
from tenten.runtime.prefetch import prefetched
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.sql.engine import open_database
from tenten.sql.locks import apply_lock
from tenten.sql.migrations import check_version

log = get_logger(__name__)

CONFIRM_SECONDS: Final = 1.0
"""The time after which an idle channel stores that it is at the end, where there is nothing else to store."""


def run(settings: Settings, channel_name: str, stop: Event) -> None:
    """Distribute until `stop` is set.

    Raises, each with a remedy: `TopicChanged`, `KafkaRefused`, `DatabaseRefused`, `SettingsError`, and
    `SnapshotUnreadable` from a resync that was necessary.
    """
    view = ChannelView.of(settings, channel_name, writer_schemas(settings))
    engine = open_database(settings.channel(channel_name).database)
    check_column_library(engine.dialect.name)
    retry = Retry("distribution", channel_name, stop)
    resync_reason: str | None = None
    try:
        while not stop.is_set():
            with retry.retrying():
                check_version(engine, "channel")
                position, new_reason = load_read_position(settings, engine)
                resync_reason = resync_reason or new_reason
                if resync_reason is not None:
                    log.warning("resync_needed", channel=channel_name, because=resync_reason)
                    _resync_or_wait(settings, channel_name, stop, retry)
                    resync_reason = None
                    continue
                try:
                    _follow(settings, engine, view, position, retry=retry, stop=stop)
                except OffsetUnavailable as error:
                    resync_reason = str(error)
    finally:
        engine.dispose()


def _resync_or_wait(settings: Settings, channel_name: str, stop: Event, retry: Retry) -> None:
    """Resync; while another process resyncs this channel, wait a little instead."""
    logged_at = 0.0

    def log_progress(done: int, total: int) -> None:
        nonlocal logged_at
        if monotonic() - logged_at >= 5:
            logged_at = monotonic()
            log.info("resyncing", channel=channel_name, done=done, total=total)

    try:
        resync(settings, channel_name, log_progress, stop)
    except LockHeld:
        retry.pause()


def _follow(
    settings: Settings, engine: Engine, view: ChannelView, position: ReadPosition, *, retry: Retry, stop: Event
) -> None:
    """Apply batches until `stop` is set or the position must be loaded again.

    The next batch is read and decoded while the database writes this one; only this thread moves positions, so they
    move in order.
    """
    slices = Slices(engine.dialect.name, BatchLimits().records_max)
    ends_reached: set[int] = set()
    stored_at = 0.0
    group = settings.channel_group(view.channel_id)
    with (
        AssignedReader(settings, position.topic.name, group, position.next_offsets) as reader,
        TopicWatch(settings, position.topic) as watch,
    ):
        # Writer schemas of its own: they are looked up in the thread that prefetches.
        prefetching_view = replace(view, writers=writer_schemas(settings))
        prefetcher = SnapshotPrefetcher(reader, prefetching_view, channel_database(engine).dialect)
        for fetched in prefetched(prefetcher.batches()):
            now = datetime.now(UTC)
            if stop.is_set() or watch.topic_changed() or position.was_away(now, prefetcher.stopped):
                return
            position.confirm(watch.take_stable_offsets())
            position.ends.update(fetched.ends)
            ends_reached |= fetched.ends.keys()
            if fetched.batch is not None:
                _apply_batch(engine, view, position, fetched, slices)
            elif position.ends and monotonic() - stored_at >= CONFIRM_SECONDS:
                _store_ends(engine, position)
            else:
                reader.commit_for_monitoring(position.next_offsets)
                continue
            stored_at = monotonic()
            reader.commit_for_monitoring(position.next_offsets)
            if fetched.batch is not None or len(ends_reached) == position.topic.partitions:
                # Some partitions at their end prove nothing: the records in question may be in another one.
                retry.recovered()


def _apply_batch(
    engine: Engine, view: ChannelView, position: ReadPosition, fetched: PrefetchedBatch, slices: Slices
) -> None:
    """Apply a batch in one transaction or several; each moves the positions."""
    batch = fetched.batch
    assert batch is not None
    started = monotonic()
    applied = Applied()
    ends, position.ends = position.ends, {}
    with apply_lock(engine):
        for first_row, end_row in slices.cut(batch.rows):
            changes = batch.changes(first_row, end_row)
            if end_row == batch.rows:
                position.ends = ends
            now = datetime.now(UTC)
            moves = position.moves(fetched.next_offsets(end_row))
            with engine.begin() as connection, slices.timed(end_row - first_row):
                applied += apply(connection, view, changes, now)
                move_positions(connection, position.topic, moves, position.at_end(moves), now)
                failpoint("distribution.before_commit")
            failpoint("distribution.after_commit")
            position.moved(moves, now)
    log.info(
        "batch_applied",
        channel=view.channel_id,
        topic=position.topic.name,
        records=batch.rows,
        inserted=applied.inserted,
        updated=applied.updated,
        edited=applied.edited,
        removed=applied.removed,
        next_offsets=fetched.next_offsets(batch.rows),
        seconds=round(monotonic() - started, 3),
    )


def _store_ends(engine: Engine, position: ReadPosition) -> None:
    """Move positions past control markers, and store that the channel is at the end."""
    now = datetime.now(UTC)
    moves = position.moves({})
    with engine.begin() as connection:
        move_positions(connection, position.topic, moves, position.at_end(moves), now)
    position.moved(moves, now)
