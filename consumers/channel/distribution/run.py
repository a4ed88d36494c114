"""The 1010 job: keeps a channel's customers current.

Input: every partition of `customers`, from the positions in the channel's own database.
Output: the tables of the channel, and the positions, in one SQL transaction.
Promise: the channel is what the topic was at its positions, whatever dies; nothing is skipped, nothing goes back.

    it dies                          then
    before the commit                nothing happened; the same records are read again
    after the commit                 reading goes on behind them

A snapshot that cannot be read stops its partition, and only that; it is tried again every few seconds. A channel that
was away for so long that it may have missed tombstones, or whose topic was made anew, is resynced.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from time import monotonic
from typing import Final

from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from sqlalchemy import Connection, Engine, exists, select
from structlog import get_logger

from tenten.consumers.channel.distribution.apply import Applied, ChannelView, apply, dialect_of
from tenten.consumers.channel.distribution.prefetch import Intake, Taken
from tenten.consumers.channel.distribution.resync import resync
from tenten.consumers.channel.positions import (
    Position,
    TopicRead,
    begin,
    guard_topic,
    move,
    read_another,
    read_positions,
)
from tenten.consumers.channel.topic_watch import Watch
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import AssignedReader, OffsetUnavailable
from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import admin_client, topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.errors import LockHeld
from tenten.runtime.failpoints import failpoint
from tenten.runtime.prefetch import prefetched
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings
from tenten.schemas.tables.channel import customers
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.engine import open_database
from tenten.sql.locks import apply_lock
from tenten.sql.migrations import check_version

log = get_logger(__name__)

CONFIRM_SECONDS: Final = 1.0
"""How often an idle channel notes that it is at the end, where nothing but that has to be noted."""

AWAY_SHARE_MAX: Final = 2 / 3
"""Of the time for which Kafka keeps tombstones: who was away for longer may have missed some."""


def run(settings: Settings, channel_name: str, stop: Event) -> None:
    """Distribute until `stop` is set.

    Raises: `TopicChanged`, `KafkaRefused`, `DatabaseRefused`, `SettingsError`, and `SnapshotUnreadable` from a resync
    that had to be: what waiting cannot mend, each with what to do.
    """
    view = ChannelView.of(settings, channel_name, writer_schemas(settings))
    engine = open_database(settings.channel(channel_name).database)
    retry = Retry("distribution", channel_name, stop)
    resync_because: str | None = None
    try:
        while not stop.is_set():
            with retry.retrying():
                check_version(engine, "channel")
                standing, reason = _where(settings, engine)
                resync_because = resync_because or reason
                if resync_because is not None:
                    log.warning("resync_needed", channel=channel_name, because=resync_because)
                    _resync_or_wait(settings, channel_name, stop, retry)
                    resync_because = None
                    continue
                try:
                    _follow(settings, engine, view, standing, retry=retry, stop=stop)
                except OffsetUnavailable as gone:
                    resync_because = str(gone)
    finally:
        engine.dispose()


@dataclass(kw_only=True)
class Standing:
    """Where the channel stands in the topic: as its database has it, and what of that is yet to be noted there."""

    topic: TopicRead
    next_offsets: dict[int, int]
    confirmed_at: dict[int, datetime]
    away_max: timedelta
    ends: dict[int, int]
    """Ends of partitions that were reached and are not noted yet."""

    def was_away(self, now: datetime, but: Mapping[int, object]) -> bool:
        """Whether tombstones may have been missed, in any partition but the stopped ones, which know that they wait."""
        return any(now - at > self.away_max for partition, at in self.confirmed_at.items() if partition not in but)

    def moves(self, after: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """The positions to move, old and new, when reading goes on at these offsets; with ends that were reached."""
        reached = {
            partition: max(after.get(partition, 0), self.ends.get(partition, 0))
            for partition in after.keys() | self.ends.keys()
        }
        return {partition: (self.next_offsets[partition], offset) for partition, offset in reached.items()}

    def at_end(self, moves: Mapping[int, tuple[int, int]]) -> set[int]:
        """The partitions that these moves bring to their end."""
        return {partition for partition, (_, new) in moves.items() if new == self.ends.get(partition)}

    def confirm(self, stable_offsets: Mapping[int, int]) -> None:
        """These were the last stable offsets a moment ago: whoever stands there, or past it, is at the end."""
        for partition, end in stable_offsets.items():
            if self.next_offsets.get(partition, -1) >= end:
                self.ends.setdefault(partition, self.next_offsets[partition])

    def moved(self, moves: Mapping[int, tuple[int, int]], at: datetime) -> None:
        """The moves are in the database."""
        self.confirmed_at.update(dict.fromkeys(self.at_end(moves), at))
        self.next_offsets.update({partition: new for partition, (_, new) in moves.items()})
        self.ends.clear()


def _where(settings: Settings, engine: Engine) -> tuple[Standing, str | None]:
    """Where the channel stands, and why that means nothing any more, if so. A channel that never began begins here."""
    name = settings.topic(CUSTOMERS)
    info = topic_ids(settings, [name])[name]
    away_max = AWAY_SHARE_MAX * tombstones_kept(settings, name)
    now = datetime.now(UTC)
    with engine.begin() as connection:
        topic = guard_topic(connection, name, info)
        positions = read_positions(connection, topic)
        reason = _resync_because(connection, topic, positions)
        if reason is None:
            missing = [partition for partition in range(topic.partitions) if partition not in positions]
            begin(connection, topic, missing, now)
            positions = read_positions(connection, topic)
    standing = Standing(
        topic=topic,
        next_offsets={partition: position.next_offset for partition, position in positions.items()},
        confirmed_at={partition: position.confirmed_at or now for partition, position in positions.items()},
        away_max=away_max,
        ends={},
    )
    if reason is None and standing.was_away(now, {}):
        reason = f"it was last at the end of the topic more than {away_max} ago and may have missed tombstones"
    return standing, reason


def _resync_because(connection: Connection, topic: TopicRead, positions: Mapping[int, Position]) -> str | None:
    if positions:
        return None
    if read_another(connection, topic):
        return "the topic was made anew, so its positions mean nothing"
    if connection.scalar(select(exists().where(customers.c.version > 0))):
        return "it has customers from headquarters but no positions"
    return None


def tombstones_kept(settings: Settings, topic: str) -> timedelta:
    """For how long the topic keeps tombstones, as the broker has it now."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = admin_client(settings)  # kept while its future is waited for
    described = admin.describe_configs([resource], request_timeout=REQUEST_SECONDS)
    return timedelta(milliseconds=int(call_kafka(described[resource].result)["delete.retention.ms"].value))


