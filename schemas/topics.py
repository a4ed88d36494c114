"""The topics, each declared once: creation, checks, privileges and documentation derive from here.

Configuration values are Kafka's own topic settings, as text; see https://kafka.apache.org/documentation/#topicconfigs.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

DAY_MS: Final = 24 * 60 * 60 * 1000
RECORD_BYTES_MAX: Final = 1024 * 1024
"""The largest record of a topic. Dead letters may be twice as large, so that a record with added headers fits."""

EVENT_BYTES_MAX: Final = 512 * 1024
"""The largest event that headquarters accepts: the records made from it always fit their topics."""


class Role(StrEnum):
    """Who connects to Kafka. What each may do follows from the topics (`privileges.py`)."""

    CUSTOMERS_WORKER = "customers worker"
    TRANSACTIONS_WORKER = "transactions worker"
    OPERATOR = "operator"
    """A person at headquarters, with any command there."""
    CHANNEL = "channel"
    """The processes of one channel."""


HEADQUARTERS_ROLES: Final = frozenset({Role.CUSTOMERS_WORKER, Role.TRANSACTIONS_WORKER, Role.OPERATOR})
EVERYBODY: Final = frozenset(Role)
_CUSTOMERS_WORKER: Final = frozenset({Role.CUSTOMERS_WORKER, Role.OPERATOR})
"""The operator's commands do what that worker does: verify, recover, republish."""


_BROKER_CLOCK: Final = {"message.timestamp.type": "LogAppendTime"}
"""Timestamps are the broker's: with those of a store with a wrong clock, records could be refused or expire unread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic: name without prefix, key, content and configuration."""

    name: str
    key: str
    value: str
    """Name of the Avro record in `schemas/avro`, or a description."""
    partitions: int | None = None
    """None: `partitions` of the settings."""
    keyed: bool = True
    """True if partitions must never be added: the same key must stay in the same partition."""
    configuration: dict[str, str] = field(default_factory=dict)
    readers: frozenset[Role]
    writers: frozenset[Role]
    configuration_readers: frozenset[Role] = HEADQUARTERS_ROLES
    """Who may see the configuration that the topic has. At headquarters `tenten doctor` compares it with this one."""


