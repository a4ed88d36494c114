"""Where a channel stands in the topics it reads: in its own database, moved in the same SQL transaction as the rows.

A position is the offset that is read next. It is moved by compare-and-set, so a second reader of the same channel
cannot get in between, and it counts only together with the topic's id: a topic deleted and made again is another one.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tenten.kafka.topics_admin import TopicInfo, check_partitions
from tenten.runtime.errors import WriteConflict
from tenten.schemas.tables.channel import positions, topics


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRead:
    """A topic as the channel reads it: its name in Kafka, and what it is now."""

    name: str
    topic_id: str
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the channel stands in one partition."""

    next_offset: int
    confirmed_at: datetime | None
    """When the channel was last at the end."""


def guard_topic(connection: Connection, name: str, info: TopicInfo) -> TopicRead:
    """Remember how many partitions the topic has when it is first read.

    Raises: `TopicChanged` when it has another number now.
    """
    new = _insert(connection, topics).values(topic=name, topic_id=info.topic_id, partitions=info.partitions)
    connection.execute(new.on_conflict_do_nothing())
    this_one = (topics.c.topic == name, topics.c.topic_id == info.topic_id)
    known = connection.execute(select(topics.c.partitions).where(*this_one)).scalar_one()
    check_partitions(name, known, info.partitions)
    return TopicRead(name=name, topic_id=info.topic_id, partitions=info.partitions)


def read_positions(connection: Connection, topic: TopicRead) -> dict[int, Position]:
    """The channel's positions in this topic, by partition; none where it has never begun."""
    query = select(positions.c.partition, positions.c.next_offset, positions.c.confirmed_at)
    rows = connection.execute(query.where(*_of(topic)).order_by(positions.c.partition))
    return {row.partition: Position(next_offset=row.next_offset, confirmed_at=row.confirmed_at) for row in rows}


def read_another(connection: Connection, topic: TopicRead) -> bool:
    """Whether the channel has positions in an earlier topic of this name."""
    query = select(func.count()).select_from(positions)
    count = connection.scalar(query.where(positions.c.topic == topic.name, positions.c.topic_id != topic.topic_id))
    return bool(count)


def begin(connection: Connection, topic: TopicRead, partitions: Iterable[int], at: datetime) -> None:
    """Start these partitions at their beginning, unless that is done. A channel without rows misses none: confirmed."""
    rows = [_position(topic, partition, 0, at) for partition in partitions]
    if rows:
        connection.execute(_insert(connection, positions).on_conflict_do_nothing(), rows)


def move(
    connection: Connection,
    topic: TopicRead,
    moves: Mapping[int, tuple[int, int]],
    confirmed: Collection[int],
    at: datetime,
) -> None:
    """Move positions, by partition from the offset they have to the new one, and note the partitions read to their end.

    Raises: `WriteConflict` when one of them is not where it was; the transaction is to be rolled back then.
    """
    for chosen, statement in ((True, _MOVE_TO_END), (False, _MOVE)):
        rows = [
            {
                "of_topic": topic.name,
                "of_id": topic.topic_id,
                "of_partition": partition,
                "old": old,
                "new": new,
                "at": at,
            }
            for partition, (old, new) in sorted(moves.items())
            if (partition in confirmed) is chosen
        ]
        if rows and connection.execute(statement, rows).rowcount != len(rows):
            raise WriteConflict(f"another process reads {topic.name} for this channel and has moved on")


_MOVE: Final = (
    update(positions)
    .where(
        positions.c.topic == bindparam("of_topic"),
        positions.c.topic_id == bindparam("of_id"),
        positions.c.partition == bindparam("of_partition"),
        positions.c.next_offset == bindparam("old"),
    )
    .values(next_offset=bindparam("new"))
)
_MOVE_TO_END: Final = _MOVE.values(confirmed_at=bindparam("at"))


def replace(connection: Connection, topic: TopicRead, next_offsets: Mapping[int, int], at: datetime) -> None:
    """Put every position of this topic where it is said, confirmed, and forget those in earlier topics of its name."""
    for table in (positions, topics):
        connection.execute(delete(table).where(table.c.topic == topic.name, table.c.topic_id != topic.topic_id))
    upsert = _insert(connection, positions)
    upsert = upsert.on_conflict_do_update(
        index_elements=list(positions.primary_key),
        set_={"next_offset": upsert.excluded.next_offset, "confirmed_at": upsert.excluded.confirmed_at},
    )
    connection.execute(upsert, [_position(topic, partition, offset, at) for partition, offset in next_offsets.items()])


def _position(topic: TopicRead, partition: int, next_offset: int, at: datetime) -> dict[str, object]:
    return {
        "topic": topic.name,
        "topic_id": topic.topic_id,
        "partition": partition,
        "next_offset": next_offset,
        "confirmed_at": at,
    }


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert with ON CONFLICT, which both databases have, each in its own words."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _of(topic: TopicRead) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return positions.c.topic == topic.name, positions.c.topic_id == topic.topic_id
