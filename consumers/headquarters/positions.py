"""Positions in headquarters' database: up to which offset a consumer group's records are stored.

They advance in the SQL transaction that stores the records, and are never lowered. Each advance is also a check: a
database that was restored from a backup, or replaced by an older replica, is behind the place where the batch began.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from tenten.consumers.headquarters.refusals import database_older
from tenten.registry.tables import Version
from tenten.runtime.errors import DatabaseOlderThanStream, SettingsChanged
from tenten.schemas.tables.headquarters import positions

if TYPE_CHECKING:
    import psycopg

BATCH_COMMITTED_CHANNEL: Final = "tenten_taken_in"
"""PostgreSQL NOTIFY channel: notified in every transaction that adds to the release queue, or stores sales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The owner of positions: the consumer group and the id of the topic it reads."""

    consumer_group: str
    topic_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedWith:
    """The version of the registry with whose keys and suspensions a batch was checked; None: without any change."""

    version: Version | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPositions:
    """The part of a stream that a batch stores.

    `starts` has every partition of the worker: a database that lacks records of any of them is too old. `next_offsets`
    has those of the batch.
    """

    stream: Stream
    starts: Mapping[int, int]
    next_offsets: Mapping[int, int]
    checked: "CheckedWith | None" = None
    """None: the batch was not checked with the registry."""

    def not_advanced(self) -> "StreamPositions":
        """The same check without an advance, for a part of the batch."""
        return replace(self, next_offsets={})

    def parameters(self) -> dict[str, object]:
        """As parameters of a statement; the next offset is null where the batch has no records."""
        partitions = sorted(self.starts)
        return {
            "consumer_group": self.stream.consumer_group,
            "topic_id": self.stream.topic_id,
            "partitions": partitions,
            "starts": [self.starts[partition] for partition in partitions],
            "next_offsets": [self.next_offsets.get(partition) for partition in partitions],
        }

    def checked_parameters(self) -> dict[str, object]:
        """The version of the registry as parameters of a statement."""
        change_id, applied_at = (None if self.checked is None else self.checked.version) or (None, None)
        return {"is_checked": self.checked is not None, "change_id": change_id, "applied_at": applied_at}


def advance_positions(headquarters: Connection, reached: StreamPositions) -> dict[int, int]:
    """Advance the positions, never lowering one; return those before, by partition: records before them were stored by
    an earlier transaction. Locks their rows, so this is the first step of a transaction.

    Raises: `DatabaseOlderThanStream` when the database is behind the start of the batch; `SettingsChanged` when the
    registry is not the one with which the batch was checked.
    """
    parameters = reached.parameters()
    rows = headquarters.execute(_SOUND, {**parameters, **reached.checked_parameters()}).all()
    before = {row.partition: row.next_offset for row in rows}
    if len(before) != len(reached.starts):
        raise older_than_stream(reached.stream)
    if any(row.has_changed for row in rows):
        raise settings_changed()
    headquarters.execute(_ADVANCE_POSITIONS, parameters)
    return before


def settings_changed() -> SettingsChanged:
    """The error of a batch that was checked with an earlier version of the registry."""
    return SettingsChanged("keys or settings of channels have changed since the batch was checked")


REGISTRY_VERSION: Final = "SELECT change_id, applied_at FROM settings_history ORDER BY change_id DESC LIMIT 1"
"""The last change of the registry."""

_POSITION_AND_REACHED: Final = """
    positions.consumer_group = :consumer_group AND positions.topic_id = :topic_id
    AND positions.partition = reached.partition
"""
_REACHED: Final = """
    unnest(CAST(:partitions AS integer[]), CAST(:starts AS bigint[]), CAST(:next_offsets AS bigint[]))
    AS reached (partition, start, next_offset)
"""

_SOUND: Final = text(
    f"""
    SELECT positions.partition, positions.next_offset, CAST(:is_checked AS boolean) AND (
        registry.change_id IS DISTINCT FROM CAST(:change_id AS bigint)
        OR registry.applied_at IS DISTINCT FROM CAST(:applied_at AS timestamptz)
    ) AS has_changed
    FROM positions JOIN {_REACHED} ON {_POSITION_AND_REACHED}
    LEFT JOIN ({REGISTRY_VERSION}) AS registry ON true
    WHERE positions.next_offset >= reached.start
    """  # noqa: S608 - constants of this module
)
"""The partitions of which the database has everything before the batch, and whether the registry is another one than
that with which the batch was checked."""

_ADVANCE_POSITIONS: Final = text(
    f"""
    UPDATE positions SET next_offset = reached.next_offset FROM {_REACHED}
    WHERE {_POSITION_AND_REACHED} AND positions.next_offset < reached.next_offset
    """  # noqa: S608 - constants of this module
)


def older_than_stream(stream: Stream) -> DatabaseOlderThanStream:
    """The error of a database that lacks records which its worker has processed."""
    return database_older(
        f"it lacks records that the consumer group {stream.consumer_group} has processed, so it was replaced while "
        "this worker was running"
    )


def notify_batch_committed(headquarters: Connection) -> None:
    """Notify the listeners of `BATCH_COMMITTED_CHANNEL` when the transaction commits."""
    headquarters.execute(_NOTIFY)


_NOTIFY: Final = text(f"SELECT pg_notify('{BATCH_COMMITTED_CHANNEL}', '')")


def create_positions(headquarters: Connection, stream: Stream, partitions: Collection[int]) -> None:
    """Set the missing positions of these partitions to 0. Idempotent."""
    if partitions:
        rows = [
            {"consumer_group": stream.consumer_group, "topic_id": stream.topic_id, "partition": partition}
            for partition in sorted(partitions)
        ]
        headquarters.execute(insert(positions).values(next_offset=0).on_conflict_do_nothing(), rows)


def read_positions(headquarters: Connection, stream: Stream) -> dict[int, int]:
    """The next offset that is not stored yet, by partition."""
    rows = headquarters.execute(
        select(positions.c.partition, positions.c.next_offset).where(
            positions.c.consumer_group == stream.consumer_group, positions.c.topic_id == stream.topic_id
        )
    )
    return {row.partition: row.next_offset for row in rows}


def raise_positions(headquarters: Connection, stream: Stream, starts: Mapping[int, int]) -> None:
    """Raise the positions that are behind these offsets, before which the topic has no record. Never lowers one."""
    parameters = StreamPositions(stream=stream, starts=starts, next_offsets=starts).parameters()
    headquarters.execute(_ADVANCE_POSITIONS, parameters)


def positions_ahead(driver: "psycopg.Connection[Any]", stream: Stream, committed: Mapping[int, int]) -> bool:
    """Whether one of the group's offsets, by partition, is ahead of its position. They must have been read before."""
    row = driver.execute(
        _COUNT_AHEAD, (list(committed), list(committed.values()), stream.consumer_group, stream.topic_id)
    ).fetchone()
    assert row is not None  # count(*) returns one row
    return bool(row[0])


_COUNT_AHEAD: Final = """
    SELECT count(*) FROM unnest(%s::integer[], %s::bigint[]) AS committed (partition, next_offset)
    WHERE committed.next_offset > coalesce((
        SELECT positions.next_offset FROM positions
        WHERE consumer_group = %s AND topic_id = %s AND positions.partition = committed.partition
    ), 0)
    """
