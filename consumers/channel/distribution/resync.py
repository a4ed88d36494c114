"""The full sync: makes a channel's customers equal to the topic, while they stay complete, readable and current.

Input: `customers` from its beginning. Output: the tables of the channel in place, and its positions.
Promise: afterwards the channel has the customers of the topic, equal in content and not only in version, and apart
from them only customers that are pending or have unsettled events.

1. The last stable offset of each partition is read: the target.
2. The topic is read once up to the target, all partitions together (replay.py). Rows that are equal already are only
   compared. Live distribution continues; records after the target are left to it. The ids of the customers that the
   topic has are kept in memory, 16 bytes each (key_set.py).
3. Under the apply lock, so that the live positions do not move, the records up to them are read, customers that are
   not in the topic are deleted if it is complete and they are few (surplus.py), and the positions are set.

A killed resync leaves the tables complete and partly repaired; the next one starts from the beginning.
docs/decisions/0010-resync-of-a-million.md has the reasons.
"""

from datetime import UTC, datetime
from threading import Event
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.distribution.deferred_records import DeferredRecords
from tenten.consumers.channel.distribution.load_progress import LoadProgress, Progress
from tenten.consumers.channel.distribution.read_position import customers_are_complete
from tenten.consumers.channel.distribution.replay import Replay, apply_deferred, check_readable, replay_up_to
from tenten.consumers.channel.distribution.surplus import forget_kept_surplus, settle_surplus
from tenten.consumers.channel.filter import ChannelFilter
from tenten.consumers.channel.positions import (
    TopicRead,
    forget_requested_resyncs,
    read_positions,
    register_topic,
    replace_positions,
    resync_once_complete,
)
from tenten.consumers.channel.record_decoding import check_column_library
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import AssignedReader
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.errors import WriteConflict
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.channel_settings import settings_in_force
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.loading import forget_loading
from tenten.sql.locks import apply_lock, resync_lock
from tenten.sql.migrations import check_version

log = get_logger(__name__)

TAIL_OFFSETS_MAX: Final = 2_000
"""At most this much is left to read under the apply lock, for which live distribution waits."""

QUEUE_KBYTES: Final = 8_192
"""How much of the topic is fetched ahead, which is a part of the memory that a resync needs."""

CHANGED_ROWS: Final = 250
"""The number of existing customers that are locked together at first; later as many as take 20 ms."""

TAIL_PASSES_MAX: Final = 10
"""The limit on passes over records that arrived meanwhile, before the apply lock is taken."""


def resync(
    settings: Settings,
    channel_name: str,
    progress: Progress = lambda _, __: None,
    stop: Event | None = None,
    *,
    consent: bool = False,
) -> bool:
    """Resync a channel; False when `stop` was set before the end. Waits while the database or broker is unavailable.

    Customers that the topic does not have are deleted only if headquarters has declared it complete; without `consent`
    they are also kept if they are many.
    Raises: `LockHeld` when another resync of this channel is running; `SnapshotUnreadable`, before anything is deleted;
    `TopicChanged`, `KafkaRefused`, `DatabaseRefused`, `SettingsError`.
    """
    stop = stop or Event()
    settings = settings.for_channel(channel_name)
    retry = Retry("resync", channel_name, stop)
    engine = open_database(settings.channel(channel_name).database)
    check_column_library(engine.dialect.name)
    load: LoadProgress | None = None
    try:
        view = retry.run_until_success(lambda: _view(settings, engine, channel_name))
        with resync_lock(engine):
            topic = retry.run_until_success(lambda: _topic(settings, engine, view.filter))
            load = LoadProgress(engine, retry, progress)
            group = settings.channel_group(channel_name)
            with AssignedReader(settings, topic.name, group, {}, QUEUE_KBYTES) as reader, DeferredRecords() as deferred:
                replay = Replay(
                    engine=engine,
                    view=view,
                    topic=topic,
                    retry=retry,
                    stop=stop,
                    reader=reader,
                    deferred=deferred,
                    slices=Slices(engine.dialect.name, CHANGED_ROWS, adapts=True),
                )
                _read_to_tail(settings, replay, load)
                retry.run_until_success(lambda: _finish(settings, replay, consent=consent))
    except Stopped:
        if load is not None:
            load.interrupted()
        return False
    finally:
        engine.dispose()
    log.info("resynced", channel=channel_name, topic=topic.name, next_offsets=replay.read_to)
    return True


def _view(settings: Settings, engine: Engine, channel_name: str) -> ChannelView:
    """The channel with the settings that are in force. Raises: `DatabaseRefused`, `SettingsError`."""
    check_version(engine, "channel")
    with consistent_view(engine) as connection:
        in_force = settings_in_force(settings, connection, channel_name)
    return ChannelView.of(in_force, channel_name, writer_schemas(in_force))


def _topic(settings: Settings, engine: Engine, channel_filter: ChannelFilter) -> TopicRead:
    name = settings.topic(CUSTOMERS)
    info = topic_ids(settings, [name])[name]
    with engine.begin() as connection:
        return register_topic(connection, name, info, channel_filter.text())


def _read_to_tail(settings: Settings, replay: Replay, progress: Progress) -> None:
    """Apply every partition up to its target, and then records that arrived meanwhile, until few are left."""
    run_until_success = replay.retry.run_until_success
    name, partitions = replay.topic.name, replay.topic.partitions
    start = run_until_success(lambda: earliest_offsets(settings, name, partitions))
    target = run_until_success(lambda: last_stable_offsets(settings, name, partitions))
    replay.read_to.update(start)
    total, done = sum(target.values()) - sum(start.values()), 0
    progress(done, total)
    for offsets in replay_up_to(replay, target):
        done += offsets
        progress(done, total)
    apply_deferred(replay)
    for _ in range(TAIL_PASSES_MAX):
        end = run_until_success(lambda: last_stable_offsets(settings, name, partitions))
        if sum(end.values()) - sum(replay.read_to.values()) <= TAIL_OFFSETS_MAX:
            return
        for _ in replay_up_to(replay, end):
            pass


def _finish(settings: Settings, replay: Replay, *, consent: bool) -> None:
    """Apply the rest up to the live positions, which no longer move; delete surplus customers; set the positions.

    Idempotent: it is repeated as a whole when the database fails in between.
    """
    with apply_lock(replay.engine) as lock:
        with consistent_view(replay.engine) as connection:
            live = read_positions(connection, replay.topic)
        # A position past the end is of a topic that has lost its last records.
        ends = last_stable_offsets(settings, replay.topic.name, replay.topic.partitions)
        target = {partition: min(position.next_offset, ends[partition]) for partition, position in live.items()}
        for _ in replay_up_to(replay, target, lock):
            pass
        apply_deferred(replay, lock)
        check_readable(replay)
        failpoint("resync.before_delete")
        forget_kept_surplus(replay.engine)
        settled = settle_surplus(
            replay.engine,
            replay.view.channel_id,
            replay.seen,
            is_complete=lambda: customers_are_complete(settings, replay.topic, replay.read_to),
            consent=consent,
        )
        failpoint("resync.after_delete")
        if not lock.is_held():
            raise WriteConflict("the apply lock was lost with its connection")
        with replay.engine.begin() as connection:
            replace_positions(connection, replay.topic, replay.read_to, datetime.now(UTC))
            forget_requested_resyncs(connection)
            forget_loading(connection)
            if not settled:
                resync_once_complete(connection, datetime.now(UTC))
