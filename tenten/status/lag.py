"""The lag of each consumer group: how many records of a topic it has not processed yet."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from confluent_kafka import KafkaException

from tenten.kafka import offsets
from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.offsets import Partition, earliest_offsets, last_stable_offsets
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.error_codes import is_transient
from tenten.runtime.settings import Settings
from tenten.schemas.topics import Topic
from tenten.status.reading import count_records
from tenten.workers import AT_HEADQUARTERS, IN_CHANNEL, SETTLEMENT, Worker

_ASK_AGAIN_SECONDS: Final = 0.2

COUNTED_OFFSETS_MAX: Final = 100
"""A partition that is at most this many offsets behind is read, because some may be control markers, not records."""

_COUNT_SECONDS: Final = 2.0

T = TypeVar("T")


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
    """In records if it is small; a large one is counted in offsets, of which some are control markers."""


def group_lags(settings: Settings) -> list[GroupLag]:
    """The lag of headquarters' groups and of every channel's. Raises: `KafkaRefused`, `KafkaException`."""
    lags = [lag for worker in AT_HEADQUARTERS for lag in worker_lags(settings, worker)]
    for name in settings.channels:
        for worker in IN_CHANNEL:
            # All channels share the topics of replies, and each reads its own partitions only.
            lags += [
                lag
                for lag in worker_lags(settings, worker, name)
                if worker is not SETTLEMENT or lag.committed is not None
            ]
    return lags


def worker_lags(settings: Settings, worker: Worker, channel_name: str = "") -> list[GroupLag]:
    """The lag of a worker's group in every topic that it reads."""
    group = worker.group_of(channel_name)
    return [] if group is None else [lag for topic in worker.reads for lag in _group_lag(settings, group, topic)]


def _group_lag(settings: Settings, group: str, topic: Topic) -> list[GroupLag]:
    """The lag in every partition of a topic, from the first record where nothing was committed."""
    name = settings.topic(topic)
    partitions = topic_ids(settings, [name])[name].partitions
    ends = last_stable_offsets(settings, name, partitions)
    starts = earliest_offsets(settings, name, partitions)
    committed = committed_offsets(settings, settings.group(group), name, partitions)
    gaps = {(name, partition): (committed.get(partition, starts[partition]), end) for partition, end in ends.items()}
    lags = records_behind(settings, gaps)
    return [
        GroupLag(
            group=settings.group(group),
            topic=name,
            partition=partition,
            committed=committed.get(partition),
            end=end,
            lag=lags[name, partition],
        )
        for partition, end in ends.items()
    ]


def records_behind(settings: Settings, gaps: Mapping[Partition, tuple[int, int]]) -> dict[Partition, int]:
    """The records in each gap between offsets: counted where there are few, otherwise the difference."""
    small = {part: gap for part, gap in gaps.items() if 0 < gap[1] - gap[0] <= COUNTED_OFFSETS_MAX}
    try:
        counted = count_records(settings, small, _COUNT_SECONDS)
    except KafkaException as error:
        if not is_transient(error):
            raise
        counted = {}
    return {part: counted.get(part, max(0, end - start)) for part, (start, end) in gaps.items()}


def committed_offsets(settings: Settings, group: str, topic: str, partitions: int) -> dict[int, int]:
    """The committed offsets of a group by partition; asked again while a new cluster creates its coordinators."""
    return _retrying(lambda: offsets.committed_offsets(settings, group, topic, partitions))


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
