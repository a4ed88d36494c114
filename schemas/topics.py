"""The topics, each declared once. Creation, checks and documentation are made from here.

Configuration values are Kafka's own topic settings, as text; see https://kafka.apache.org/documentation/#topicconfigs.
"""

from dataclasses import dataclass, field
from typing import Final

DAY_MS: Final = 24 * 60 * 60 * 1000
RECORD_BYTES_MAX: Final = 1024 * 1024
"""Largest record that a topic takes; dead letters may be twice as large, so that whatever was taken fits."""

EVENT_BYTES_MAX: Final = 512 * 1024
"""Largest event that headquarters accepts: what it makes of one always fits its topics."""


_BROKER_CLOCK: Final = {"message.timestamp.type": "LogAppendTime"}
"""Times are the broker's: what a store with a wrong clock sends would be refused, or expire before it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic: its name without prefix, what its key is, what it holds, and how Kafka keeps it."""

    name: str
    key: str
    value: str
    """Name of the Avro record in `schemas/avro`, or a word for what it is."""
    partitions: int | None = None
    """None: as many as the settings say."""
    keyed: bool = True
    """True when partitions may never be added: the same key must stay in the same partition."""
    configuration: dict[str, str] = field(default_factory=dict)


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
)
CUSTOMERS: Final = Topic(
    name="customers",
    key="customer_id",
    value="Customer",
    configuration={"cleanup.policy": "compact", "delete.retention.ms": str(30 * DAY_MS), **_BROKER_CLOCK},
)
CHANNEL_REPLIES: Final = Topic(
    name="channel-replies",
    key="channel_id",
    value="Reply",
    configuration={"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS), **_BROKER_CLOCK},
)
TRANSACTION_REPLIES: Final = Topic(
    name="transaction-replies",
    key="channel_id",
    value="TransactionReply",
    configuration=CHANNEL_REPLIES.configuration,
)
SCHEMAS: Final = Topic(
    name="schemas",
    key="fingerprint",
    value="Avro schema",
    partitions=1,
    configuration={"cleanup.policy": "compact"},
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
)


def _dead_letters_of(topic: Topic) -> Topic:
    """Where what cannot be read of a topic goes."""
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
    )


ASYNC_CUSTOMERS_DLQ: Final = _dead_letters_of(ASYNC_CUSTOMERS)
RETAIL_TRANSACTIONS_DLQ: Final = _dead_letters_of(RETAIL_TRANSACTIONS)

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
    SCHEMAS,
    ASYNC_CUSTOMERS_DLQ,
    RETAIL_TRANSACTIONS_DLQ,
)
