"""Where a channel stands: how many customers, how many of them pending, and how far it is behind headquarters."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, select

from tenten.consumers.channel.distribution.snapshots import Filter, Unread, take_in
from tenten.consumers.channel.positions import Position, TopicRead, read_positions
from tenten.kafka.assigned_reader import AssignedReader
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.schema_registry import writer_schemas
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.settings import Settings
from tenten.schemas.tables.channel import customers, outbox
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import check_version

_FIRST_RECORD_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStanding:
    """How a channel stands."""

    customers: int
    pending: int
    """Without an account number."""
    unsettled: int
    """Events that headquarters has not settled."""
    lag: int
    """Records of `customers` that are committed and not applied yet, counted in offsets; 0 at the end."""
    confirmed_at: datetime | None
    """When every partition had been read to its end; None before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCounts:
    """What the channel's database alone can tell."""

    customers: int
    pending: int
    unsettled: int


def counts(settings: Settings, channel_name: str) -> ChannelCounts:
    """How many customers and open events a channel has. Asks its database only."""
    engine = open_database(settings.channel(channel_name).database)
    try:
        check_version(engine, "channel")
        with consistent_view(engine) as connection:
            return _counts(connection)
    finally:
        engine.dispose()


def status(settings: Settings, channel_name: str) -> ChannelStanding:
    """How a channel stands, by one look at its database and then one at Kafka.

    Raises: `KafkaRefused`; `KafkaException` when no broker answers; `DatabaseRefused`; `SettingsError`.
    """
    engine = open_database(settings.channel(channel_name).database)
    name = settings.topic(CUSTOMERS)
    try:
        check_version(engine, "channel")
        info = topic_ids(settings, [name])[name]
        with consistent_view(engine) as connection:
            found = _counts(connection)
            positions = _positions(connection, name, info)
    finally:
        engine.dispose()
    ends = last_stable_offsets(settings, name, info.partitions)
    confirmed = [position.confirmed_at for position in positions.values()]
    known = [at for at in confirmed if at is not None]
    return ChannelStanding(
        customers=found.customers,
        pending=found.pending,
        unsettled=found.unsettled,
        lag=sum(max(0, end - _next_offset(positions, partition)) for partition, end in ends.items()),
        confirmed_at=min(known) if len(known) == info.partitions else None,
    )


def stopped(settings: Settings, channel_name: str) -> list[Unread]:
    """The partitions that wait because the record at the channel's position cannot be read, each with that record.

    Looks at the first record behind each position, so it needs no word from the process that distributes, and
    takes some seconds. Raises: as `status`.
    """
    engine = open_database(settings.channel(channel_name).database)
    name = settings.topic(CUSTOMERS)
    try:
        info = topic_ids(settings, [name])[name]
        with consistent_view(engine) as connection:
            positions = _positions(connection, name, info)
    finally:
        engine.dispose()
    ends = last_stable_offsets(settings, name, info.partitions)
    writers, within = writer_schemas(settings), Filter.of(settings.channel(channel_name))
    waiting: list[Unread] = []
    group = settings.group(f"channel.{channel_name}")
    with AssignedReader(settings, name, group, {}) as reader:
        for partition, end in ends.items():
            at = _next_offset(positions, partition)
            if at < end:
                reader.assign({partition: at})
                first = reader.read(BatchLimits(records_max=1), _FIRST_RECORD_SECONDS)
                waiting.extend(take_in(first, writers, within, "sqlite").unread)
    return waiting


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
