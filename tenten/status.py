"""The status of topics, headquarters and channels, and the lag of each consumer group. Changes nothing.

A part that cannot be read has the reason in `problem`; the others are complete.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from threading import Event
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Connection, Select, func, select

from tenten.consumers.channel.distribution.surplus import surplus_problem
from tenten.consumers.channel.status import counts, status
from tenten.failure_messages import explain
from tenten.headquarters_views.transactions import TransactionsStatus, transactions_status
from tenten.kafka.client_config import REQUEST_SECONDS, consumer_configuration
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.topics_admin import admin_client, topic_ids
from tenten.runtime.error_codes import is_transient
from tenten.runtime.settings import Settings
from tenten.schemas.tables import channel, headquarters
from tenten.schemas.topics import ALL, Topic
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import Which, check_version
from tenten.workers import AT_HEADQUARTERS, HEADQUARTERS, IN_CHANNEL, SETTLEMENT, TRANSACTIONS, Worker

_REJECTED: Final = "rejected"
_ASK_AGAIN_SECONDS: Final = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatus:
    """A topic of the catalogue, as Kafka has it."""

    topic: str
    partitions: int | None = None
    offsets: int | None = None
    """Last minus first offset: an upper bound of the number of records, because a compacted topic has gaps."""
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberSequenceStatus:
    """The account numbers of a legal entity: the next, and how many are left."""

    format: str
    next: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadquartersStatus:
    """Counts of headquarters' database, and its lag in records."""

    customers: int | None = None
    events: int | None = None
    rejected: int | None = None
    lag: int | None = None
    number_sequences: dict[str, NumberSequenceStatus] = field(default_factory=dict)
    transactions: TransactionsStatus | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatus:
    """Counts of a channel's database, and its lag in records."""

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
    """Topics, headquarters and channels."""

    topics: list[TopicStatus]
    headquarters: HeadquartersStatus
    channels: dict[str, ChannelStatus]

    @property
    def healthy(self) -> bool:
        """True if every part could be read, and no transaction waits for too long."""
        problems = [self.headquarters.problem, *(topic.problem for topic in self.topics)]
        if self.headquarters.transactions is not None:
            problems.append(self.headquarters.transactions.problem)
        problems += [status.problem for status in self.channels.values()]
        return problems == [None] * len(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """How far a consumer group is behind the end of a partition."""

    group: str
    topic: str
    partition: int
    committed: int | None
    """None: the group has never committed here, and starts at the first record."""
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


def _or_problem(read: Callable[[], T], otherwise: Callable[[str], T]) -> T:
    """The result, or `otherwise` with the problem. Raises: an error that cannot be explained."""
    try:
        return read()
    except Exception as error:
        problem = explain(error)
        if problem is None:
            raise
        return otherwise(problem)


def _topic_status(settings: Settings, topic: Topic) -> TopicStatus:
    name = settings.topic(topic)

    def read() -> TopicStatus:
        partitions = topic_ids(settings, [name])[name].partitions
        ends = last_stable_offsets(settings, name, partitions)
        starts = earliest_offsets(settings, name, partitions)
        return TopicStatus(topic=name, partitions=partitions, offsets=sum(ends.values()) - sum(starts.values()))

    return _or_problem(read, lambda problem: TopicStatus(topic=name, problem=problem))


def headquarters_status(settings: Settings) -> HeadquartersStatus:
    """The status of headquarters. Raises: `SettingsError`, `DatabaseRefused`, `KafkaRefused`, `KafkaException`."""
    customers, log = headquarters.customers, headquarters.synchronization_log
    with _opened(settings.headquarters_database(), "headquarters") as connection:
        known_customers = _count(connection, select(func.count()).where(customers.c.erased_at.is_(None)))
        events = _count(connection, select(func.count()).select_from(log))
        rejected = _count(connection, select(func.count()).where(log.c.outcome == _REJECTED))
        sequences = {
            row.legal_entity: NumberSequenceStatus(
                format=row.format, next=row.next, left=10 ** row.format.count("#") - row.next
            )
            for row in connection.execute(select(headquarters.number_sequences))
        }
        transactions = transactions_status(connection, settings.headquarters.waiting_seconds_max)
    return HeadquartersStatus(
        customers=known_customers,
        events=events,
        rejected=rejected,
        lag=sum(lag.lag for lag in _worker_lag(settings, HEADQUARTERS)),
        number_sequences=sequences,
        transactions=replace(transactions, lag=sum(lag.lag for lag in _worker_lag(settings, TRANSACTIONS))),
    )


def channel_status(settings: Settings, name: str) -> ChannelStatus:
    """The status of a channel; its lag is None while no broker answers. Raises: `SettingsError`, `DatabaseRefused`."""
    with_lag = _or_problem(partial(status, settings, name), lambda _: None)
    # A store without a connection has its database; its problems are raised here.
    counted = with_lag or counts(settings, name)
    outbox = channel.outbox
    unsettled = select(func.count()).where(outbox.c.settled_at.is_(None))
    is_queued = outbox.c.sequence.in_(select(channel.outbox_queue.c.sequence))
    with _opened(settings.channel(name).database, "channel") as connection:
        return ChannelStatus(
            customers=counted.customers,
            pending=counted.pending,
            unsettled=counted.unsettled,
            unsent=_count(connection, unsettled.where(is_queued, outbox.c.outcome.is_(None))),
            rejected=_count(connection, unsettled.where(outbox.c.outcome == _REJECTED)),
            oldest_unsettled_at=connection.scalar(
                select(func.min(outbox.c.created_at)).where(outbox.c.settled_at.is_(None))
            ),
            confirmed_at=None if with_lag is None else with_lag.confirmed_at,
            lag=None if with_lag is None else with_lag.lag,
            problem=surplus_problem(connection, name),
        )


def group_lags(settings: Settings) -> list[GroupLag]:
    """The lag of headquarters' groups and of every channel's. Raises: `KafkaRefused`, `KafkaException`."""
    lags = [lag for worker in AT_HEADQUARTERS for lag in _worker_lag(settings, worker)]
    for name in settings.channels:
        for worker in IN_CHANNEL:
            # All channels share the topics of replies, and each reads its own partitions only.
            lags += [
                lag
                for lag in _worker_lag(settings, worker, name)
                if worker is not SETTLEMENT or lag.committed is not None
            ]
    return lags


def _worker_lag(settings: Settings, worker: Worker, channel_name: str = "") -> list[GroupLag]:
    """The lag of a worker's group in every topic that it reads."""
    group = worker.group_of(channel_name)
    return [] if group is None else [lag for topic in worker.reads for lag in _group_lag(settings, group, topic)]


def _group_lag(settings: Settings, group: str, topic: Topic) -> list[GroupLag]:
    """The lag in every partition of a topic, from the first record where nothing was committed."""
    name = settings.topic(topic)
    partitions = topic_ids(settings, [name])[name].partitions
    ends = last_stable_offsets(settings, name, partitions)
    starts = earliest_offsets(settings, name, partitions)
    committed = _committed(settings, settings.group(group), name, partitions)
    return [
        GroupLag(
            group=settings.group(group),
            topic=name,
            partition=partition,
            committed=committed.get(partition),
            end=end,
            lag=max(0, end - committed.get(partition, starts[partition])),
        )
        for partition, end in ends.items()
    ]


def _committed(settings: Settings, group: str, topic: str, partitions: int) -> dict[int, int]:
    """The committed offsets of a group by partition. Does not join the group.

    Uses a consumer because the administration client crashes the interpreter (confluent-kafka 2.16) while a new cluster
    has no coordinator for the group yet.
    """
    consumer = Consumer(consumer_configuration(settings, **{"group.id": group}))
    every = [TopicPartition(topic, partition) for partition in range(partitions)]
    try:
        committed: list[TopicPartition] = _retrying(
            lambda: call_kafka(lambda: consumer.committed(every, timeout=REQUEST_SECONDS))
        )
    finally:
        consumer.close()
    for position in committed:
        if position.error is not None:
            raise KafkaException(position.error)
    return {position.partition: position.offset for position in committed if position.offset >= 0}


def _retrying(question: Callable[[], T]) -> T:
    """The answer; retried for some seconds, because a new cluster creates its coordinators when first needed."""
    deadline = time.monotonic() + REQUEST_SECONDS
    while True:
        try:
            return question()
        except KafkaException as error:
            if not is_transient(error) or time.monotonic() > deadline:
                raise
        time.sleep(_ASK_AGAIN_SECONDS)


def wait_for_assignment(settings: Settings, workers: Sequence[Worker], stop: Event) -> bool:
    """Wait until every partition that these workers read is assigned to a member of their groups; False if stopped.

    Raises: `KafkaRefused` if the groups may not be described.
    """
    admin = admin_client(settings)
    topics = {settings.topic(topic) for worker in workers for topic in worker.reads}
    partitions = {
        (name, partition)
        for name, topic in topic_ids(settings, topics).items()
        for partition in range(topic.partitions)
    }
    groups = [settings.group(group) for worker in workers if (group := worker.group_of()) is not None]
    while not stop.is_set():
        if partitions <= _assigned(admin, groups):
            return True
        stop.wait(_ASK_AGAIN_SECONDS)
    return False


def _assigned(admin: AdminClient, groups: Sequence[str]) -> set[tuple[str, int]]:
    """The partitions that are assigned to members of these groups; none while a group cannot be described yet."""
    assigned: set[tuple[str, int]] = set()
    for future in admin.describe_consumer_groups([*groups], request_timeout=REQUEST_SECONDS).values():
        try:
            description = call_kafka(future.result)
        except KafkaException as error:
            if not is_transient(error):
                raise
            continue
        for member in description.members:
            assigned.update((place.topic, place.partition) for place in member.assignment.topic_partitions)
    return assigned


@contextmanager
def _opened(address: str, which: Which) -> Generator[Connection]:
    """A read-only transaction. Raises: `DatabaseRefused`."""
    engine = open_database(address)
    try:
        check_version(engine, which)
        with consistent_view(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def _count(connection: Connection, query: Select[int]) -> int:
    return connection.scalars(query).one()
