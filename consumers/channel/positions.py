"""The channel's positions in the topics it reads, in its own database, moved in the same SQL transaction as the rows.

A position is the offset of the next record to read. It is moved by compare-and-set, so that of two readers of one
channel only one succeeds. It belongs to the topic's id: a recreated topic has positions of its own. The filter by which
customers were chosen stands beside it: a process with another filter moves nothing.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, exists, func, select, update

from tenten.kafka.topics_admin import TopicInfo, check_partitions
from tenten.runtime.errors import WriteConflict
from tenten.schemas.tables.channel import positions, resync_requests, topics
from tenten.sql.postgresql_driver import driver_cursor, driver_of
from tenten.sql.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRead:
    """A topic that the channel reads: its name in Kafka, its id and its number of partitions."""

    name: str
    topic_id: str
    partitions: int
    filter: str | None = None
    """The filter by which rows are chosen from its records; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The channel's position in one partition."""

    next_offset: int
    confirmed_at: datetime | None
    """The last time when the channel had read to the end."""
    filter: str | None
    """The filter by which the rows were chosen; None before a release that stored it."""


def register_topic(connection: Connection, name: str, info: TopicInfo, channel_filter: str | None = None) -> TopicRead:
    """The topic as the channel reads it. Stores its number of partitions when it is first read. Idempotent.

    Raises: `TopicChanged` when the number differs from the stored one.
    """
    new = insert_into(connection, topics).values(topic=name, topic_id=info.topic_id, partitions=info.partitions)
    connection.execute(new.on_conflict_do_nothing())
    is_this_topic = (topics.c.topic == name, topics.c.topic_id == info.topic_id)
    stored_partitions = connection.execute(select(topics.c.partitions).where(*is_this_topic)).scalar_one()
    check_partitions(name, stored_partitions, info.partitions)
    return TopicRead(name=name, topic_id=info.topic_id, partitions=info.partitions, filter=channel_filter)


def store_filter(connection: Connection, topic: TopicRead) -> None:
    """Store the filter where an earlier release has stored none. Idempotent."""
    without = update(positions).where(*_is_in(topic), positions.c.filter.is_(None))
    connection.execute(without.values(filter=topic.filter))


def read_positions(connection: Connection, topic: TopicRead) -> dict[int, Position]:
    """The channel's positions in this topic, by partition; empty before the first read."""
    query = select(positions.c.partition, positions.c.next_offset, positions.c.confirmed_at, positions.c.filter)
    rows = connection.execute(query.where(*_is_in(topic)).order_by(positions.c.partition))
    return {
        row.partition: Position(next_offset=row.next_offset, confirmed_at=row.confirmed_at, filter=row.filter)
        for row in rows
    }


def was_recreated(connection: Connection, topic: TopicRead) -> bool:
    """Whether the channel has positions in an earlier topic of this name."""
    query = select(func.count()).select_from(positions)
    count = connection.scalar(query.where(positions.c.topic == topic.name, positions.c.topic_id != topic.topic_id))
    return bool(count)


_ONCE_COMPLETE: Final = "headquarters has declared the topic complete"
"""The reason of a resync that waits for this: the last one has kept customers that the topic may lack."""


def requested_resync(connection: Connection, *, is_complete: bool = False) -> str | None:
    """The reason of a resync that a migration has requested, or of one that waits until the topic is complete."""
    requests = select(resync_requests.c.reason).order_by(resync_requests.c.reason).limit(1)
    return connection.scalar(
        requests if is_complete else requests.where(resync_requests.c.reason != _ONCE_COMPLETE),
    )


def waits_for_completeness(connection: Connection) -> bool:
    """Whether a resync waits until headquarters declares the topic complete."""
    return bool(connection.scalar(select(exists().where(resync_requests.c.reason == _ONCE_COMPLETE))))


def resync_once_complete(connection: Connection, at: datetime) -> None:
    """Request a resync that waits until headquarters declares the topic complete. Idempotent."""
    request = insert_into(connection, resync_requests).values(reason=_ONCE_COMPLETE, requested_at=at)
    connection.execute(request.on_conflict_do_nothing())


