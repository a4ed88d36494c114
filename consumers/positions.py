"""Where a channel stands in the topics it reads: in its own database, moved in the same SQL transaction as the rows.

A position is the offset that is read next. It is moved by compare-and-set, so a second reader of the same channel cannot get in
between, and it counts only together with the topic's id: a topic deleted and made again is another one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, case, delete, func, insert, select, tuple_, update

from commerce.failures import Contended
from commerce.kafka import TopicInfo, check_partitions
from schemas.channel import positions, topics


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
    this_one = (topics.c.topic == name, topics.c.topic_id == info.topic_id)
    known = connection.scalar(select(topics.c.partitions).where(*this_one))
    if known is None:
        connection.execute(insert(topics).values(topic=name, topic_id=info.topic_id, partitions=info.partitions))
    else:
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
    """Start these partitions at their beginning. What is not there yet misses nothing: confirmed as of now."""
    rows = [
        {
            "topic": topic.name,
            "topic_id": topic.topic_id,
            "partition": partition,
            "next_offset": 0,
            "confirmed_at": at,
        }
        for partition in partitions
    ]
    if rows:
        connection.execute(insert(positions), rows)


def move(
    connection: Connection,
    topic: TopicRead,
    moves: Mapping[int, tuple[int, int]],
    confirmed: Iterable[int],
    at: datetime,
) -> None:
    """Move positions, by partition from the offset they have to the new one, and note the partitions read to their end.

    One statement. Raises: `Contended` when one of them is not where it was; the transaction is to be rolled back then.
    """
    if not moves:
        return
    at_end = sorted(set(confirmed))
    changed = connection.execute(
        update(positions)
        .where(*_of(topic))
        .where(
            tuple_(positions.c.partition, positions.c.next_offset).in_(
                [(partition, old) for partition, (old, _) in moves.items()]
            )
        )
        .values(
            next_offset=case({partition: new for partition, (_, new) in moves.items()}, value=positions.c.partition),
            confirmed_at=case((positions.c.partition.in_(at_end), at), else_=positions.c.confirmed_at),
        )
    )
    if changed.rowcount != len(moves):
        raise Contended(f"another process reads {topic.name} for this channel and has moved on")


def replace(connection: Connection, topic: TopicRead, next_offsets: Mapping[int, int], at: datetime) -> None:
    """Put every position of this topic where it is said, confirmed, and forget those in earlier topics of its name."""
    connection.execute(delete(positions).where(positions.c.topic == topic.name))
    connection.execute(delete(topics).where(topics.c.topic == topic.name, topics.c.topic_id != topic.topic_id))
    rows = [
        {
            "topic": topic.name,
            "topic_id": topic.topic_id,
            "partition": partition,
            "next_offset": offset,
            "confirmed_at": at,
        }
        for partition, offset in next_offsets.items()
    ]
    connection.execute(insert(positions), rows)


def _of(topic: TopicRead):  # type: ignore[no-untyped-def]
    return positions.c.topic == topic.name, positions.c.topic_id == topic.topic_id