ASYNC_CUSTOMERS: Final = Topic(
    name="async-customers",
    key="customer_id",
    value="CustomerEvent",
    configuration={
        **_BROKER_CLOCK,
        "cleanup.policy": "delete",
        "retention.ms": str(14 * DAY_MS),
        "max.message.bytes": str(RECORD_BYTES_MAX),
    },
    readers=HEADQUARTERS_ROLES,
    writers=EVERYBODY,
)
CUSTOMERS: Final = Topic(
    name="customers",
    key="customer_id",
    value="Customer",
    configuration={"cleanup.policy": "compact", "delete.retention.ms": str(30 * DAY_MS), **_BROKER_CLOCK},
    readers=EVERYBODY,
    writers=_CUSTOMERS_WORKER,
    # A channel that was away for longer than tombstones are kept must resync.
    configuration_readers=EVERYBODY,
)
CHANNEL_REPLIES: Final = Topic(
    name="channel-replies",
    key="channel_id",
    value="Reply",
    configuration={"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS), **_BROKER_CLOCK},
    readers=EVERYBODY,
    writers=frozenset({Role.CUSTOMERS_WORKER}),
)
TRANSACTION_REPLIES: Final = Topic(
    name="transaction-replies",
    key="channel_id",
    value="TransactionReply",
    configuration=CHANNEL_REPLIES.configuration,
    readers=EVERYBODY,
    writers=frozenset({Role.TRANSACTIONS_WORKER}),
)
CHANNEL_STATUS: Final = Topic(
    name="channel-status",
    key="channel_id",
    value="Heartbeat",
    partitions=1,
    configuration={
        **_BROKER_CLOCK,
        "cleanup.policy": "compact",
        # Readers take the newest heartbeat of each channel, and read the whole topic for that: it is kept small.
        "segment.ms": str(10 * 60 * 1000),
        "max.compaction.lag.ms": str(10 * 60 * 1000),
        "min.cleanable.dirty.ratio": "0.01",
    },
    readers=_CUSTOMERS_WORKER,
    writers=frozenset({Role.CHANNEL}),
)
CHANNEL_SETTINGS: Final = Topic(
    name="channel-settings",
    key="channel_id",
    value="ChannelSettings",
    configuration={
        **_BROKER_CLOCK,
        "cleanup.policy": "compact",
        # A channel reads the whole partition of its key when it starts: it is kept small.
        "segment.ms": str(60 * 60 * 1000),
        "max.compaction.lag.ms": str(60 * 60 * 1000),
        "min.cleanable.dirty.ratio": "0.01",
    },
    readers=EVERYBODY,
    writers=_CUSTOMERS_WORKER,
)
HEADQUARTERS_STATUS: Final = Topic(
    name="headquarters-status",
    key="topic",
    value="TopicStatus",
    partitions=1,
    configuration={"cleanup.policy": "compact", **_BROKER_CLOCK},
    readers=EVERYBODY,
    writers=_CUSTOMERS_WORKER,
)
ERASURES: Final = Topic(
    name="erasures",
    key="customer_id",
    value="Erasure",
    configuration={"cleanup.policy": "compact", **_BROKER_CLOCK},
    readers=_CUSTOMERS_WORKER,
    writers=_CUSTOMERS_WORKER,
)
JOINS: Final = Topic(
    name="joins",
    key="channel_id",
    value="JoinRequest",
    partitions=1,
    configuration={
        **_BROKER_CLOCK,
        "cleanup.policy": "delete",
        "retention.ms": str(DAY_MS),
        # A request has some 200 bytes.
        "max.message.bytes": str(16 * 1024),
    },
    readers=_CUSTOMERS_WORKER,
    writers=frozenset({Role.CHANNEL}),
)
SCHEMAS: Final = Topic(
    name="schemas",
    key="fingerprint",
    value="Avro schema",
    partitions=1,
    configuration={"cleanup.policy": "compact", **_BROKER_CLOCK},
    readers=EVERYBODY,
    writers=HEADQUARTERS_ROLES,
)
RETAIL_TRANSACTIONS: Final = Topic(
    name="retail-transactions",
    key="channel_id",
    value="RetailTransaction",
    configuration={
        **_BROKER_CLOCK,
        "cleanup.policy": "delete",
        "retention.ms": str(14 * DAY_MS),
        "max.message.bytes": str(RECORD_BYTES_MAX),
    },
    readers=frozenset({Role.TRANSACTIONS_WORKER, Role.OPERATOR}),
    writers=frozenset({Role.CHANNEL, Role.OPERATOR}),
)


def _dead_letters_of(topic: Topic, worker: Role) -> Topic:
    """The topic for the unreadable records of a topic, which the operator may send again."""
    return Topic(
        name=f"{topic.name}.dlq",
        key="as it came",
        value="the original bytes",
        partitions=1,
        keyed=False,
        configuration={
            "cleanup.policy": "delete",
            "retention.ms": str(30 * DAY_MS),
            "max.message.bytes": str(2 * RECORD_BYTES_MAX),
        },
        readers=frozenset({Role.OPERATOR}),
        writers=frozenset({worker}),
    )


ASYNC_CUSTOMERS_DLQ: Final = _dead_letters_of(ASYNC_CUSTOMERS, Role.CUSTOMERS_WORKER)
RETAIL_TRANSACTIONS_DLQ: Final = _dead_letters_of(RETAIL_TRANSACTIONS, Role.TRANSACTIONS_WORKER)

DEAD_LETTERS_OF: Final = {
    ASYNC_CUSTOMERS.name: ASYNC_CUSTOMERS_DLQ,
    RETAIL_TRANSACTIONS.name: RETAIL_TRANSACTIONS_DLQ,
}
"""By the name of the topic that is read."""

ALL: Final = (
    ASYNC_CUSTOMERS,
    CUSTOMERS,
    CHANNEL_REPLIES,
    RETAIL_TRANSACTIONS,
    TRANSACTION_REPLIES,
    CHANNEL_STATUS,
    CHANNEL_SETTINGS,
    HEADQUARTERS_STATUS,
    ERASURES,
    JOINS,
    SCHEMAS,
    ASYNC_CUSTOMERS_DLQ,
    RETAIL_TRANSACTIONS_DLQ,
)
