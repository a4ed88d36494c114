"""The full sync: makes a channel's customers what the topic says, while they stay complete, readable and current.

Input: `customers` from its beginning. Output: the tables of the channel in place, and its positions.
Promise: afterwards the channel has what the topic has, by content and not only by version, and besides that only what
is pending.

1. The last stable offset of each partition is noted: the target.
2. A partition at a time is read up to its target, first the keys alone. That shows which record is the last of its key:
   only those are applied, so that nobody sees an older version or an erased customer come back. Rows that are as they
   should be are only compared. The live distributor goes on; what it has applied behind the target is left to it.
3. Holding the apply lock, so that the live positions stand still, the rest up to them is read, what was not seen is
   deleted, and the positions are set.

A killed resync leaves the tables complete, partly mended; the next one begins anew.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Final

from sqlalchemy import Connection, Engine, delete, exists, or_, select, text
from structlog import get_logger

from tenten.consumers.channel.distribution.apply import ChannelView, apply, dialect_of, tables_of
from tenten.consumers.channel.distribution.last_records import Survivors, read_range
from tenten.consumers.channel.distribution.snapshots import Batch, Changes, take_in
from tenten.consumers.channel.overlay import remove
from tenten.consumers.channel.positions import TopicRead, guard_topic, read_positions, replace
from tenten.consumers.channel.write_slices import Slices
from tenten.kafka.assigned_reader import AssignedReader, Records
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.errors import TentenError, WriteConflict
from tenten.runtime.failpoints import failpoint
from tenten.runtime.prefetch import prefetched
from tenten.runtime.retry import Retry, Stopped
from tenten.runtime.settings import Settings
from tenten.schemas.tables.channel import customers, outbox, resync_keys
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.arrays import is_one_of
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.locks import DatabaseLock, apply_lock, resync_lock
from tenten.sql.migrations import check_version

log = get_logger(__name__)

Progress = Callable[[int, int], None]
"""Is told how many offsets are done, and of how many; those of records that compaction has removed count as well."""

TAIL_OFFSETS_MAX: Final = 2_000
"""With at most this much left, it is read under the apply lock, which the live distributor waits for."""

FETCH_WAIT_MS: Final = 10
"""A reader moves from partition to partition, and each move waits for the fetch that is under way at the broker."""

TAIL_ROUNDS_MAX: Final = 10
"""How often what came meanwhile is read before that, at most."""

_CHANGED_ROWS: Final = 1_000
"""How many existing customers are locked at a time: a clerk waits for no more than that."""

_SURPLUS_ROWS: Final = 500
_KEY_ROWS: Final = 1_000


class SnapshotUnreadable(TentenError):
    """A snapshot that counts cannot be read; nothing was deleted."""


def resync(
    settings: Settings, channel_name: str, progress: Progress = lambda _, __: None, stop: Event | None = None
) -> bool:
    """Resync a channel. False when `stop` was set before it was done. A database or broker that is away is waited for.

    Raises: `LockHeld` when a resync of this channel runs already; `SnapshotUnreadable`, before anything is deleted;
    `TopicChanged`, `KafkaRefused`, `DatabaseRefused`, `SettingsError`.
    """
    ending = stop or Event()
    view = ChannelView.of(settings, channel_name, writer_schemas(settings))
    retry = Retry("resync", channel_name, ending)
    engine = open_database(settings.channel(channel_name).database)
    try:
        retry.run_until_success(lambda: check_version(engine, "channel"))
        with resync_lock(engine):
            retry.run_until_success(lambda: _forget_keys(engine))
            topic = retry.run_until_success(lambda: _topic(settings, engine))
            group = settings.group(f"channel.{channel_name}")
            with (
                AssignedReader(settings, topic.name, group, {}, FETCH_WAIT_MS) as keys,
                AssignedReader(settings, topic.name, group, {}, FETCH_WAIT_MS) as more_keys,
                AssignedReader(settings, topic.name, group, {}, FETCH_WAIT_MS) as records,
            ):
                replay = _Replay(
                    settings=settings,
                    engine=engine,
                    view=view,
                    topic=topic,
                    retry=retry,
                    stop=ending,
                    keys=keys,
                    more_keys=more_keys,
                    records=records,
                )
                _read_all(replay, progress)
                retry.run_until_success(lambda: _finish(replay))
            retry.run_until_success(lambda: _forget_keys(engine))
    except Stopped:
        return False
    finally:
        engine.dispose()
    log.info("resynced", channel=channel_name, topic=topic.name, next_offsets=replay.read_to)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replay:
    """What the steps of one resync share."""

    settings: Settings
    engine: Engine
    view: ChannelView
    topic: TopicRead
    retry: Retry
    stop: Event
    keys: AssignedReader
    more_keys: AssignedReader
    records: AssignedReader
    read_to: dict[int, int] = field(default_factory=dict)
    """By partition: everything before is in the channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Some survivors of a partition, ready to be compared and applied, and how far it has been read with them."""

    survivors: Survivors
    records: Records
    batch: Batch
    next_offset: int


def _topic(settings: Settings, engine: Engine) -> TopicRead:
    name = settings.topic(CUSTOMERS)
    info = topic_ids(settings, [name])[name]
    with engine.begin() as connection:
        return guard_topic(connection, name, info)


def _read_all(replay: _Replay, progress: Progress) -> None:
    """Read every partition to its target, and then what came meanwhile, until little is left."""
    ask = replay.retry.run_until_success
    name, partitions = replay.topic.name, replay.topic.partitions
    start = ask(lambda: earliest_offsets(replay.settings, name, partitions))
    target = ask(lambda: last_stable_offsets(replay.settings, name, partitions))
    replay.read_to.update(start)
    total, done = sum(target.values()) - sum(start.values()), 0
    progress(done, total)
    for offsets in _read(replay, target):
        done += offsets
        progress(done, total)
    for _ in range(TAIL_ROUNDS_MAX):
        end = ask(lambda: last_stable_offsets(replay.settings, name, partitions))
        if sum(end.values()) - sum(replay.read_to.values()) <= TAIL_OFFSETS_MAX:
            return
        for _ in _read(replay, end):
            pass


def _read(replay: _Replay, target: Mapping[int, int], held: DatabaseLock | None = None) -> Iterator[int]:
    """Bring the partitions into the channel up to these offsets. Gives, step by step, how many offsets that was.

    While a step is applied, the next one is read, and so are the keys of the next partition. `held` is the apply lock,
    where the caller has it.
    """
    run_until_success = replay.retry.run_until_success
    for step in prefetched(_steps(replay, target)):
        if step.batch.rows:
            changes = step.batch.changes()
            wrong = run_until_success(partial(_wrong, replay.engine, changes))
            if wrong:
                run_until_success(partial(_mend, replay, step, wrong, held))
            run_until_success(partial(_remember, replay.engine, changes))
            failpoint("resync.after_slice")
        partition = step.survivors.partition
        yield step.next_offset - replay.read_to[partition]
        replay.read_to[partition] = step.next_offset


def _steps(replay: _Replay, target: Mapping[int, int]) -> Iterator[_Step]:
    """The survivors of every partition, batch by batch. Raises: `SnapshotUnreadable`."""
    for survivors in prefetched(_survivors(replay, target)):
        partition = survivors.partition
        start, end = replay.read_to[partition], target[partition]
        for records in read_range(replay.records, partition, start, end, replay.stop):
            chosen = records.rows(survivors.of(records))
            next_offset = records.offsets[-1] + 1
            yield _Step(survivors=survivors, records=chosen, batch=_batch(replay, chosen), next_offset=next_offset)
        # Up to the target there may be control markers, and records that compaction has removed.
        nothing = Records()
        yield _Step(survivors=survivors, records=nothing, batch=_batch(replay, nothing), next_offset=end)


def _survivors(replay: _Replay, target: Mapping[int, int]) -> Iterator[Survivors]:
    """Of every partition that is not there yet, which records up to its target count."""
    for partition, end in target.items():
        start = replay.read_to[partition]
        if start < end:
            survivors = Survivors(partition, start)
            survivors.read_on(replay.keys, end, replay.stop)
            yield survivors


def _batch(replay: _Replay, records: Records) -> Batch:
    batch = take_in(records, replay.view.writers, replay.view.filter, dialect_of(replay.engine))
    for one in batch.unread:
        raise SnapshotUnreadable(
            f"the record at offset {one.offset} of partition {one.partition} of {replay.topic.name} {one.text}, and it "
            "is the last of its customer: nothing was deleted; have headquarters send that customer again "
            "(`tenten headquarters verify`), or upgrade this channel, then resync again"
        )
    return batch


def _wrong(engine: Engine, changes: Changes) -> set[str]:
    """The customers that are not as these changes would have them. Takes no lock that a clerk would wait for."""
    tables = tables_of(engine)
    with _comparing(engine) as connection:
        found = set(changes.ids)
        if changes.frames is not None:
            found = tables.different(connection, changes.frames, changes.ids)
        found |= tables.versions(connection, [*changes.unwanted, *changes.erased]).keys()
        if changes.erased:
            query = select(outbox.c.aggregateid).where(is_one_of(connection, outbox.c.aggregateid, changes.erased))
            still_there = query.where(outbox.c.aggregatetype == "customer", outbox.c.outcome.is_distinct_from("erased"))
            found.update(connection.scalars(still_there))
    return found


def _comparing(engine: Engine) -> AbstractContextManager[Connection]:
    """PostgreSQL compares with temporary tables, which a transaction for reading only may not have."""
    return consistent_view(engine) if engine.dialect.name == "sqlite" else engine.begin()


def _mend(replay: _Replay, step: _Step, wrong: Collection[str], held: DatabaseLock | None) -> None:
    """Apply what differs, but for what the live distributor has a newer record of."""
    with nullcontext() if held else apply_lock(replay.engine):
        with consistent_view(replay.engine) as connection:
            live = read_positions(connection, replay.topic).get(step.survivors.partition)
            exist = bool(tables_of(connection).versions(connection, wrong))
        if live is not None:
            step.survivors.read_on(replay.more_keys, live.next_offset, replay.stop)
        keys = {guid.encode() for guid in wrong}
        rows = [row for row in step.survivors.of(step.records) if step.records.keys[row] in keys]
        batch = step.batch if len(rows) == len(step.records.keys) else _batch(replay, step.records.rows(rows))
        slices = Slices(replay.engine.dialect.name, _CHANGED_ROWS if exist else batch.rows)
        for first_row, end_row in slices.cut(batch.rows):
            changes = batch.changes(first_row, end_row)
            with replay.engine.begin() as connection, slices.timed(end_row - first_row):
                apply(connection, replay.view, changes, datetime.now(UTC), survivors=True)


def _remember(engine: Engine, changes: Changes) -> None:
    """Note the customers that the topic has for this channel."""
    tables = tables_of(engine)
    for first in range(0, len(changes.ids), _KEY_ROWS):
        with engine.begin() as connection:
            tables.remember_keys(connection, changes.ids[first : first + _KEY_ROWS])


def _finish(replay: _Replay) -> None:
    """Read on to the live positions, which stand still now; delete what was not seen; set the positions.

    Tried again as a whole when the database goes away in between: all of it may be repeated.
    """
    with apply_lock(replay.engine) as held:
        with consistent_view(replay.engine) as connection:
            live = read_positions(connection, replay.topic)
        for _ in _read(replay, {partition: position.next_offset for partition, position in live.items()}, held):
            pass
        failpoint("resync.before_delete")
        _delete_surplus(replay.engine)
        if not held.is_held():
            raise WriteConflict("the apply lock was lost with its connection")
        with replay.engine.begin() as connection:
            replace(connection, replay.topic, replay.read_to, datetime.now(UTC))


def _delete_surplus(engine: Engine) -> None:
    """Delete, in slices, every customer that the topic does not have, unless it is pending or has unsettled events."""
    unsettled = exists().where(
        outbox.c.aggregateid == customers.c.customer_id,
        outbox.c.aggregatetype == "customer",
        outbox.c.settled_at.is_(None),
    )
    from_headquarters = or_(customers.c.version > 0, customers.c.account_number.is_not(None))
    unseen = ~exists().where(resync_keys.c.customer_id == customers.c.customer_id)
    surplus = (
        select(customers.c.customer_id)
        .where(from_headquarters, unseen, ~unsettled)
        .order_by(customers.c.customer_id)
        .limit(_SURPLUS_ROWS)
    )
    while True:
        with consistent_view(engine) as connection:
            found = list(connection.scalars(surplus))
        if not found:
            return
        with engine.begin() as connection:
            # Locked first: a clerk may have edited one of them since it was found.
            tables_of(engine).lock_versions(connection, found)
            remove(
                connection,
                list(connection.scalars(surplus.where(is_one_of(connection, customers.c.customer_id, found)))),
            )


def _forget_keys(engine: Engine) -> None:
    """Empty the table of seen customers."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE resync_keys"))
        return
    some = select(resync_keys.c.customer_id).limit(_KEY_ROWS)
    rows = 1
    while rows:
        with engine.begin() as connection:
            rows = connection.execute(delete(resync_keys).where(resync_keys.c.customer_id.in_(some))).rowcount
