"""Positions in headquarters' database: how far it is in what a consumer group reads.

They move in the SQL transaction that takes the records in, and are never lowered.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select, text

from tenten.schemas.tables.headquarters import positions

TAKEN_IN_CHANNEL: Final = "tenten_taken_in"
"""PostgreSQL: notified in every transaction that takes a batch in, for those who wait for what is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Whose positions they are: the consumer group and the id of the topic it reads."""

    consumer_group: str
    topic_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How far a batch brings the database in its stream: by partition the next offset."""

    stream: Stream
    next_offsets: Mapping[int, int]


def note_positions(headquarters: Connection, reached: Reached) -> None:
    """Note how far the database is, never lowered, and wake those who wait for what the batch brought."""
    if reached.next_offsets:
        partitions = sorted(reached.next_offsets)
        headquarters.execute(
            _NOTE_POSITIONS,
            {
                "consumer_group": reached.stream.consumer_group,
                "topic_id": reached.stream.topic_id,
                "partitions": partitions,
                "next_offsets": [reached.next_offsets[partition] for partition in partitions],
            },
        )


_NOTE_POSITIONS: Final = text(
    f"""
    WITH noted AS (
        INSERT INTO positions (consumer_group, topic_id, partition, next_offset)
        SELECT :consumer_group, :topic_id, reached.partition, reached.next_offset
        FROM unnest(CAST(:partitions AS integer[]), CAST(:next_offsets AS bigint[])) AS reached (partition, next_offset)
        ON CONFLICT (consumer_group, topic_id, partition)
        DO UPDATE SET next_offset = greatest(positions.next_offset, excluded.next_offset)
    )
    SELECT pg_notify('{TAKEN_IN_CHANNEL}', '')
    """  # noqa: S608 - our own name
)


def read_positions(headquarters: Connection, stream: Stream) -> dict[int, int]:
    """By partition: the next offset that the database has not taken in."""
    rows = headquarters.execute(
        select(positions.c.partition, positions.c.next_offset).where(
            positions.c.consumer_group == stream.consumer_group, positions.c.topic_id == stream.topic_id
        )
    )
    return {row.partition: row.next_offset for row in rows}
