"""The reading part of a resync: partitions read up to an offset, compared with the tables, and repaired."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Final

from sqlalchemy import Connection, Engine, select

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.databases import channel_database
from tenten.consumers.channel.distribution.apply import apply
from tenten.consumers.channel.distribution.last_records import LastRecords, read_range
from tenten.consumers.channel.distribution.surplus import remember_customers
from tenten.consumers.channel.overlay import different_customers
from tenten.consumers.channel.positions import TopicRead, read_positions
from tenten.consumers.channel.snapshots import Changes, SnapshotBatch, decode_snapshots
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

FETCH_WAIT_MS: Final = 10
"""A reader moves from partition to partition, and each move waits for the fetch that the broker is holding."""

_CHANGED_ROWS: Final = 1_000
"""The number of existing customers that are locked at a time: a clerk waits for no more than these."""


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
    records: AssignedReader
    """Reads records up to a target."""
    keys: AssignedReader
    """Reads keys up to a target, a partition ahead of `records`."""
    live_keys: AssignedReader
    """Reads keys behind a target, up to the live position."""
    read_to: dict[int, int] = field(default_factory=dict)
    """By partition: all records before this offset are in the channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Some last records of a partition, decoded, and the offset up to which the partition has been read with them."""

    last_records: LastRecords
    records: Records
    batch: SnapshotBatch
    next_offset: int


def apply_partitions(replay: Replay, target: Mapping[int, int], lock: DatabaseLock | None = None) -> Iterator[int]:
    """Apply the partitions up to these offsets; yields, step by step, the number of offsets done.

    While a step is applied, the next one is read, and so are the keys of the next partition. `lock` is the apply lock,
    where the caller holds it. Raises: `SnapshotUnreadable`, `Stopped`.
    """
    run_until_success = replay.retry.run_until_success
    for step in prefetched(_steps(replay, target)):
        if step.batch.rows:
            changes = step.batch.changes()
            different = run_until_success(partial(_different, replay.engine, changes))
            if different:
                run_until_success(partial(_repair, replay, step, different, lock))
            run_until_success(partial(remember_customers, replay.engine, changes.ids))
            failpoint("resync.after_slice")
        partition = step.last_records.partition
        yield step.next_offset - replay.read_to[partition]
        replay.read_to[partition] = step.next_offset


def _steps(replay: Replay, target: Mapping[int, int]) -> Iterator[_Step]:
    """The last records of every partition, batch by batch. Raises: `SnapshotUnreadable`."""
    for last_records in prefetched(_last_records(replay, target)):
        partition = last_records.partition
        start, end = replay.read_to[partition], target[partition]
        for records in read_range(replay.records, partition, start, end, replay.stop):
            chosen = records.rows(last_records.rows_in(records))
            yield _step(replay, last_records, chosen, records.offsets[-1] + 1)
        # Before the target there may be control markers, and records that compaction has removed.
        yield _step(replay, last_records, Records(), end)


def _last_records(replay: Replay, target: Mapping[int, int]) -> Iterator[LastRecords]:
    """The last records of every partition that has not been read to its target."""
    for partition, end in target.items():
        start = replay.read_to[partition]
        if start < end:
            last_records = LastRecords(partition, start)
            last_records.read_keys(replay.keys, end, replay.stop)
            yield last_records


def _step(replay: Replay, last_records: LastRecords, records: Records, next_offset: int) -> _Step:
    batch = _decode(replay, records)
    return _Step(last_records=last_records, records=records, batch=batch, next_offset=next_offset)


def _decode(replay: Replay, records: Records) -> SnapshotBatch:
    dialect = channel_database(replay.engine).dialect
    batch = decode_snapshots(records, replay.view.writers, replay.view.filter, dialect)
    for unreadable in batch.unreadable:
        raise SnapshotUnreadable(
            f"the record at offset {unreadable.offset} of partition {unreadable.partition} of {replay.topic.name} "
            f"{unreadable.text}, and it is the last of its customer: nothing was deleted; have headquarters send that "
            "customer again (`tenten headquarters verify`), or upgrade this channel, then resync again"
        )
    return batch


def _different(engine: Engine, changes: Changes) -> set[str]:
    """The customers that differ from these changes. Takes no lock that a clerk would wait for."""
    database = channel_database(engine)
    with _comparing(engine) as connection:
        if changes.frames is not None:
            different = database.different(connection, changes.frames, changes.ids)
        else:
            different = different_customers(connection, changes.customers(changes.ids))
        different |= database.versions(connection, [*changes.filtered_out, *changes.erased]).keys()
        if changes.erased:
            query = select(outbox.c.aggregateid).where(is_one_of(connection, outbox.c.aggregateid, changes.erased))
            not_erased = query.where(outbox.c.aggregatetype == "customer", outbox.c.outcome.is_distinct_from("erased"))
            different.update(connection.scalars(not_erased))
    return different


def _comparing(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction for comparing: PostgreSQL needs temporary tables, which a read-only one may not create."""
    return consistent_view(engine) if engine.dialect.name == "sqlite" else engine.begin()


def _repair(replay: Replay, step: _Step, different: Collection[str], lock: DatabaseLock | None) -> None:
    """Apply the records of customers that differ, except where live distribution has a newer record."""
    with nullcontext() if lock else apply_lock(replay.engine):
        with consistent_view(replay.engine) as connection:
            live = read_positions(connection, replay.topic).get(step.last_records.partition)
            any_exist = bool(channel_database(connection).versions(connection, different))
        if live is not None:
            step.last_records.read_keys(replay.live_keys, live.next_offset, replay.stop)
        keys = {guid.encode() for guid in different}
        rows = [row for row in step.last_records.rows_in(step.records) if step.records.keys[row] in keys]
        batch = step.batch if len(rows) == len(step.records.keys) else _decode(replay, step.records.rows(rows))
        slices = Slices(replay.engine.dialect.name, _CHANGED_ROWS if any_exist else batch.rows)
        for first_row, end_row in slices.cut(batch.rows):
            changes = batch.changes(first_row, end_row)
            with replay.engine.begin() as connection, slices.timed(end_row - first_row):
                apply(connection, replay.view, changes, datetime.now(UTC), last_records=True)
