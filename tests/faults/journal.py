"""The journal of a test: each operation with its result, which may be unknown, and observed numbers and versions."""

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
    """The result of an operation, as far as it is known."""

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
    """None if the record is not an event."""
    partition: int = -1
    offset: int = -1
    timestamp_ms: int = 0
    result: Result = Result.UNKNOWN


@dataclass(slots=True)
class Journal:
    """All operations and observations of a test, in order."""

    operations: list[Operation] = field(default_factory=list)
    numbers_seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By customer id: all account numbers observed anywhere."""
    versions_seen: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """By channel and customer: the versions observed in the channel, in order."""

    @property
    def event_ids(self) -> set[str]:
        """The events that were certainly written."""
        return {
            operation.event_id for operation in self.operations if operation.event_id and operation.result is Result.OK
        }


class Writer:
    """Writes to a test's async-customers and retail-transactions as channels do, and keeps the journal."""

    def __init__(self, bootstrap_servers: str, prefix: str, journal: Journal) -> None:
        self._prefix = prefix
        self._journal = journal
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                # Duplicates are harmless here, and requesting a producer id takes half a second.
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
        """Queue any record; its key determines the partition by default."""
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
        """Wait until the broker has acknowledged everything."""
        left = self._producer.flush(_ANSWER_SECONDS)
        assert left == 0, f"{left} records were not acknowledged"