def _resync_or_wait(settings: Settings, channel_name: str, stop: Event, retry: Retry) -> None:
    """Resync, unless somebody else just does."""
    said_at = 0.0

    def say(done: int, total: int) -> None:
        nonlocal said_at
        if monotonic() - said_at >= 5:
            said_at = monotonic()
            log.info("resyncing", channel=channel_name, done=done, total=total)

    try:
        resync(settings, channel_name, say, stop)
    except LockHeld:
        retry.pause()


def _follow(
    settings: Settings, engine: Engine, view: ChannelView, standing: Standing, *, retry: Retry, stop: Event
) -> None:
    """Apply what comes, until `stop` is set or the channel's standing must be looked at again.

    The next batch is read and decoded while the database takes this one; positions move strictly in order all the same,
    since only this thread moves them.
    """
    slices = Slices(engine.dialect.name, BatchLimits().records_max)
    reached: set[int] = set()
    noted_at = 0.0
    group = settings.group(f"channel.{view.channel_id}")
    with (
        AssignedReader(settings, standing.topic.name, group, standing.next_offsets) as reader,
        Watch(settings, standing.topic) as watch,
    ):
        intake = Intake(reader, view.channel_id, view.filter, dialect_of(engine), writer_schemas(settings))
        for taken in prefetched(intake.batches()):
            if stop.is_set() or watch.topic_changed() or standing.was_away(datetime.now(UTC), intake.stopped):
                return
            standing.confirm(watch.stable_offsets())
            standing.ends.update(taken.ends)
            reached |= taken.ends.keys()
            if taken.batch is not None:
                _apply(engine, view, standing, taken, slices)
            elif standing.ends and monotonic() - noted_at >= CONFIRM_SECONDS:
                _note_ends(engine, standing)
            else:
                continue
            noted_at = monotonic()
            reader.commit_for_monitoring(standing.next_offsets)
            if taken.batch is not None or len(reached) == standing.topic.partitions:
                # Some partitions at their end prove nothing: what was waited for may lie in another.
                retry.recovered()


def _apply(engine: Engine, view: ChannelView, standing: Standing, taken: Taken, slices: Slices) -> None:
    """Apply a batch, in as many transactions as the database wants; the positions move in each."""
    assert taken.batch is not None
    began = monotonic()
    applied = Applied()
    ends, standing.ends = standing.ends, {}
    with apply_lock(engine):
        for first_row, end_row in slices.cut(taken.batch.rows):
            changes = taken.batch.changes(first_row, end_row)
            if end_row == taken.batch.rows:
                standing.ends = ends
            now = datetime.now(UTC)
            moves = standing.moves(taken.next_offsets(end_row))
            with engine.begin() as connection, slices.timed(end_row - first_row):
                applied += apply(connection, view, changes, now)
                move(connection, standing.topic, moves, standing.at_end(moves), now)
                failpoint("distribution.before_commit")
            failpoint("distribution.after_commit")
            standing.moved(moves, now)
    log.info(
        "batch_applied",
        channel=view.channel_id,
        topic=standing.topic.name,
        records=taken.batch.rows,
        inserted=applied.inserted,
        updated=applied.updated,
        edited=applied.edited,
        removed=applied.removed,
        next_offsets=taken.next_offsets(taken.batch.rows),
        seconds=round(monotonic() - began, 3),
    )


def _note_ends(engine: Engine, standing: Standing) -> None:
    """Move positions past control markers, and note that the channel is at the end."""
    now = datetime.now(UTC)
    moves = standing.moves({})
    with engine.begin() as connection:
        move(connection, standing.topic, moves, standing.at_end(moves), now)
    standing.moved(moves, now)
