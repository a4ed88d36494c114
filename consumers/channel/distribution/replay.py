"""The reading part of a resync: records of all partitions, compared with the tables, and the customers repaired.

The topic is read once, so a record may be followed by a newer one of its customer. A reader of the tables must never
see an older version than before, nor an erased customer again. So a record is applied at once only if

- its customer exists in the same version or an older one; or
- its customer does not exist and the record is not before the channel's position, as in live distribution.

Any other record that would change the tables is deferred (deferred_records.py) until its partition has been read up to
the channel's position: it is applied then, unless a later record of its customer has taken its place.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Final

from sqlalchemy import Connection, Engine, select

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.databases import channel_database
from tenten.consumers.channel.distribution.apply import apply
from tenten.consumers.channel.distribution.deferred_records import DeferredRecords
from tenten.consumers.channel.distribution.key_set import KeySet
from tenten.consumers.channel.distribution.topic_reading import last_of_each_key, read_up_to
from tenten.consumers.channel.overlay import different_customers
from tenten.consumers.channel.positions import TopicRead, read_positions
from tenten.consumers.channel.snapshots import Changes, SnapshotBatch, UnreadableSnapshot, decode_snapshots
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import AssignedReader, Records
from tenten.runtime.errors import TentenError
from tenten.runtime.failpoints import failpoint
from tenten.runtime.prefetch import prefetched
from tenten.runtime.retry import Retry
from tenten.schemas.tables.channel import outbox
from tenten.sql.arrays import is_one_of
from tenten.sql.engine import consistent_view
from tenten.sql.locks import DatabaseLock, apply_lock

_DEFERRED_RECORDS: Final = 1_000
"""The number of deferred records that are applied together."""

_UNREADABLE_MAX: Final = 100
"""With more unreadable records than this a resync ends at once."""


class SnapshotUnreadable(TentenError):
    """The last snapshot of a customer cannot be read; nothing was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The state that the steps of one resync share."""

    engine: Engine
    view: ChannelView
    topic: TopicRead
    retry: Retry
    stop: Event
    reader: AssignedReader
    deferred: DeferredRecords
    slices: Slices
    """Of changes to existing customers, for whose locks clerks wait."""
    read_to: dict[int, int] = field(default_factory=dict)
    """By partition: all records before this offset are in the channel, or deferred."""
    seen: KeySet = field(default_factory=KeySet)
    """The customers of all snapshots."""
    unreadable: dict[bytes | None, UnreadableSnapshot] = field(default_factory=dict)
    """By key, records that cannot be read and have not been followed by another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Records, each the last with its key among them; those that can be read, decoded; the offsets behind them."""

    keys: Collection[bytes | None]
    unreadable: Mapping[bytes | None, UnreadableSnapshot]
    records: Records
    batch: SnapshotBatch
    read_to: Mapping[int, int]


def replay_up_to(replay: Replay, target: Mapping[int, int], lock: DatabaseLock | None = None) -> Iterator[int]:
    """Apply the records before these offsets; yields, step by step, the number of offsets done.

    While a step is applied, the next one is read. `lock` is the apply lock, where the caller holds it.
    Raises: `SnapshotUnreadable` for too many unreadable records; `Stopped`.
    """
    for step in prefetched(_steps(replay, target)):
        _note_unreadable(replay, step)
        replay.deferred.remove(step.keys)
        if step.batch.rows:
            _apply_step(replay, step, lock)
        done = sum(offset - replay.read_to[partition] for partition, offset in step.read_to.items())
        replay.read_to.update(step.read_to)
        yield done


def apply_deferred(replay: Replay, lock: DatabaseLock | None = None) -> None:
    """Apply the deferred records of partitions that have been read up to the channel's positions.

    With the apply lock as `lock` the deferred records of all partitions. Raises: `Stopped`.
    """
    run_until_success = replay.retry.run_until_success
    key = b""
    while (records := replay.deferred.following(key, _DEFERRED_RECORDS)).keys:
        run_until_success(partial(_apply_last, replay, records, lock))
        failpoint("resync.after_deferred")
        key = records.keys[-1] or b""


def check_readable(replay: Replay) -> None:
    """Raises: `SnapshotUnreadable` if the last record of a customer cannot be read."""
    for unreadable in replay.unreadable.values():
        raise _error(replay.topic, unreadable)


def _error(topic: TopicRead, unreadable: UnreadableSnapshot) -> SnapshotUnreadable:
    return SnapshotUnreadable(
        f"the record at offset {unreadable.offset} of partition {unreadable.partition} of {topic.name} "
        f"{unreadable.text}, and it is the last of its customer: nothing was deleted; have headquarters send that "
        "customer again (`tenten headquarters verify`), or upgrade this channel, then resync again"
    )


def _steps(replay: Replay, target: Mapping[int, int]) -> Iterator[_Step]:
    for records, read_to in read_up_to(replay.reader, replay.read_to, target, replay.stop):
        last = last_of_each_key(records)
        keys = set(last.keys)
        readable, batch, unreadable = _decode(replay, last)
        yield _Step(keys=keys, unreadable=unreadable, records=readable, batch=batch, read_to=read_to)


def _decode(replay: Replay, records: Records) -> tuple[Records, SnapshotBatch, dict[bytes | None, UnreadableSnapshot]]:
    """The readable records, decoded; and the unreadable ones, by key.

    A batch ends before the first unreadable record of each partition, so it is decoded again without those.
    """
    dialect = channel_database(replay.engine).dialect
    unreadable: dict[bytes | None, UnreadableSnapshot] = {}
    while True:
        batch = decode_snapshots(records, replay.view.writers, replay.view.filter, dialect)
        if not batch.unreadable or len(unreadable) > _UNREADABLE_MAX:
            return records, batch, unreadable
        found = {(snapshot.partition, snapshot.offset): snapshot for snapshot in batch.unreadable}
        places = list(zip(records.partitions, records.offsets, strict=True))
        unreadable |= {records.keys[row]: found[place] for row, place in enumerate(places) if place in found}
        records = records.rows([row for row, place in enumerate(places) if place not in found])


def _note_unreadable(replay: Replay, step: _Step) -> None:
    if replay.unreadable:
        for key in step.keys:
            replay.unreadable.pop(key, None)
    replay.unreadable.update(step.unreadable)
    if len(replay.unreadable) > _UNREADABLE_MAX:
        check_readable(replay)


def _apply_step(replay: Replay, step: _Step, lock: DatabaseLock | None) -> None:
    run_until_success = replay.retry.run_until_success
    changes = step.batch.changes()
    different = run_until_success(partial(_different, replay.engine, changes))
    if different:
        run_until_success(partial(_repair, replay, step, different, lock))
    replay.seen.add(step.batch.ids)
    failpoint("resync.after_slice")


def _different(engine: Engine, changes: Changes) -> set[str]:
    """The customers that differ from these changes. Takes no lock that a clerk would wait for."""
    database = channel_database(engine)
    with consistent_view(engine) as connection:
        if changes.frames is not None:
            different = database.different(connection, changes.frames, changes.ids)
        else:
            different = different_customers(connection, changes.customers(changes.ids))
        if changes.filtered_out or changes.erased:
            different |= database.versions(connection, [*changes.filtered_out, *changes.erased]).keys()
        if changes.erased:
            query = select(outbox.c.aggregateid).where(is_one_of(connection, outbox.c.aggregateid, changes.erased))
            not_erased = query.where(outbox.c.aggregatetype == "customer", outbox.c.outcome.is_distinct_from("erased"))
            different.update(connection.scalars(not_erased))
    return different


def _repair(replay: Replay, step: _Step, different: Collection[str], lock: DatabaseLock | None) -> None:
    """Apply the records of customers that differ, or defer them."""
    keys = {guid.encode() for guid in different}
    records, batch = step.records, step.batch
    rows = [row for row, key in enumerate(records.keys) if key in keys]
    if len(rows) < len(records.keys):
        records = records.rows(rows)
        batch = _decode(replay, records)[1]
    with nullcontext() if lock else apply_lock(replay.engine):
        with consistent_view(replay.engine) as connection:
            live = read_positions(connection, replay.topic)
            any_exist = bool(channel_database(connection).versions(connection, different))
        passed = _before(records, {partition: position.next_offset for partition, position in live.items()})
        slices = replay.slices if any_exist else Slices(replay.engine.dialect.name, batch.rows)
        for first_row, end_row in slices.cut(batch.rows):
            changes = batch.changes(first_row, end_row)
            with replay.engine.begin() as connection, slices.timed(end_row - first_row):
                deferred = _deferred(connection, changes, passed) if passed or any_exist else set()
                apply(connection, replay.view, _without(changes, deferred), datetime.now(UTC), last_records=True)
            if deferred:
                replay.deferred.store(records, {guid.encode() for guid in deferred})


def _before(records: Records, offsets: Mapping[int, int]) -> set[str]:
    """The customers of records that are before these offsets of their partitions."""
    rows = zip(records.keys, records.partitions, records.offsets, strict=True)
    return {(key or b"").decode() for key, partition, offset in rows if offset < offsets.get(partition, 0)}


def _deferred(connection: Connection, changes: Changes, passed: Collection[str]) -> set[str]:
    """The customers whose records may not be applied yet; their rows are locked. `passed`: see `_before`."""
    versions = {**dict(zip(changes.ids, changes.versions, strict=True)), **changes.filtered_out}
    stored = channel_database(connection).lock_versions(connection, [*versions, *changes.erased])
    older = {guid for guid, version in versions.items() if stored.get(guid, version) > version}
    absent = {guid for guid in changes.ids if guid in passed and guid not in stored}
    return older | absent | {guid for guid in changes.erased if guid in passed}


def _without(changes: Changes, ids: Collection[str]) -> Changes:
    """The changes without those of these customers."""
    if not ids:
        return changes
    rows = [row for row, guid in enumerate(changes.ids) if guid not in ids]
    frames = changes.frames
    if frames is not None:
        from tenten.consumers.channel.snapshot_columns import select_frames

        frames = select_frames(changes, {changes.ids[row] for row in rows})
    return replace(
        changes,
        ids=[changes.ids[row] for row in rows],
        versions=[changes.versions[row] for row in rows],
        frames=frames,
        filtered_out={guid: version for guid, version in changes.filtered_out.items() if guid not in ids},
        erased=tuple(guid for guid in changes.erased if guid not in ids),
    )


def _apply_last(replay: Replay, records: Records, lock: DatabaseLock | None) -> None:
    """Apply deferred records, and remove them, in partitions that have been read up to the channel's positions."""
    with nullcontext() if lock else apply_lock(replay.engine):
        with consistent_view(replay.engine) as connection:
            live = read_positions(connection, replay.topic)
        behind = {partition for partition, position in live.items() if position.next_offset > replay.read_to[partition]}
        if behind and lock is None:
            records = records.rows([row for row, partition in enumerate(records.partitions) if partition not in behind])
        batch = _decode(replay, records)[1]
        slices = replay.slices
        for first_row, end_row in slices.cut(batch.rows):
            changes = batch.changes(first_row, end_row)
            with replay.engine.begin() as connection, slices.timed(end_row - first_row):
                apply(connection, replay.view, changes, datetime.now(UTC), last_records=True)
    replay.deferred.remove(records.keys)
