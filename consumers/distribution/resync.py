"""The full sync: makes a channel's customers what the topic says, while they stay complete, readable and current.

Input: `customers` from its beginning. Output: the tables of the channel in place, and its positions.
Promise: afterwards the channel has what the topic has, by content and not only by version, and nothing else but what is pending.

1. The last stable offset of each partition is noted: the target.
2. A partition at a time is read up to its target, first the keys alone. That shows which record is the last of its key: only
   those are applied, so that nobody sees an older version or an erased customer come back. Rows that are as they should be are only
   compared. The live distributor goes on; what it has applied behind the target is left to it.
3. Holding the apply lock, so that the live positions stand still, the rest up to them is read, what was not seen is deleted, and
   the positions are set.

A killed resync leaves the tables complete, partly mended; the next one begins anew.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Final

from sqlalchemy import Connection, Engine, delete, exists, or_, select, text
from structlog import get_logger

from commerce.database import DatabaseLock, apply_lock, check_version, consistent_view, open_database, resync_lock
from commerce.failpoints import failpoint
from commerce.failures import Contended, TentenError
from commerce.kafka import earliest_offsets, last_stable_offsets, topic_ids
from commerce.schema_exchange import writer_schemas
from commerce.settings import Settings
from consumers.distribution.ahead import one_ahead
from consumers.distribution.apply import ChannelView, apply, dialect_of, tables_of
from consumers.distribution.edits import one_of, remove
from consumers.distribution.incoming import Batch, Changes, decode
from consumers.distribution.slices import Slices
from consumers.distribution.survivors import Survivors, read_range
from consumers.patience import Patience, Stopped
from consumers.positions import TopicRead, guard_topic, read_positions, replace
from consumers.reading import AssignedReader, Records
from schemas.channel import customers, outbox, resync_keys
from schemas.topics import CUSTOMERS

log = get_logger(__name__)

Progress = Callable[[int, int], None]
"""Is told how many offsets are done, and of how many; those of records that compaction has removed count as well."""

TAIL_OFFSETS_MAX: Final = 2_000
"""With at most this much behind the target, the rest is read under the apply lock, which the live distributor waits for."""

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
    patience = Patience("resync", channel_name, ending)
    engine = open_database(settings.channel(channel_name).database)
    try:
        patience.persist(lambda: check_version(engine, "channel"))
        with resync_lock(engine):
            patience.persist(lambda: _forget_keys(engine))
            topic = patience.persist(lambda: _topic(settings, engine))
            group = settings.group(f"channel.{channel_name}")
            with (
                AssignedReader(settings, topic.name, group, {}) as keys,
                AssignedReader(settings, topic.name, group, {}) as records,
            ):
                replay = _Replay(
                    settings=settings,
                    engine=engine,
                    view=view,
                    topic=topic,
                    patience=patience,
                    stop=ending,
                    keys=keys,
                    records=records,
                )
                _read_all(replay, progress)
                patience.persist(lambda: _finish(replay))
            patience.persist(lambda: _forget_keys(engine))
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
    patience: Patience
    stop: Event
    keys: AssignedReader
    records: AssignedReader
    read_to: dict[int, int] = field(default_factory=dict)
    """By partition: everything before is in the channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Survivors of one partition, ready to be compared and applied, and how far the partition has been read with them."""

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
    ask = replay.patience.persist
    name, partitions = replay.topic.name, replay.topic.partitions
    start = ask(lambda: earliest_offsets(replay.settings, name, partitions))
    target = ask(lambda: last_stable_offsets(replay.settings, name, partitions))
    replay.read_to.update(start)
    total, done = sum(target.values()) - sum(start.values()), 0
    for partition, end in target.items():
        for offsets in _read_partition(replay, partition, end):
            done += offsets
            progress(done, total)
    for _ in range(TAIL_ROUNDS_MAX):
        end_now = ask(lambda: last_stable_offsets(replay.settings, name, partitions))
        if sum(end_now.values()) - sum(replay.read_to.values()) <= TAIL_OFFSETS_MAX:
            return
        for partition, end in end_now.items():
            for _ in _read_partition(replay, partition, end):
                pass


def _read_partition(replay: _Replay, partition: int, end: int, held: DatabaseLock | None = None) -> Iterator[int]:
    """Bring one partition into the channel up to `end`. Gives, step by step, how many offsets that was.

    `held` is the apply lock, where the caller has it.
    """
    at = replay.read_to[partition]
    survivors = Survivors(replay.keys, partition, at, replay.stop)
    survivors.read_on(end)
    for step in one_ahead(_steps(replay, survivors, partition, end)):
        changes = step.batch.changes()
        wrong = replay.patience.persist(partial(_wrong, replay.engine, changes))
        if wrong:
            replay.patience.persist(partial(_mend, replay, survivors, step, wrong, held))
        replay.patience.persist(partial(_remember, replay.engine, changes))
        failpoint("resync.after_slice")
        yield step.next_offset - at
        at = step.next_offset
    yield max(0, end - at)
    replay.read_to[partition] = max(end, replay.read_to[partition])


def _steps(replay: _Replay, survivors: Survivors, partition: int, end: int) -> Iterator[_Step]:
    """The survivors of a partition, batch by batch. Raises: `SnapshotUnreadable`."""
    for records in read_range(replay.records, partition, replay.read_to[partition], end, replay.stop):
        chosen = records.rows(survivors.of(records))
        next_offset = records.offsets[-1] + 1
        yield _Step(records=chosen, batch=_batch(replay, chosen), next_offset=next_offset)


def _batch(replay: _Replay, records: Records) -> Batch:
    readable = decode(records, replay.view.writers)
    for one in readable.unread:
        raise SnapshotUnreadable(
            f"the record at offset {one.offset} of partition {one.partition} of {replay.topic.name} {one.text}, and it is the last of "
            "its customer: nothing was deleted; have headquarters send that customer again (`tenten headquarters verify`), "
            "or upgrade this channel, then resync again"
        )
    return Batch(readable, replay.view.filter, dialect_of(replay.engine))


def _wrong(engine: Engine, changes: Changes) -> set[str]:
    """The customers that are not as these changes would have them. Takes no lock that a clerk would wait for."""
    tables = tables_of(engine)
    with _comparing(engine) as connection:
        found: set[str] = tables.different(connection, changes.frames, changes.ids)
        found |= tables.versions(connection, [*changes.unwanted, *changes.erased]).keys()
        if changes.erased:
            query = select(outbox.c.aggregateid).where(one_of(connection, outbox.c.aggregateid, changes.erased))
            found.update(connection.scalars(query.where(outbox.c.outcome.is_distinct_from("erased"))))
    return found


def _comparing(engine: Engine) -> AbstractContextManager[Connection]:
    """PostgreSQL compares with temporary tables, which a transaction for reading only may not have."""
    return consistent_view(engine) if engine.dialect.name == "sqlite" else engine.begin()


def _mend(
    replay: _Replay, survivors: Survivors, step: _Step, wrong: Collection[str], held: DatabaseLock | None
) -> None:
    """Apply what differs, but for what the live distributor has a newer record of."""
    with nullcontext() if held else apply_lock(replay.engine):
        with replay.engine.begin() as connection:
            live = read_positions(connection, replay.topic).get(survivors.partition)
        if live is not None:
            survivors.read_on(live.next_offset)
        keys = {guid.encode() for guid in wrong}
        rows = [row for row in survivors.of(step.records) if step.records.keys[row] in keys]
        same = len(rows) == len(step.records.keys)
        batch = step.batch if same else _batch(replay, step.records.rows(rows))
        slices = Slices(replay.engine.dialect.name, batch.rows if same else _CHANGED_ROWS)
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
        with replay.engine.begin() as connection:
            live = read_positions(connection, replay.topic)
        for partition, position in live.items():
            for _ in _read_partition(replay, partition, position.next_offset, held):
                pass
        failpoint("resync.before_delete")
        _delete_surplus(replay.engine)
        if not held.is_held():
            raise Contended("the apply lock was lost with its connection")
        with replay.engine.begin() as connection:
            replace(connection, replay.topic, replay.read_to, datetime.now(UTC))


def _delete_surplus(engine: Engine) -> None:
    """Delete, in slices, every customer that the topic does not have, unless it is pending or has unsettled events."""
    unsettled = exists().where(outbox.c.aggregateid == customers.c.customer_id, outbox.c.settled_at.is_(None))
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
                connection, list(connection.scalars(surplus.where(one_of(connection, customers.c.customer_id, found))))
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
