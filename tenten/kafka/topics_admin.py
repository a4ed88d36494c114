"""Topics as they exist on the brokers: their ids, their creation, their configuration."""

import atexit
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Literal, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from tenten.kafka.client_config import REQUEST_SECONDS, client_configuration
from tenten.kafka.client_errors import ErrorListener, call_kafka, refusal_of
from tenten.runtime.errors import KafkaRefused, SettingsError, TopicChanged
from tenten.runtime.settings import Settings
from tenten.schemas.privileges import Operation, topic_operations
from tenten.schemas.topics import ALL, CUSTOMERS, Role, Topic

_POLL_SECONDS: Final = 0.02
"""How often asynchronous errors are checked while a request is pending."""

_ANSWER_SECONDS_MAX: Final = REQUEST_SECONDS + 5.0
"""librdkafka may look for the coordinator of a group without end, whatever the timeout of the request: a question that
is not answered in this time is asked again by a new client."""

_CONNECT_SECONDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0)
"""The attempts to connect; between them a refusal is noticed."""

Subject = TypeVar("Subject")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic as it is now; its id changes when the topic is recreated."""

    topic_id: str
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicChange:
    """The result of `apply_topics` for one topic: done, planned or refused."""

    topic: str
    action: Literal["create", "configure", "keep", "refuse"]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Client:
    """A client for administrative questions, and its asynchronous errors."""

    configuration: Mapping[str, str]
    process: int
    """The process that made it: a client does not survive a fork."""
    admin: AdminClient
    errors: ErrorListener


_client_lock: Final = Lock()
_clients: Final[list[_Client]] = []
"""The client of this process; empty before the first question, and after one that was refused."""

_abandoned: Final[list[_Client]] = []

atexit.register(_clients.clear)


def admin_client(settings: Settings) -> AdminClient:
    """The process's authenticated AdminClient. It lives as long as the process: each one opens connections.

    Raises: `SettingsError`; `KafkaRefused` as soon as that is known; `KafkaException` when no broker answers.
    """
    return _client(settings).admin


def ask(
    settings: Settings, question: Callable[[AdminClient], Mapping[Subject, "Future[Answer]"]]
) -> dict[Subject, "Future[Answer]"]:
    """Ask the brokers; the answers, each complete. Waits at most 15 s.

    Raises: as `admin_client`; `KafkaException` without an answer in time.
    """
    client = _client(settings)
    # Errors of an earlier outage.
    client.admin.poll(0)
    client.errors.last = None
    give_up_at = time.monotonic() + _ANSWER_SECONDS_MAX
    answers = dict(question(client.admin))
    while wait(answers.values(), _POLL_SECONDS).not_done:
        if time.monotonic() > give_up_at:
            _abandon(client)
            raise KafkaException(f"no answer within {_ANSWER_SECONDS_MAX} s")
        client.admin.poll(0)
        with _forgotten_when_refused():
            client.errors.check()
    return answers


def _abandon(client: _Client) -> None:
    """Have the next question asked by a new client. This one is kept: closing it might wait without end, too."""
    with _client_lock:
        if client in _clients:
            _clients.remove(client)
            _abandoned.append(client)


def _client(settings: Settings) -> _Client:
    """The client of this process for this configuration; made and connected when first needed."""
    with _client_lock:
        for client in _clients:
            if client.configuration == settings.kafka and client.process == os.getpid():
                return client
        client = _connected_client(settings)
        _clients[:] = [client]
        return client


def _connected_client(settings: Settings) -> _Client:
    """A new client that a broker has answered. Raises: as `admin_client`."""
    # The caller sees the error, so it is not logged.
    errors = ErrorListener(report=lambda _: None)
    configuration: dict[str, Any] = {
        **client_configuration(settings, {}),
        "error_cb": errors,
        # A question about a topic never creates it.
        "allow.auto.create.topics": False,
    }
    try:
        admin = AdminClient(configuration)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._INVALID_ARG:
            raise
        raise SettingsError(f"[kafka] in tenten.toml: {error.args[0].str()}") from error
    for seconds in _CONNECT_SECONDS:
        try:
            admin.list_topics(settings.topic(CUSTOMERS), timeout=seconds)
        except KafkaException as error:
            admin.poll(0)
            # The cause is reported asynchronously; the call itself only times out.
            errors.check()
            if seconds == _CONNECT_SECONDS[-1]:
                raise (error if errors.last is None else KafkaException(errors.last)) from error
        else:
            break
    return _Client(configuration=dict(settings.kafka), process=os.getpid(), admin=admin, errors=errors)


@contextmanager
def _forgotten_when_refused() -> Iterator[None]:
    """After a refusal the next question is asked by a new client, which may have been let in meanwhile."""
    try:
        yield
    except KafkaRefused:
        with _client_lock:
            _clients.clear()
        raise


def topic_ids(settings: Settings, names: Iterable[str]) -> dict[str, TopicInfo]:
    """The id and partition count of each of these topics (names with prefix). One request.

    Raises: `KafkaRefused` for a topic that does not exist or may not be seen; `KafkaException` when no broker answers.
    """
    topics = TopicCollection(list(names))
    answers = ask(settings, lambda admin: admin.describe_topics(topics, request_timeout=REQUEST_SECONDS))
    found = {}
    for name, future in answers.items():
        topic = call_kafka(future.result, name)
        found[name] = TopicInfo(topic_id=str(topic.topic_id), partitions=len(topic.partitions))
    return found


def topic_exists(settings: Settings, name: str) -> bool:
    """Whether a topic (name with prefix) exists. Raises: as `topic_ids`, except for a topic that does not exist."""
    try:
        topic_ids(settings, [name])
    except KafkaRefused as refusal:
        cause = refusal.__cause__
        if isinstance(cause, KafkaException) and cause.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return False
        raise
    return True


def check_partitions(topic: str, expected: int, found: int) -> None:
    """Raises: `TopicChanged` with advice when the counts differ: keys would go to other partitions."""
    if expected != found:
        raise TopicChanged(
            f"topic {topic} has {found} partitions, but this database has read it with {expected}: keys now go to "
            "other partitions; create a new topic under another prefix and resync the channels"
        )


def apply_topics(settings: Settings, dry_run: bool = False) -> list[TopicChange]:
    """Create missing topics, correct the configuration of the others; refuse to add partitions to a keyed topic.

    Idempotent. With `dry_run` it changes nothing.
    Raises: `KafkaRefused`; `KafkaException` when no broker answers.
    """
    return _apply(settings, ALL, ALL, dry_run=dry_run)


def check_topics(settings: Settings, role: Role) -> list[TopicChange]:
    """As `apply_topics` with `dry_run`, as far as this role may see the topics and their configuration.

    Raises: as `apply_topics`.
    """
    visible = [topic for topic in ALL if topic_operations(role, topic)]
    configured = [topic for topic in visible if Operation.DESCRIBE_CONFIGS in topic_operations(role, topic)]
    return _apply(settings, visible, configured, dry_run=True)


def allowed_operations(settings: Settings, topics: Iterable[Topic]) -> dict[str, set[str]]:
    """The operations that the brokers allow this user, by topic (name without prefix) that exists. One request.

    Raises: `KafkaRefused`; `KafkaException` when no broker answers.
    """
    names = {settings.topic(topic): topic.name for topic in topics}
    asked = TopicCollection([*names])
    answers = ask(
        settings,
        lambda admin: admin.describe_topics(asked, include_authorized_operations=True, request_timeout=REQUEST_SECONDS),
    )
    allowed: dict[str, set[str]] = {}
    for name, future in answers.items():
        try:
            operations = future.result().authorized_operations
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                allowed[names[name]] = set()
            elif code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise refusal_of(error, name) or error from error
        else:
            # A broker that does not tell its privileges is believed to allow everything.
            if operations is not None:
                allowed[names[name]] = {operation.name for operation in operations}
    return allowed


def _apply(
    settings: Settings, topics: Sequence[Topic], configured: Collection[Topic], *, dry_run: bool
) -> list[TopicChange]:
    """Create and correct these topics, of `configured` also the configuration. Raises: as `apply_topics`."""
    admin = admin_client(settings)
    existing = _partition_counts(admin, [settings.topic(topic) for topic in topics])
    missing = [topic for topic in topics if settings.topic(topic) not in existing]
    if missing and not dry_run:
        _create(admin, {settings.topic(topic): topic for topic in missing}, settings)
    changes = []
    for topic in topics:
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
        elif topic not in configured:
            changes.append(TopicChange(topic=name, action="keep", detail=f"{existing[name]} partitions"))
        else:
            changes.append(_configure(admin, name, topic, dry_run))
    return changes


def _partition_counts(admin: AdminClient, names: Sequence[str]) -> dict[str, int]:
    """The partition counts of those of the topics that exist, with a leader for each partition.

    Only these topics are requested: a cluster may have many others.
    Raises: `KafkaRefused` for a topic that may not be seen; `KafkaException`.
    """
    described = admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_SECONDS)
    found = {}
    for name, future in described.items():
        try:
            topic = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise refusal_of(error, name) or error from error
            continue
        if topic.partitions and all(partition.leader is not None for partition in topic.partitions):
            found[name] = len(topic.partitions)
    return found


def _create(admin: AdminClient, topics: Mapping[str, Topic], settings: Settings) -> None:
    """Create the topics (by name with prefix), and wait until each partition has a leader.

    Raises: `KafkaRefused`; `KafkaException`, also when that takes too long.
    """
    new = [
        NewTopic(name, num_partitions=settings.partitions_of(topic), config=dict(topic.configuration))
        for name, topic in topics.items()
    ]
    for name, future in admin.create_topics(new, request_timeout=REQUEST_SECONDS).items():
        try:
            call_kafka(future.result, name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    give_up_at = time.monotonic() + REQUEST_SECONDS
    while missing := sorted(topics.keys() - _partition_counts(admin, list(topics)).keys()):
        if time.monotonic() > give_up_at:
            raise KafkaException(f"no leaders within {REQUEST_SECONDS} s for {', '.join(missing)}")
        time.sleep(_POLL_SECONDS)


def _configure(admin: AdminClient, name: str, topic: Topic, dry_run: bool) -> TopicChange:
    """Set the properties of an existing topic that differ from the declared ones."""
    resource = ConfigResource(ResourceType.TOPIC, name)
    now = call_kafka(admin.describe_configs([resource], request_timeout=REQUEST_SECONDS)[resource].result, name)
    different = {key: value for key, value in topic.configuration.items() if now[key].value != value}
    if not different:
        return TopicChange(topic=name, action="keep", detail="as declared")
    if not dry_run:
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in different.items()
        ]
        change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        call_kafka(admin.incremental_alter_configs([change], request_timeout=REQUEST_SECONDS)[change].result, name)
    return TopicChange(
        topic=name, action="configure", detail=", ".join(f"{key}={value}" for key, value in different.items())
    )
