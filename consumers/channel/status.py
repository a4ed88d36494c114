"""The state of a channel: its number of customers, how many of them are pending, and its lag behind headquarters."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, select

from tenten.consumers.channel.filter import ChannelFilter
from tenten.consumers.channel.positions import Position, TopicRead, read_positions
from tenten.consumers.channel.snapshots import UnreadableSnapshot, decode_snapshots
from tenten.kafka.assigned_reader import AssignedReader
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.settings import Settings
from tenten.schemas.tables.channel import customers, outbox
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.channel_settings import settings_in_force
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import check_version

_FIRST_RECORD_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatus:
    """The state of a channel, from its database and from Kafka."""

    customers: int
    pending: int
    """Customers without an account number."""
    unsettled: int
    """Events that headquarters has not settled."""
    lag: int
    """Committed records of `customers` that are not applied yet, counted in offsets; 0 at the end."""
    confirmed_at: datetime | None
    """The last time when every partition had been read to its end; None before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCounts:
    """The state of a channel, from its database alone."""

    customers: int
    pending: int
    unsettled: int


def counts(settings: Settings, channel_name: str) -> ChannelCounts:
    """The numbers of customers and unsettled events. Reads the channel's database only."""
    engine = open_database(settings.channel(channel_name).database)
    try:
        check_version(engine, "channel")
        with consistent_view(engine) as connection:
            return _counts(connection)
    finally:
        engine.dispose()


def status(settings: Settings, channel_name: str) -> ChannelStatus:
    """The state of a channel: one consistent view of its database, then Kafka's offsets.

    Raises: `KafkaRefused`; `KafkaException` when no broker answers; `DatabaseRefused`; `SettingsError`.
    """
    engine = open_database(settings.channel(channel_name).database)
    name = settings.topic(CUSTOMERS)
    try:
        check_version(engine, "channel")
        info = topic_ids(settings, [name])[name]
        with consistent_view(engine) as connection:
            channel_counts = _counts(connection)
            positions = _positions(connection, name, info)
    finally:
        engine.dispose()
    ends = last_stable_offsets(settings, name, info.partitions)
    confirmed = [position.confirmed_at for position in positions.values() if position.confirmed_at is not None]
    return ChannelStatus(
        customers=channel_counts.customers,
        pending=channel_counts.pending,
        unsettled=channel_counts.unsettled,
        lag=sum(max(0, end - _next_offset(positions, partition)) for partition, end in ends.items()),
        confirmed_at=min(confirmed) if len(confirmed) == info.partitions else None,
    )


def stopped_partitions(settings: Settings, channel_name: str) -> list[UnreadableSnapshot]:
    """The partitions that are stopped, each with the unreadable record at the channel's position.

    Reads the first record at each position, so it does not need the process that distributes. Takes some seconds.
    Raises: as `status`.
    """
    settings = settings.for_channel(channel_name)
    engine = open_database(settings.channel(channel_name).database)
    name = settings.topic(CUSTOMERS)
    try:
        info = topic_ids(settings, [name])[name]
        with consistent_view(engine) as connection:
            positions = _positions(connection, name, info)
            in_force = settings_in_force(settings, connection, channel_name)
    finally:
        engine.dispose()
    if not positions:
        return []
    ends = last_stable_offsets(settings, name, info.partitions)
    writers, channel_filter = writer_schemas(settings), ChannelFilter.of(in_force, channel_name)
    unreadable: list[UnreadableSnapshot] = []
    group = settings.channel_group(channel_name)
    with AssignedReader(settings, name, group, {}) as reader:
        for partition, end in ends.items():
            offset = _next_offset(positions, partition)
            if offset < end:
                reader.assign({partition: offset})
                first = reader.read(BatchLimits(records_max=1), _FIRST_RECORD_SECONDS)
                unreadable.extend(decode_snapshots(first, writers, channel_filter, "sqlite").unreadable)
    return unreadable


def _counts(connection: Connection) -> ChannelCounts:
    of_customers = connection.execute(
        select(func.count(), func.count().filter(customers.c.account_number.is_(None))).select_from(customers)
    ).one()
    unsettled = connection.scalar(select(func.count()).select_from(outbox).where(outbox.c.settled_at.is_(None)))
    return ChannelCounts(customers=of_customers[0], pending=of_customers[1], unsettled=unsettled or 0)


def _positions(connection: Connection, name: str, info: TopicInfo) -> dict[int, Position]:
    return read_positions(connection, TopicRead(name=name, topic_id=info.topic_id, partitions=info.partitions))


def _next_offset(positions: dict[int, Position], partition: int) -> int:
    return positions[partition].next_offset if partition in positions else 0
