"""What a test did: each operation with its result, which may be unknown, and what it saw on the way."""

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from tests.faults.avro import encode

_UNKNOWN: Final = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._FATAL,
        KafkaError.REQUEST_TIMED_OUT,
    }
)
"""The record may have been written all the same."""
_ANSWER_SECONDS: Final = 30.0


class Result(StrEnum):
    """What is known of an operation."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True)
class Operation:
    """One record that the test wrote, or tried to write. Its value is unlike any other's."""

    topic: str = "async-customers"
    """Without prefix."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    event_id: str | None = None
    """None for what is no event."""
    partition: int = -1
    offset: int = -1
    timestamp_ms: int = 0
    result: Result = Result.UNKNOWN


@dataclass(slots=True)
class Journal:
    """Everything that the test did and saw, in the order of doing."""

    operations: list[Operation] = field(default_factory=list)
    numbers_seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By customer id: the account numbers that anybody has ever seen."""
    versions_seen: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """By channel and customer: the versions that were visible in the channel, in the order in which they were seen."""

    @property
    def event_ids(self) -> set[str]:
        """The events that were certainly written."""
        return {one.event_id for one in self.operations if one.event_id and one.result is Result.OK}


class Writer:
    """Writes as channels do, to a test's async-customers and retail-transactions, and keeps the journal."""

    def __init__(self, bootstrap_servers: str, prefix: str, journal: Journal) -> None:
        self._prefix = prefix
        self._journal = journal
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                # Writing something twice does no harm here, and asking for a producer id takes half a second.
                "acks": "all",
                "max.in.flight": 1,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "message.max.bytes": 8_000_000,
                "compression.type": "lz4",
            }
        )

    def send(self, event: dict[str, Any]) -> None:
        """Queue an event under its customer's id."""
        key = event["customer_id"].encode()
        headers: tuple[tuple[str, bytes | None], ...] = (("id", event["event_id"].encode()),)
        operation = Operation(
            key=key, value=encode("CustomerEvent", event), headers=headers, event_id=event["event_id"]
        )
        self.write(operation)

    def sell(self, transaction: dict[str, Any]) -> None:
        """Queue a transaction under its channel's id."""
        headers: tuple[tuple[str, bytes | None], ...] = (("id", transaction["transaction_id"].encode()),)
        key, value = transaction["channel_id"].encode(), encode("RetailTransaction", transaction)
        self.write(Operation(topic="retail-transactions", key=key, value=value, headers=headers))

    def write(self, operation: Operation, partition: int = -1) -> None:
        """Queue any record, in whatever partition its key leads to unless one is named."""
        self._journal.operations.append(operation)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                operation.result = Result.OK
                operation.partition, operation.offset = message.partition() or 0, message.offset() or 0
                operation.timestamp_ms = message.timestamp()[1]
            elif error.code() not in _UNKNOWN:
                operation.result = Result.FAILED

        while True:
            try:
                self._producer.produce(
                    self._prefix + operation.topic,
                    operation.value,
                    operation.key,
                    partition=partition,
                    headers=list(operation.headers),
                    on_delivery=delivered,
                )
                return
            except BufferError:
                self._producer.poll(0.05)

    def flush(self) -> None:
        """Wait until the broker has answered everything."""
        left = self._producer.flush(_ANSWER_SECONDS)
        assert left == 0, f"{left} records were not answered"
