"""What each role may do at Kafka, derived from the topics: access control lists and client quotas.

Everything else is denied. Kafka lets whoever may READ or WRITE also DESCRIBE, so DESCRIBE is named only where it is the
whole privilege. An idempotent producer needs nothing beside WRITE on its topics (Kafka 2.8 and newer).
Source: https://kafka.apache.org/documentation/#operations_in_kafka
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tenten.schemas.consumer_groups import CHANNEL_GROUP, HEADQUARTERS_GROUP, TRANSACTIONS_GROUP
from tenten.schemas.topics import ALL, HEADQUARTERS_ROLES, Role, Topic


class Operation(StrEnum):
    """An operation of Kafka, by its name there."""

    READ = "READ"
    WRITE = "WRITE"
    CREATE = "CREATE"
    DESCRIBE = "DESCRIBE"
    DESCRIBE_CONFIGS = "DESCRIBE_CONFIGS"
    ALTER_CONFIGS = "ALTER_CONFIGS"


class Resource(StrEnum):
    """A kind of resource of Kafka."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Privilege:
    """Operations that a role may do with a resource."""

    resource: Resource
    name: str
    """Without the prefix of the settings."""
    operations: frozenset[Operation]
    is_prefix: bool = False
    """Whether it is for every name that begins like this. Such a name ends with a delimiter: `store-1` would include
    `store-10`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The most that a user may ask of one broker; Kafka slows down whoever asks for more."""

    producer_byte_rate: int
    """Bytes per second, as compressed by the client."""
    consumer_byte_rate: int
    """Bytes per second."""
    request_percentage: int
    """Of the time of one thread of the broker."""


CHANNEL_QUOTA: Final = Quota(
    # Some 4,000 events a second of a backlog.
    producer_byte_rate=2 * 1024 * 1024,
    # A million customers within a minute.
    consumer_byte_rate=20 * 1024 * 1024,
    request_percentage=50,
)
"""Of every channel. Headquarters has none."""

WORKER_GROUPS: Final = {Role.CUSTOMERS_WORKER: HEADQUARTERS_GROUP, Role.TRANSACTIONS_WORKER: TRANSACTIONS_GROUP}


def privileges(role: Role, channel: str = "") -> list[Privilege]:
    """All privileges of a role; of the role CHANNEL those of the channel of this name."""
    return [*_topic_privileges(role), *_group_privileges(role, channel), *_transactional_ids(role)]


def topic_operations(role: Role, topic: Topic) -> frozenset[Operation]:
    """The operations of a role on a topic."""
    operations = set()
    if role in topic.readers:
        operations.add(Operation.READ)
    if role in topic.writers:
        operations.add(Operation.WRITE)
    if role in topic.configuration_readers:
        operations.add(Operation.DESCRIBE_CONFIGS)
    if role is Role.OPERATOR:
        # `tenten topics apply`.
        operations |= {Operation.CREATE, Operation.ALTER_CONFIGS}
    if role in HEADQUARTERS_ROLES and not operations & {Operation.READ, Operation.WRITE}:
        # `tenten status` and `tenten doctor` look at every topic.
        operations.add(Operation.DESCRIBE)
    return frozenset(operations)


def _topic_privileges(role: Role) -> Iterator[Privilege]:
    for topic in ALL:
        operations = topic_operations(role, topic)
        if operations:
            yield Privilege(resource=Resource.TOPIC, name=topic.name, operations=operations)


def _group_privileges(role: Role, channel: str) -> Iterator[Privilege]:
    if role is Role.CHANNEL:
        name = CHANNEL_GROUP.format(channel=channel)
        yield Privilege(resource=Resource.GROUP, name=name, operations=frozenset({Operation.READ}))
        return
    for worker, group in WORKER_GROUPS.items():
        # Each worker compares the offsets of both groups with the database.
        operation = Operation.READ if role is worker else Operation.DESCRIBE
        yield Privilege(resource=Resource.GROUP, name=group, operations=frozenset({operation}))
    if role is Role.OPERATOR:
        # `tenten lag`.
        name = CHANNEL_GROUP.format(channel="")
        describe = frozenset({Operation.DESCRIBE})
        yield Privilege(resource=Resource.GROUP, name=name, operations=describe, is_prefix=True)


def _transactional_ids(role: Role) -> Iterator[Privilege]:
    """Those of a worker's processes: one for each slot."""
    if role in WORKER_GROUPS:
        yield Privilege(
            resource=Resource.TRANSACTIONAL_ID,
            name=f"{WORKER_GROUPS[role]}-",
            operations=frozenset({Operation.WRITE}),
            is_prefix=True,
        )
