"""How everything stands: topics, headquarters, channels, and how far each consumer group is behind.

Only looks. What cannot be looked at says why, in `problem`, and the rest is shown all the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions
from sqlalchemy import Connection, Engine, Select, func, select

from commerce.database import Which, check_version, consistent_view, open_database
from commerce.kafka import (
    REQUEST_SECONDS,
    TopicInfo,
    administration,
    ask,
    earliest_offsets,
    last_stable_offsets,
    topic_ids,
)
from commerce.settings import Settings
from operations.failures import explain
from schemas import channel as channel_tables
from schemas import headquarters as headquarters_tables
from schemas.topics import ALL, ASYNC_CUSTOMERS, CUSTOMERS, Topic

HEADQUARTERS_GROUP: Final = "headquarters"
_REJECTED: Final = "rejected"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatus:
    """A topic of the catalogue, as Kafka has it."""

    topic: str
    partitions: int | None = None
    offsets: int | None = None
    """Between first and last offset; more than there are records, since a compacted topic has holes."""
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberSequenceStatus:
    """How far the account numbers of a legal entity have got."""

    format: str
    next: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadquartersStatus:
    """What headquarters' database holds, and how many records it is behind."""

    customers: int | None = None
    events: int | None = None
    rejected: int | None = None
    lag: int | None = None
    number_sequences: dict[str, NumberSequenceStatus] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatus:
    """What a channel's database holds, and how many records it is behind headquarters."""

    customers: int | None = None
    pending: int | None = None
    """Customers without an account number."""
    unsettled: int | None = None
    """Changes of this channel that headquarters has not settled: unsent, sent or rejected."""
    unsent: int | None = None
    rejected: int | None = None
    oldest_unsettled_at: datetime | None = None
    confirmed_at: datetime | None = None
    """When the channel was last known to be at the end of every partition."""
    lag: int | None = None
    """None while no broker answers."""
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeStatus:
    """Everything at once."""

    topics: list[TopicStatus]
    headquarters: HeadquartersStatus
    channels: dict[str, ChannelStatus]

    @property
    def healthy(self) -> bool:
        """Whether everything could be looked at."""
        problems = [self.headquarters.problem, *(topic.problem for topic in self.topics)]
        problems += [channel.problem for channel in self.channels.values()]
        return problems == [None] * len(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """How far a consumer group is behind the end of a partition."""

    group: str
    topic: str
    partition: int
    committed: int | None
    """None: the group has never committed here, and will begin at the first record."""
    end: int
    lag: int


def whole_status(settings: Settings) -> WholeStatus:
    """Topics, headquarters and channels. Blocks for a few seconds for each server that does not answer."""
    return WholeStatus(
        topics=[_topic_status(settings, topic) for topic in ALL],
        headquarters=_or_problem(partial(headquarters_status, settings), _headquarters_problem),
        channels={
            name: _or_problem(partial(channel_status, settings, name), _channel_problem) for name in settings.channels
        },
    )


def _headquarters_problem(problem: str) -> HeadquartersStatus:
    return HeadquartersStatus(problem=problem)


def _channel_problem(problem: str) -> ChannelStatus:
    return ChannelStatus(problem=problem)


def _or_problem(look: Callable[[], T], otherwise: Callable[[str], T]) -> T:
    """What is seen, or why nothing is."""
    try:
        return look()
    except Exception as error:
        problem = explain(error)
        if problem is None:
            raise
        return otherwise(problem)


def _topic_status(settings: Settings, topic: Topic) -> TopicStatus:
    name = settings.topic(topic)

    def look() -> TopicStatus:
        partitions = topic_ids(settings, [name])[name].partitions
        ends = last_stable_offsets(settings, name, partitions)
        starts = earliest_offsets(settings, name, partitions)
        return TopicStatus(topic=name, partitions=partitions, offsets=sum(ends.values()) - sum(starts.values()))

    return _or_problem(look, lambda problem: TopicStatus(topic=name, problem=problem))


def headquarters_status(settings: Settings) -> HeadquartersStatus:
    """How headquarters stands. Raises: `SettingsError`, `DatabaseRefused`, `KafkaRefused`, `KafkaException`."""
    tables = headquarters_tables
    engine = _open(settings.headquarters_database(), "headquarters")
    try:
        with consistent_view(engine) as connection:
            customers = _count(connection, select(func.count()).where(tables.customers.c.erased_at.is_(None)))
            log = tables.synchronization_log
            events = _count(connection, select(func.count()).select_from(log))
            rejected = _count(connection, select(func.count()).where(log.c.outcome == _REJECTED))
            sequences = {
                row.legal_entity: NumberSequenceStatus(
                    format=row.format, next=row.next, left=10 ** row.format.count("#") - row.next
                )
                for row in connection.execute(select(tables.number_sequences))
            }
    finally:
        engine.dispose()
    return HeadquartersStatus(
        customers=customers,
        events=events,
        rejected=rejected,
        lag=sum(one.lag for one in _group_lag(settings, HEADQUARTERS_GROUP, ASYNC_CUSTOMERS)),
        number_sequences=sequences,
    )


def channel_status(settings: Settings, name: str) -> ChannelStatus:
    """How a channel stands; its lag is None while no broker answers. Raises: `SettingsError`, `DatabaseRefused`."""
    customers, outbox, positions = channel_tables.customers, channel_tables.outbox, channel_tables.positions
    unsettled = select(func.count()).where(outbox.c.settled_at.is_(None))
    topic = _or_problem(partial(_read_topic, settings), lambda _: None)
    engine = _open(settings.channel(name).database, "channel")
    try:
        with consistent_view(engine) as connection:
            read = {
                row.partition: row.next_offset
                for row in connection.execute(select(positions).where(positions.c.topic == settings.topic(CUSTOMERS)))
                if topic is not None and row.topic_id == topic.info.topic_id
            }
            return ChannelStatus(
                customers=_count(connection, select(func.count()).select_from(customers)),
                pending=_count(connection, select(func.count()).where(customers.c.account_number.is_(None))),
                unsettled=_count(connection, unsettled),
                unsent=_count(connection, unsettled.where(outbox.c.sent_at.is_(None), outbox.c.outcome.is_(None))),
                rejected=_count(connection, unsettled.where(outbox.c.outcome == _REJECTED)),
                oldest_unsettled_at=connection.scalar(
                    select(func.min(outbox.c.created_at)).where(outbox.c.settled_at.is_(None))
                ),
                confirmed_at=connection.scalar(
                    select(func.min(positions.c.confirmed_at)).where(positions.c.topic == settings.topic(CUSTOMERS))
                ),
                lag=None if topic is None else topic.lag_behind(read),
            )
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadTopic:
    """The topic `customers` as it is now."""

    info: TopicInfo
    starts: dict[int, int]
    ends: dict[int, int]

    def lag_behind(self, read: dict[int, int]) -> int:
        """How many offsets lie between these positions and the ends; a partition never read begins at its start."""
        return sum(
            max(0, end - max(self.starts[partition], read.get(partition, 0))) for partition, end in self.ends.items()
        )


def _read_topic(settings: Settings) -> _ReadTopic | None:
    name = settings.topic(CUSTOMERS)
    info = topic_ids(settings, [name])[name]
    return _ReadTopic(
        info=info,
        starts=earliest_offsets(settings, name, info.partitions),
        ends=last_stable_offsets(settings, name, info.partitions),
    )


def group_lags(settings: Settings) -> list[GroupLag]:
    """Headquarters' group and that of every channel. Raises: `KafkaRefused`, `KafkaException`."""
    found = _group_lag(settings, HEADQUARTERS_GROUP, ASYNC_CUSTOMERS)
    for name in settings.channels:
        found += _group_lag(settings, f"channel.{name}", CUSTOMERS)
    return found


def _group_lag(settings: Settings, group: str, topic: Topic) -> list[GroupLag]:
    """The lag in every partition of a topic, and in whatever else the group has committed for."""
    committed = _committed(settings, settings.group(group))
    names = sorted({settings.topic(topic), *(name for name, _ in committed)})
    lags = []
    for name, info in topic_ids(settings, names).items():
        ends = last_stable_offsets(settings, name, info.partitions)
        starts = earliest_offsets(settings, name, info.partitions)
        wanted: Iterable[int] = (
            ends if name == settings.topic(topic) else [p for t, p in sorted(committed) if t == name]
        )
        for partition in wanted:
            at = committed.get((name, partition))
            behind = max(0, ends[partition] - (starts[partition] if at is None else at))
            lags.append(
                GroupLag(
                    group=settings.group(group),
                    topic=name,
                    partition=partition,
                    committed=at,
                    end=ends[partition],
                    lag=behind,
                )
            )
    return lags


def _committed(settings: Settings, group: str) -> dict[tuple[str, int], int]:
    """What a group has committed, by topic and partition."""
    admin = administration(settings)  # kept while its futures are waited for
    futures = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=REQUEST_SECONDS)
    found = ask(futures[group].result).topic_partitions
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def _open(url: str, which: Which) -> Engine:
    engine = open_database(url)
    try:
        check_version(engine, which)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _count(connection: Connection, query: Select[int]) -> int:
    return connection.scalars(query).one()
