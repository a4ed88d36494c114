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
from tenten.runtime.errors import DatabaseOlderThanStream
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
class StreamPositions:
    """The part of a stream that a batch stores.

    `starts` has every partition of the worker: a database that lacks records of any of them is too old. `next_offsets`
    has those of the batch.
    """

    stream: Stream
    starts: Mapping[int, int]
    next_offsets: Mapping[int, int]

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


def advance_positions(headquarters: Connection, reached: StreamPositions) -> dict[int, int]:
    """Advance the positions, never lowering one; return those before, by partition: records before them were stored by
    an earlier transaction. Locks their rows, so this is the first step of a transaction.

    Raises: `DatabaseOlderThanStream` when the database is behind the start of the batch.
    """
    parameters = reached.parameters()
    before = {row.partition: row.next_offset for row in headquarters.execute(_SOUND, parameters)}
    if len(before) != len(reached.starts):
        raise older_than_stream(reached.stream)
    headquarters.execute(_ADVANCE_POSITIONS, parameters)
    return before


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
    SELECT positions.partition, positions.next_offset
    FROM positions JOIN {_REACHED} ON {_POSITION_AND_REACHED}
    WHERE positions.next_offset >= reached.start
    """  # noqa: S608 - constants of this module
)
"""The partitions of which the database has everything before the batch."""

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
