"""A transactional producer: one Kafka transaction at a time, with the offsets of its batch.

- After any error that does not say "abort", and after a commit whose result is unknown, the client is discarded. A new
  one with the same transactional id first makes the broker decide that transaction.
- A client that has lost a broker is replaced before the next transaction: librdkafka may query a group coordinator that
  no longer exists, without end and whatever the timeout (its issues 5511 and 5456). That call has a deadline of ours,
  too.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from structlog import get_logger

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import ErrorListener, refusal_of
from tenten.kafka.client_waits import wait_for_leaders
from tenten.kafka.records import Headers, produce
from tenten.runtime.counting import count
from tenten.runtime.deadline import CallsWithDeadline
from tenten.runtime.errors import TransactionFailed
from tenten.runtime.failpoints import failpoint

log = get_logger(__name__)

TRANSACTION_SECONDS: Final = 6
"""After this time the broker aborts the transaction of a dead worker: the longest that readers wait for one. A broker
allows no shorter session of a group by default."""

COMMIT_SECONDS: Final = 30.0
"""How long a commit is repeated before its result counts as unknown."""

_GRACE_SECONDS: Final = 1.0
"""A call that respects its own timeout ends within this time after it."""


class Outputs:
    """The records of a transaction. When the producer's queue is full, sending waits for the broker."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        timestamp_ms: int = 0,
    ) -> None:
        """Queue one record; `timestamp_ms` 0 is the current time. A failed delivery fails the commit."""
        produce(self._producer, topic, key, value, headers=headers, timestamp_ms=timestamp_ms)


class TransactionalProducer:
    """The producer of a session. `transactional_id` is called whenever a new client is created. `topic` is one that it
    may see (name with prefix).
    """

    def __init__(
        self, name: str, configuration: Mapping[str, Any], transactional_id: Callable[[], str], *, topic: str
    ) -> None:
        self._name = name
        self._topic = topic
        self._configuration = dict(configuration)
        self._transactional_id = transactional_id
        self._client: Producer | None = None
        self._client_errors = ErrorListener()
        self._calls = CallsWithDeadline("send-offsets")

    @contextmanager
    def transaction(self, topic: str, next_offsets: Mapping[int, int], group_metadata: object) -> Generator[Outputs]:
        """One Kafka transaction: the records that the body sends, and the group's offsets. Commits after the body.

        Raises: `TransactionFailed` after aborting; `KafkaRefused`.
        """
        with self._aborted_on_failure() as producer:
            producer.begin_transaction()
            failpoint(f"{self._name}.after_begin")
            yield Outputs(producer)
            failpoint(f"{self._name}.after_produce")
            self._send_offsets(producer, topic, next_offsets, group_metadata)
            failpoint(f"{self._name}.after_send_offsets")
            failpoint(f"{self._name}.before_kafka_commit")
            self._commit(producer)
        failpoint(f"{self._name}.after_kafka_commit")

    @contextmanager
    def records(self) -> Generator[Outputs]:
        """One Kafka transaction of the records that the body sends, without offsets. Commits after the body.

        Raises: as `transaction`.
        """
        with self._aborted_on_failure() as producer:
            producer.begin_transaction()
            yield Outputs(producer)
            self._commit(producer)

    def commit_offsets(self, topic: str, next_offsets: Mapping[int, int], group_metadata: object) -> None:
        """Commit offsets of the group alone. A consumer's own commit may wait without end for the group's coordinator.

        Raises: as `transaction`.
        """
        with self._aborted_on_failure() as producer:
            producer.begin_transaction()
            self._send_offsets(producer, topic, next_offsets, group_metadata)
            self._commit(producer)

    @contextmanager
    def _aborted_on_failure(self) -> Generator[Producer]:
        """A client that can begin a transaction. Raises: `TransactionFailed`, `KafkaRefused`; after aborting it."""
        producer = self.ready()
        try:
            yield producer
        except KafkaException as error:
            self._abort(producer, error.args[0])
            raise (refusal_of(error) or TransactionFailed(error.args[0].str())) from error
        except BaseException:
            self._abort(producer, None)
            raise

    def _send_offsets(
        self, producer: Producer, topic: str, next_offsets: Mapping[int, int], group_metadata: object
    ) -> None:
        """Raises: `KafkaException`, also when the client ignores its own timeout."""
        offsets = [TopicPartition(topic, partition, offset) for partition, offset in next_offsets.items()]
        try:
            self._calls.call(
                lambda: producer.send_offsets_to_transaction(offsets, group_metadata, REQUEST_SECONDS),
                REQUEST_SECONDS + _GRACE_SECONDS,
            )
        except TimeoutError:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer from the group's coordinator")) from None

    def _commit(self, producer: Producer) -> None:
        """Commit; repeat the call while its error is retriable: a commit that timed out may have succeeded."""
        give_up_at = time.monotonic() + COMMIT_SECONDS
        while True:
            try:
                producer.commit_transaction(REQUEST_SECONDS)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > give_up_at:
                    raise

    def _abort(self, producer: Producer, error: KafkaError | None) -> None:
        """End a failed transaction. Discards the client where the end is uncertain."""
        count("tenten_transactions_aborted_total", 1, "other" if error is None else error.name())
        if error is not None:
            log.warning("transaction_failed", session=self._name, code=error.name(), fatal=error.fatal())
        if error is not None and not error.txn_requires_abort():
            self.discard()
            return
        try:
            producer.abort_transaction(REQUEST_SECONDS)
        except KafkaException:
            self.discard()

    def ready(self) -> Producer:
        """The client; a new one first makes the broker end a transaction that its predecessor left open."""
        if self._client is not None:
            self._client.poll(0)
            if self._client_errors.last is not None:
                self.discard()
        if self._client is None:
            self._client_errors = ErrorListener()
            configuration = {
                **self._configuration,
                "transactional.id": self._transactional_id(),
                "transaction.timeout.ms": TRANSACTION_SECONDS * 1000,
                # A record that is not delivered within the transaction's life can never be part of it.
                "delivery.timeout.ms": TRANSACTION_SECONDS * 1000,
                # The pause before a step of a transaction is retried, as the first step is while the broker still ends
                # the previous transaction: the default of 100 ms would dominate the latency.
                "retry.backoff.ms": 2,
                "retry.backoff.max.ms": 20,
                "error_cb": self._client_errors,
            }
            producer = Producer(configuration)
            wait_for_leaders(producer, [self._topic])
            producer.init_transactions(COMMIT_SECONDS)
            # Ignore errors raised while connecting.
            producer.poll(0)
            self._client_errors.last = None
            self._client = producer
        return self._client

    def discard(self) -> None:
        """Discard the client without closing it; its successor ends its transaction. Idempotent.

        Closing would first end the transaction, and so might wait without limit, or raise when the client is fenced.
        """
        self._calls.close()
        producer, self._client = self._client, None
        if producer is not None:
            producer.purge()