def forget_requested_resyncs(connection: Connection) -> None:
    """Delete the requests of resyncs. Idempotent."""
    connection.execute(delete(resync_requests))


def initialise_positions(connection: Connection, topic: TopicRead, partitions: Iterable[int], at: datetime) -> None:
    """Set missing positions to offset 0, confirmed: a channel without rows has missed no tombstone. Idempotent."""
    rows = [_position(topic, partition, 0, at) for partition in partitions]
    if rows:
        connection.execute(insert_into(connection, positions).on_conflict_do_nothing(), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Positions to move in one topic, by partition from the stored offset to the new one."""

    topic: TopicRead
    offsets: Mapping[int, tuple[int, int]]
    at_end: Collection[int] = ()
    """The partitions that are read to their end."""


def move_positions(connection: Connection, moves: Sequence[Moves], at: datetime) -> None:
    """Move positions, and note at which time partitions were read to their end. One statement.

    Raises: `WriteConflict` when a stored offset or filter differs; the transaction must be rolled back.
    """
    rows = [
        {
            "topic": move.topic.name,
            "topic_id": move.topic.topic_id,
            "partition": partition,
            "old": old,
            "new": new,
            "at": at.isoformat(timespec="microseconds") if partition in move.at_end else None,
            "filter": move.topic.filter,
        }
        for move in moves
        for partition, (old, new) in sorted(move.offsets.items())
    ]
    if rows and _move(connection, rows) != len(rows):
        names = ", ".join(move.topic.name for move in moves)
        raise WriteConflict(f"another process reads {names} for this channel and has moved its positions or its filter")


def _move(connection: Connection, rows: Sequence[Mapping[str, object]]) -> int:
    """Move these positions; the number of those that were where they were expected."""
    if connection.dialect.name == "sqlite":
        driver: sqlite3.Connection = driver_of(connection)
        return driver.executemany(_MOVE["sqlite"], rows).rowcount
    with driver_cursor(connection) as cursor:
        return cursor.execute(_MOVE["postgresql"], (json.dumps(rows),), prepare=True).rowcount


# By database: move positions by compare-and-set; `at` is null where the end was not reached.
_MOVE: Final = {
    "postgresql": """
        UPDATE positions SET next_offset = m.new, confirmed_at = coalesce(m.at, positions.confirmed_at)
        FROM json_to_recordset(%s::json) AS m
            (topic text, topic_id text, partition integer, old bigint, new bigint, at timestamptz, filter text)
        WHERE positions.topic = m.topic AND positions.topic_id = m.topic_id AND positions.partition = m.partition
              AND positions.next_offset = m.old AND positions.filter IS NOT DISTINCT FROM m.filter
        """,
    "sqlite": """
        UPDATE positions SET next_offset = :new, confirmed_at = coalesce(:at, confirmed_at)
        WHERE topic = :topic AND topic_id = :topic_id AND partition = :partition AND next_offset = :old
              AND filter IS :filter
        """,
}


def replace_positions(connection: Connection, topic: TopicRead, next_offsets: Mapping[int, int], at: datetime) -> None:
    """Set positions in this topic, confirmed, and delete those in earlier topics of its name. Idempotent."""
    for table in (positions, topics):
        connection.execute(delete(table).where(table.c.topic == topic.name, table.c.topic_id != topic.topic_id))
    upsert = insert_into(connection, positions)
    upsert = upsert.on_conflict_do_update(
        index_elements=list(positions.primary_key),
        set_={name: upsert.excluded[name] for name in ("next_offset", "confirmed_at", "filter")},
    )
    connection.execute(upsert, [_position(topic, partition, offset, at) for partition, offset in next_offsets.items()])


def _position(topic: TopicRead, partition: int, next_offset: int, at: datetime) -> dict[str, object]:
    return {
        "topic": topic.name,
        "topic_id": topic.topic_id,
        "partition": partition,
        "next_offset": next_offset,
        "confirmed_at": at,
        "filter": topic.filter,
    }


def _is_in(topic: TopicRead) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return positions.c.topic == topic.name, positions.c.topic_id == topic.topic_id
