"""The edge to Kafka: configurations with the settings that promises rest on, topics, offsets.

Nothing here connects before it is called. Refusals that waiting cannot mend (a wrong password, a missing topic or
privilege) are `KafkaRefused`, with what to do; everything that may pass by itself stays a `KafkaException` for which
`is_transient` is true.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from structlog import get_logger

from tenten.runtime.errors import KafkaRefused, SettingsError, TopicChanged
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ALL, Topic

log = get_logger(__name__)

REQUEST_SECONDS: Final = 10.0
"""How long one question to the brokers may take before it counts as failed."""

_LISTEN_SECONDS: Final = 0.02
"""While an answer is waited for: how often to hear whether there will be none."""

_WELL_SECONDS: Final = 60.0
"""A line that nobody has complained about for so long was well in between; a client complains twice a minute."""

_CLIENT: Final[dict[str, Any]] = {
    # A small request goes out at once; large ones are put together by the client itself.
    "socket.nagle.disable": True,
}

_CONSUMER: Final[dict[str, Any]] = {
    # Aborted transactions never happened; only what headquarters committed is read.
    "isolation.level": "read_committed",
    # Offsets are committed with the outputs or kept beside the rows, never in the background.
    "enable.auto.commit": False,
    # Latency: ask again at once when the local queue has room, and do not let the broker collect; on a quiet topic
    # it is asked twice a second.
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 500,
    "fetch.min.bytes": 1,
    # Throughput within bounded memory: 64 MiB of fetched records at most.
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 65_536,
    "fetch.message.max.bytes": 4_194_304,
}

_PRODUCER: Final[dict[str, Any]] = {
    # No duplicate and no reordering by a retry within this producer's life.
    "enable.idempotence": True,
    "acks": "all",
    # The same key goes to the same partition as with the Java clients, whatever tool writes it.
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    # Records gather for so long, or until a flush or a commit sends them at once: few and large requests cost the
    # broker a fraction of many small ones.
    "linger.ms": 5,
    # Bounded memory: what does not fit waits in the caller.
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 131_072,
    # How large a record may be is for its topic to say, after compression; and what another writer could compress well
    # must fit among the dead letters. Must stay below the queue's size: what can never enter it would wait for ever.
    "message.max.bytes": 67_108_864,
}

_PROMISED: Final = frozenset(
    {
        "isolation.level",
        "enable.auto.commit",
        "enable.idempotence",
        "partitioner",
        "acks",
        "group.id",
        "transactional.id",
    }
)
"""Properties that nobody may set otherwise: a promise rests on each."""

_REFUSALS: Final[Mapping[int, str]] = {
    KafkaError._AUTHENTICATION: "Kafka refuses the user or password: check sasl.username and sasl.password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "Kafka refuses the user or password: check sasl.username and sasl.password",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "Kafka does not allow this user the topic: grant it the privilege",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "Kafka does not allow this user the consumer group: grant it the privilege",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "Kafka does not allow this user this operation: grant it the privilege",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "Kafka does not allow this user the transactional id: grant it",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "A topic does not exist: run `tenten topics apply`",
    KafkaError._UNKNOWN_TOPIC: "A topic does not exist: run `tenten topics apply`",
    KafkaError.UNKNOWN_TOPIC_ID: "A topic was deleted: run `tenten topics apply`, then start again",
    KafkaError.TOPIC_EXCEPTION: "A topic name is not allowed by Kafka: check the prefix in tenten.toml",
    KafkaError.MSG_SIZE_TOO_LARGE: "A record is larger than its topic takes: raise max.message.bytes of the topic, or "
    "message.max.bytes under [kafka] in tenten.toml",
    KafkaError._INVALID_ARG: "Kafka's client refuses a property of [kafka] in tenten.toml",
}


def consumer_configuration(settings: Settings, **own: Any) -> dict[str, Any]:
    """The configuration of a consumer: ours, then `own`, then the user's, which may not break a promise.

    Raises: `SettingsError` when no broker is named or the user's properties would break a promise.
    """
    return _configuration(settings, _CONSUMER, own)


def producer_configuration(settings: Settings, **own: Any) -> dict[str, Any]:
    """The configuration of an idempotent producer: ours, then `own`, then the user's. Raises: `SettingsError`."""
    return _configuration(settings, _PRODUCER, own)


