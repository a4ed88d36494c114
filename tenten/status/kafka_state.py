"""What Kafka tells about topics, workers and channels, asked in as few requests as possible."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.offsets import Partition, begin_offsets, end_offsets
from tenten.kafka.topics_admin import TopicInfo, admin_client, ask
from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import KafkaRefused
from tenten.runtime.settings import Settings
from tenten.schemas.topics import CHANNEL_STATUS, CUSTOMERS, Topic
from tenten.status.fleet import receive_heartbeats
from tenten.status.heartbeats import Received
from tenten.status.lag import committed_offsets, records_behind
from tenten.workers import AT_HEADQUARTERS, Worker


@dataclass(slots=True, kw_only=True)
class KafkaState:
    """Filled step by step: a cluster that answers slowly leaves the later fields as they are."""

    answers: bool = False
    """Whether a broker has answered at all."""
    topics: dict[str, TopicInfo | Exception] = field(default_factory=dict)
    """By name with prefix; the error of a topic that does not exist or may not be seen."""
    starts: dict[Partition, int] = field(default_factory=dict)
    ends: dict[Partition, int] = field(default_factory=dict)
    heartbeats: Sequence[Received] | None = None
    """Not checked yet."""
    members: dict[str, int] = field(default_factory=dict)
    """Running processes, by worker of headquarters."""
    lags: dict[str, int] = field(default_factory=dict)
    """Records, by worker of headquarters."""

    def topic(self, name: str) -> TopicInfo | None:
        """The topic of this name (with prefix), if it exists and its offsets are known."""
        info = self.topics.get(name)
        return info if isinstance(info, TopicInfo) and (name, 0) in self.ends else None


def read_kafka(settings: Settings, topics: Sequence[Topic], *, at_headquarters: bool, state: KafkaState) -> None:
    """Fill the state. `at_headquarters`: also what only headquarters' user may ask.

    Raises: `SettingsError`, `KafkaRefused`, `KafkaException`.
    """
    admin = admin_client(settings)
    state.answers = True
    _read_topics(settings, [settings.topic(topic) for topic in topics], state)
    if isinstance(state.topics.get(settings.topic(CHANNEL_STATUS)), TopicInfo):
        state.heartbeats = _readable_heartbeats(settings)
    if at_headquarters:
        _read_workers(settings, admin, state)


def read_workers(settings: Settings) -> KafkaState:
    """The running workers of headquarters, with their lag. Raises: as `read_kafka`."""
    state = KafkaState()
    admin = admin_client(settings)
    state.answers = True
    _read_topics(settings, [settings.topic(topic) for worker in AT_HEADQUARTERS for topic in worker.reads], state)
    _read_workers(settings, admin, state)
    return state


def _read_workers(settings: Settings, admin: AdminClient, state: KafkaState) -> None:
    _read_members(settings, admin, state)
    for worker in AT_HEADQUARTERS:
        _read_lag(settings, worker, state)


def _readable_heartbeats(settings: Settings) -> Sequence[Received] | None:
    """The heartbeats; None for a user who may not read them, such as a store."""
    try:
        return receive_heartbeats(settings)
    except KafkaRefused:
        return None


def _read_topics(settings: Settings, names: Sequence[str], state: KafkaState) -> None:
    answers = ask(
        settings, lambda admin: admin.describe_topics(TopicCollection([*names]), request_timeout=REQUEST_SECONDS)
    )
    for name, future in answers.items():
        try:
            described = call_kafka(future.result, name)
        except (KafkaRefused, KafkaException) as error:
            state.topics[name] = error
        else:
            state.topics[name] = TopicInfo(topic_id=str(described.topic_id), partitions=len(described.partitions))
    parts = [
        (name, partition)
        for name, info in state.topics.items()
        if isinstance(info, TopicInfo)
        for partition in range(info.partitions)
    ]
    state.starts.update(begin_offsets(settings, parts))
    state.ends.update(end_offsets(settings, parts))


def _read_members(settings: Settings, admin: AdminClient, state: KafkaState) -> None:
    """Count the members of each group: the group has heard from each of them within its session timeout.

    By `list_groups`, which asks every broker: the client library looks for the coordinator that the newer
    `describe_consumer_groups` asks, and ends the process (`rd_kafka_enq_once_del_source_return`) when a broker that was
    killed during the question is back. But only the latter knows groups of the protocol `consumer`.
    """
    if settings.kafka.get("group.protocol") == "consumer":
        _describe_members(settings, admin, state)
        return
    for worker in AT_HEADQUARTERS:
        group = settings.group(worker.group_of() or "")
        with warnings.catch_warnings():
            # It is deprecated in favour of the other.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = [listed for listed in admin.list_groups(group, REQUEST_SECONDS) if str(listed.id) == group]
        # Their declared types lack what they can be: a text, and an error.
        errors: list[object] = [listed.error for listed in found]
        if not any(errors):
            state.members[worker.name] = sum(len(listed.members) for listed in found)


def _describe_members(settings: Settings, admin: AdminClient, state: KafkaState) -> None:
    for worker in AT_HEADQUARTERS:
        group = settings.group(worker.group_of() or "")
        future = admin.describe_consumer_groups([group], request_timeout=REQUEST_SECONDS)[group]
        try:
            state.members[worker.name] = len(call_kafka(future.result, group).members)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                state.members[worker.name] = 0
            elif not is_transient(error):
                raise


def _read_lag(settings: Settings, worker: Worker, state: KafkaState) -> None:
    """Sum up the records that a worker of headquarters has not processed."""
    (topic,) = worker.reads
    name = settings.topic(topic)
    info = state.topic(name)
    if info is not None:
        committed = committed_offsets(settings, settings.group(worker.group_of() or ""), name, info.partitions)
        gaps = {
            (name, partition): (committed.get(partition, state.starts[name, partition]), state.ends[name, partition])
            for partition in range(info.partitions)
        }
        state.lags[worker.name] = sum(records_behind(settings, gaps).values())


def customers_lag(settings: Settings, state: KafkaState, positions: Mapping[tuple[str, int], int]) -> int | None:
    """The records of `customers` after these positions, by topic id and partition; None if the ends are not known."""
    name = settings.topic(CUSTOMERS)
    info = state.topic(name)
    if info is None:
        return None
    return sum(
        max(0, state.ends[name, partition] - positions.get((info.topic_id, partition), 0))
        for partition in range(info.partitions)
    )
