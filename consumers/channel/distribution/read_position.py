"""The channel's position in `customers`, and whether the channel needs a resync instead of reading on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from sqlalchemy import Connection, Engine, exists, select
from structlog import get_logger

from tenten.consumers.channel.filter import ChannelFilter
from tenten.consumers.channel.positions import (
    Position,
    TopicRead,
    initialise_positions,
    read_positions,
    register_topic,
    requested_resync,
    store_filter,
    waits_for_completeness,
    was_recreated,
)
from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.topic_status import is_complete
from tenten.kafka.topics_admin import ask, topic_ids
from tenten.runtime.error_codes import error_code
from tenten.runtime.errors import KafkaRefused
from tenten.runtime.settings import Settings
from tenten.schemas.tables.channel import customers
from tenten.schemas.topics import CUSTOMERS, HEADQUARTERS_STATUS
from tenten.sql.engine import consistent_view
from tenten.sql.loading import write_first_load

log = get_logger(__name__)

AWAY_SHARE_MAX: Final = 2 / 3
"""Of the topic's tombstone retention: a channel that was away for longer may have missed tombstones."""

CLOCK_STEP_MAX: Final = timedelta(minutes=5)
"""A time that is further in the future was stored by a wrong clock."""


@dataclass(kw_only=True)
class ReadPosition:
    """The channel's positions as its database has them."""

    topic: TopicRead
    next_offsets: dict[int, int]
    confirmed_at: dict[int, datetime]
    away_max: timedelta

    def was_away(self, now: datetime, stopped: Mapping[int, object]) -> bool:
        """Whether tombstones may have been missed in a partition. Stopped partitions are ignored: they wait anyway.

        A time in the future proves nothing: the clock was ahead when it was stored, or is behind now. A difference of
        minutes is harmless, as `AWAY_SHARE_MAX` leaves days.
        """
        earliest, latest = now - self.away_max, now + min(CLOCK_STEP_MAX, self.away_max / 2)
        confirmed = (at for partition, at in self.confirmed_at.items() if partition not in stopped)
        return any(not earliest <= at <= latest for at in confirmed)

    def moves(self, next_offsets: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """The positions to move, old and new offset by partition: to `next_offsets`, or to an end behind them."""
        new_offsets = {
            partition: max(self.next_offsets[partition], next_offsets.get(partition, 0), ends.get(partition, 0))
            for partition in next_offsets.keys() | ends.keys()
        }
        return {partition: (self.next_offsets[partition], offset) for partition, offset in new_offsets.items()}

    def at_end(self, moves: Mapping[int, tuple[int, int]], ends: Mapping[int, int]) -> set[int]:
        """The partitions whose end these moves reach."""
        return {partition for partition, (_, new) in moves.items() if new == ends.get(partition)}

    def confirmed_ends(self, stable_offsets: Mapping[int, int]) -> dict[int, int]:
        """The positions at the last stable offset, or past it: these partitions are at their end."""
        return {
            partition: self.next_offsets[partition]
            for partition, end in stable_offsets.items()
            if self.next_offsets.get(partition, -1) >= end
        }

    def moved(self, moves: Mapping[int, tuple[int, int]], at_end: Collection[int], at: datetime) -> None:
        """Record that these moves are committed."""
        self.confirmed_at.update(dict.fromkeys(at_end, at))
        self.next_offsets.update({partition: new for partition, (_, new) in moves.items()})


def load_read_position(
    settings: Settings, engine: Engine, channel_filter: ChannelFilter
) -> tuple[ReadPosition, str | None]:
    """The channel's position, and the reason for a resync where one is needed. A new channel starts at offset 0.

    Raises: `TopicChanged`, `KafkaRefused`, `KafkaException`, and the errors of the database.
    """
    name = settings.topic(CUSTOMERS)
    info = topic_ids(settings, [name])[name]
    away_max = AWAY_SHARE_MAX * _tombstone_retention(settings, name)
    now = datetime.now(UTC)
    with engine.begin() as connection:
        topic = register_topic(connection, name, info, channel_filter.text())
        store_filter(connection, topic)
    complete = is_complete_at_last(settings, engine, topic)
    ends = _ends_for_new_channel(settings, engine, topic)
    with engine.begin() as connection:
        positions = read_positions(connection, topic)
        reason = _resync_reason(connection, topic, positions, is_complete=complete)
        if reason is None:
            missing = [partition for partition in range(topic.partitions) if partition not in positions]
            initialise_positions(connection, topic, missing, now)
            if not positions and any(ends.values()):
                write_first_load(connection, sum(ends.values()), now)
            positions = read_positions(connection, topic)
    position = ReadPosition(
        topic=topic,
        next_offsets={partition: position.next_offset for partition, position in positions.items()},
        confirmed_at={partition: position.confirmed_at or now for partition, position in positions.items()},
        away_max=away_max,
    )
    if reason is None and position.was_away(now, {}):
        reason = (
            f"it was last at the end of the topic more than {away_max} ago, or at a time that lies in the future, and "
            "may have missed tombstones"
        )
    return position, reason


def _ends_for_new_channel(settings: Settings, engine: Engine, topic: TopicRead) -> Mapping[int, int]:
    """Up to where a channel without positions reads at first; empty for any other channel."""
    with consistent_view(engine) as connection:
        is_new = not read_positions(connection, topic)
    return last_stable_offsets(settings, topic.name, topic.partitions) if is_new else {}


def customers_are_complete(settings: Settings, topic: TopicRead, read_to: Mapping[int, int] | None = None) -> bool:
    """Whether headquarters has declared `customers` complete up to these offsets; by default up to its current end.

    False, too, where the declaration may not be read. Raises: `KafkaException` when no broker answers.
    """
    if read_to is None:
        read_to = last_stable_offsets(settings, topic.name, topic.partitions)
    try:
        return is_complete(settings, CUSTOMERS, topic.topic_id, read_to)
    except KafkaRefused as refusal:
        log.warning("completeness_unknown", topic=settings.topic(HEADQUARTERS_STATUS), code=error_code(refusal))
        return False


def is_complete_at_last(settings: Settings, engine: Engine, topic: TopicRead) -> bool:
    """Whether the channel waits until the topic is complete, because it has kept customers, and it is complete now."""
    with consistent_view(engine) as connection:
        waits = waits_for_completeness(connection)
    return waits and customers_are_complete(settings, topic)


def _resync_reason(
    connection: Connection, topic: TopicRead, positions: Mapping[int, Position], *, is_complete: bool
) -> str | None:
    if positions:
        others = {position.filter for position in positions.values()} - {topic.filter}
        if others:
            return f"its filter has changed from {others.pop()} to {topic.filter}"
        return requested_resync(connection, is_complete=is_complete)
    if was_recreated(connection, topic):
        return "the topic was recreated, so the channel's positions are invalid"
    if connection.scalar(select(exists().where(customers.c.version > 0))):
        return "it has customers from headquarters but no positions"
    return None


def _tombstone_retention(settings: Settings, topic: str) -> timedelta:
    """The topic's `delete.retention.ms`, as the broker has it now."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    described = ask(settings, lambda admin: admin.describe_configs([resource], request_timeout=REQUEST_SECONDS))
    return timedelta(milliseconds=int(call_kafka(described[resource].result)["delete.retention.ms"].value))