def _configuration(settings: Settings, ours: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    if not settings.kafka.get("bootstrap.servers"):
        raise SettingsError(
            'no Kafka broker is named: set KAFKA_BOOTSTRAP_SERVERS or [kafka] "bootstrap.servers" in tenten.toml, '
            "or run `tenten local start`"
        )
    broken = sorted(_PROMISED & settings.kafka.keys())
    if broken:
        raise SettingsError(
            f"[kafka] {', '.join(broken)}: tenten's promises rest on its own value; remove it from tenten.toml"
        )
    return {"log_level": 4, "logger": _quiet, "error_cb": _report, **_CLIENT, **ours, **own, **settings.kafka}


class _Quiet:
    """librdkafka's own log lines say once a second what `error_cb` has said: dropped."""

    def log(self, *_: Any, **__: Any) -> None: ...


_quiet: Final = _Quiet()
_heard_at: dict[int, float] = {}


def _report(error: KafkaError) -> None:
    """Say what is wrong with the line to Kafka: each kind once, and again only when it has been well for a minute."""
    code, now = error.code(), time.monotonic()
    if now - _heard_at.get(code, -math.inf) > _WELL_SECONDS:
        log.warning("kafka_trouble", code=error.name(), advice=_REFUSALS.get(code, "waiting for it to come back"))
    _heard_at[code] = now


class Hearing:
    """What a client is told on the side, its `error_cb`; the client calls it while it is polled. Goes to the log, too.

    A wrong password shows there only: to whoever asks it looks like a broker that does not answer.
    """

    def __init__(self, report: Callable[[KafkaError], None] = _report) -> None:
        self._report = report
        self.last: KafkaError | None = None
        """The newest error that says why."""

    def __call__(self, error: KafkaError) -> None:
        self._report(error)
        # That all brokers are down is only the sum of the errors before it.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error

    def check(self) -> None:
        """Raises: `KafkaRefused` when the last that was heard is a refusal."""
        refusal = None if self.last is None else refused(KafkaException(self.last))
        if refusal is not None:
            raise refusal


def refused(error: KafkaException, about: str = "") -> KafkaRefused | None:
    """The refusal behind a Kafka error, or None when waiting may mend it. `about` is what was asked for."""
    kafka_error = error.args[0] if error.args else None
    if not isinstance(kafka_error, KafkaError) or kafka_error.code() not in _REFUSALS:
        return None
    said = ": ".join(filter(None, (about, kafka_error.str())))
    return KafkaRefused(f"{_REFUSALS[kafka_error.code()]} ({said})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """What a topic is now: its id changes when it is deleted and made again."""

    topic_id: str
    partitions: int


def administration(settings: Settings) -> AdminClient:
    """A client for questions about topics and offsets, whom a broker has let in.

    Raises: `SettingsError`; `KafkaRefused` as soon as that is known; `KafkaException` when no broker answers.
    """
    # What went wrong is raised, so it need not be logged.
    hearing = Hearing(report=lambda _: None)
    configuration: dict[str, Any] = {**_configuration(settings, {}, {}), "error_cb": hearing}
    try:
        admin = AdminClient(configuration)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._INVALID_ARG:
            raise
        raise SettingsError(f"[kafka] in tenten.toml: {error.args[0].str()}") from error
    answer = admin.describe_cluster(request_timeout=REQUEST_SECONDS)
    while not wait([answer], _LISTEN_SECONDS).done:
        admin.poll(0)
        hearing.check()
    try:
        ask(answer.result)
    except KafkaException as error:
        # Why there is no answer is told on the side.
        raise (error if hearing.last is None else KafkaException(hearing.last)) from error
    return admin


def topic_ids(settings: Settings, names: Iterable[str]) -> dict[str, TopicInfo]:
    """What each of these topics (names with prefix) is now.

    Raises: `KafkaRefused` for one that does not exist or may not be seen; `KafkaException` when no broker answers.
    """
    admin = administration(settings)  # kept while its futures are waited for
    found = {}
    for name, future in admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_SECONDS).items():
        topic = ask(future.result, name)
        found[name] = TopicInfo(topic_id=str(topic.topic_id), partitions=len(topic.partitions))
    return found


def last_stable_offsets(settings: Settings, topic: str, partitions: int) -> dict[int, int]:
    """The last stable offset of each partition of a topic (name with prefix): the end for readers of committed
    records.
    """
    return _offsets(settings, topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]  # its stubs lack it


def earliest_offsets(settings: Settings, topic: str, partitions: int) -> dict[int, int]:
    """The first offset of each partition that still can be read."""
    return _offsets(settings, topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # as above


def _offsets(settings: Settings, topic: str, partitions: int, which: OffsetSpec) -> dict[int, int]:
    admin = administration(settings)
    futures = admin.list_offsets(
        {TopicPartition(topic, partition): which for partition in range(partitions)},
        isolation_level=IsolationLevel.READ_COMMITTED,
        request_timeout=REQUEST_SECONDS,
    )
    return {asked.partition: ask(future.result, topic).offset for asked, future in futures.items()}


def ask(question: Callable[[], Any], about: str = "") -> Any:
    """The answer to a question to Kafka. Raises: `KafkaRefused` in place of an error that waiting cannot mend."""
    try:
        return question()
    except KafkaException as error:
        refusal = refused(error, about)
        if refusal is not None:
            raise refusal from error
        raise


Headers = list[tuple[str, str | bytes | None]]
"""Record headers, as the client takes them."""


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """The headers of a delivered record, in order; a name may come more than once."""
    headers: Any = message.headers() or []
    return list(headers)


def place(message: Message) -> tuple[int, int]:
    """Partition and offset of a delivered record."""
    partition, offset = message.partition(), message.offset()
    # The client knows both of whatever it delivers.
    assert partition is not None
    assert offset is not None
    return partition, offset


def read_on(consumer: Consumer, next_offsets: MutableMapping[int, int], ends: Mapping[int, int]) -> Iterator[Message]:
    """Every record from `next_offsets` to before `ends`, by partition. Moves `next_offsets` along.

    What is no record (markers, holes) is passed too. The consumer is assigned there and has `enable.partition.eof`.
    Raises: `KafkaException` when no broker answers, or a record is gone.
    """
    while any(next_offsets[partition] < end for partition, end in ends.items()):
        message = consumer.poll(REQUEST_SECONDS)
        if message is None:
            raise KafkaException(f"no answer within {REQUEST_SECONDS} s")
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        partition, offset = place(message)
        if error is None and offset < ends[partition]:
            yield message
        next_offsets[partition] = offset if error is not None else offset + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicChange:
    """One thing that `apply_topics` did, would do, or refuses to do."""

    topic: str
    action: Literal["create", "configure", "keep", "refuse"]
    detail: str


def apply_topics(settings: Settings, dry_run: bool = False) -> list[TopicChange]:
    """Create the topics that are missing, correct the settings of the others, and refuse to add partitions to a keyed
    one.

    Called twice it changes nothing the second time. With `dry_run` it only says what it would do.
    Raises: `KafkaRefused`; `KafkaException` when no broker answers.
    """
    admin = administration(settings)
    existing = _partitions(admin, [settings.topic(topic) for topic in ALL])
    missing = [topic for topic in ALL if settings.topic(topic) not in existing]
    if missing and not dry_run:
        _create(admin, {settings.topic(topic): topic for topic in missing}, settings)
    changes = []
    for topic in ALL:
        name, partitions = settings.topic(topic), settings.partitions_of(topic)
        if topic in missing:
            changes.append(TopicChange(topic=name, action="create", detail=f"{partitions} partitions"))
        elif topic.keyed and existing[name] != partitions:
            detail = (
                f"has {existing[name]} partitions instead of {partitions}: with another count the same key would go "
                f"to another partition. Keep this count (`partitions = {existing[name]}` in tenten.toml), or use "
                "another prefix"
            )
            changes.append(TopicChange(topic=name, action="refuse", detail=detail))
        else:
            changes.append(_configure(admin, name, topic, dry_run))
    return changes


def _partitions(admin: AdminClient, names: Sequence[str]) -> dict[str, int]:
    """The number of partitions of those of the topics that exist, with a leader for each.

    Only these topics are asked for: a cluster may have many others.
    Raises: `KafkaRefused` for a topic that may not be seen; `KafkaException`.
    """
    described = admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_SECONDS)
    found = {}
    for name, future in described.items():
        try:
            topic = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise refused(error, name) or error from error
            continue
        if topic.partitions and all(partition.leader is not None for partition in topic.partitions):
            found[name] = len(topic.partitions)
    return found


def _create(admin: AdminClient, topics: Mapping[str, Topic], settings: Settings) -> None:
    """Create the topics (by name with prefix), and wait until the broker knows each with the leaders of its partitions.

    Raises: `KafkaRefused`; `KafkaException`, also when that takes too long.
    """
    new = [
        NewTopic(name, num_partitions=settings.partitions_of(topic), config=dict(topic.configuration))
        for name, topic in topics.items()
    ]
    for name, future in admin.create_topics(new, request_timeout=REQUEST_SECONDS).items():
        try:
            ask(future.result, name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    give_up_at = time.monotonic() + REQUEST_SECONDS
    while missing := sorted(topics.keys() - _partitions(admin, list(topics)).keys()):
        if time.monotonic() > give_up_at:
            raise KafkaException(f"no leaders within {REQUEST_SECONDS} s for {', '.join(missing)}")
        time.sleep(0.02)


def _configure(admin: AdminClient, name: str, topic: Topic, dry_run: bool) -> TopicChange:
    resource = ConfigResource(ResourceType.TOPIC, name)
    now = ask(admin.describe_configs([resource], request_timeout=REQUEST_SECONDS)[resource].result, name)
    wrong = {key: value for key, value in topic.configuration.items() if now[key].value != value}
    if not wrong:
        return TopicChange(topic=name, action="keep", detail="as declared")
    if not dry_run:
        entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in wrong.items()]
        change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        ask(admin.incremental_alter_configs([change], request_timeout=REQUEST_SECONDS)[change].result, name)
    return TopicChange(
        topic=name, action="configure", detail=", ".join(f"{key}={value}" for key, value in wrong.items())
    )


def check_partitions(topic: str, expected: int, found: int) -> None:
    """Stop where keys would go astray. Raises: `TopicChanged` with advice when the counts differ."""
    if expected != found:
        raise TopicChanged(
            f"topic {topic} has {found} partitions where this database knows {expected}: "
            "keys now go to other partitions; make a new topic under another prefix and resync the channels"
        )
