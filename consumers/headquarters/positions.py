"""Positions in headquarters' database: up to which offset a consumer group's records are stored.

They advance in the SQL transaction that stores the records, and are never lowered.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select, text

from tenten.schemas.tables.headquarters import positions

BATCH_COMMITTED_CHANNEL: Final = "tenten_taken_in"
"""PostgreSQL NOTIFY channel: notified in every transaction that stores a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The owner of positions: the consumer group and the id of the topic it reads."""

    consumer_group: str
    topic_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPositions:
    """The positions that a batch reaches in its stream: the next offset by partition."""

    stream: Stream
    next_offsets: Mapping[int, int]


def advance_positions(headquarters: Connection, reached: StreamPositions) -> None:
    """Advance the positions, never lowering one, and notify the listeners of `BATCH_COMMITTED_CHANNEL`."""
    if reached.next_offsets:
        partitions = sorted(reached.next_offsets)
        headquarters.execute(
            _ADVANCE_POSITIONS,
            {
                "consumer_group": reached.stream.consumer_group,
                "topic_id": reached.stream.topic_id,
                "partitions": partitions,
                "next_offsets": [reached.next_offsets[partition] for partition in partitions],
            },
        )


_ADVANCE_POSITIONS: Final = text(
    f"""
    WITH noted AS (
        INSERT INTO positions (consumer_group, topic_id, partition, next_offset)
        SELECT :consumer_group, :topic_id, reached.partition, reached.next_offset
        FROM unnest(CAST(:partitions AS integer[]), CAST(:next_offsets AS bigint[])) AS reached (partition, next_offset)
        ON CONFLICT (consumer_group, topic_id, partition)
        DO UPDATE SET next_offset = greatest(positions.next_offset, excluded.next_offset)
    )
    SELECT pg_notify('{BATCH_COMMITTED_CHANNEL}', '')
    """  # noqa: S608 - a constant of this module
)


def read_positions(headquarters: Connection, stream: Stream) -> dict[int, int]:
    """The next offset that is not stored yet, by partition."""
    rows = headquarters.execute(
        select(positions.c.partition, positions.c.next_offset).where(
            positions.c.consumer_group == stream.consumer_group, positions.c.topic_id == stream.topic_id
        )
    )
    return {row.partition: row.next_offset for row in rows}
