"""The exactly-once loop of a consumer group: batches in, outputs and offsets out in one Kafka transaction.

Everything about aborts, rewinding, fencing and rebalances is here, once; a process that uses a session reads like
this::

    for batch in session.batches():
        with session.attempt(batch):        # whatever may pass by itself: rewind, wait, the batch comes again
            ...                             # one SQL transaction
            with session.transaction(batch) as out:
                out.send(topic, key, value)

What it rests on (see docs/decisions/0003-exactly-once-session.md):

- The group metadata is captured when partitions are assigned and goes with each batch. The broker checks the group's
  generation, not who owns a partition: metadata fetched just before sending would let a worker commit offsets of
  partitions it has lost.
- Rebalances are noticed only while polling, and whatever was collected before one is dropped and read again.
- After any error that does not say "abort", and after a commit whose result is unknown, the producer is thrown away.
  A new one with the same transactional id first makes the broker decide that transaction; only then are committed
  offsets asked for.
- A producer that has lost a broker is replaced before the next transaction: librdkafka may ask a group coordinator
  that is gone, without end and whatever the timeout (its issues 5511 and 5456). That call has a deadline of ours, too.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from structlog import get_logger

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import ErrorListener, refusal_of
from tenten.kafka.records import Headers, produce, record_position
from tenten.runtime.errors import TransactionFailed
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry
from tenten.schemas.messages import HEADQUARTERS

log = get_logger(__name__)

TRANSACTION_SECONDS: Final = 10
"""After this long the broker aborts a transaction whose worker is gone: the longest a reader waits for a dead one."""

COMMIT_SECONDS: Final = 30.0
"""How long the same commit is repeated before its result counts as unknown."""

POLL_SECONDS: Final = 0.2
"""How long an idle poll waits; the longest a SIGTERM waits on a quiet topic."""

_GRACE_SECONDS: Final = 1.0
"""A call that keeps its own timeout has ended by then."""

BATCHES_TOGETHER: Final = 4
"""How many batches are read at a time where there is a backlog; between two readings no rebalance is noticed."""

CONSUME_RECORDS: Final = 1_000
"""How many records are taken from the client's queue at a time while a batch fills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How large a batch may become. Time needs no limit: a batch takes what is there and waits for nothing."""

    records_max: int = 10_000
    bytes_max: int = 32 * 1024 * 1024
    """Of all batches that are read together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one topic as they were delivered, ordered within each partition."""

    messages: list[Message]
    next_offsets: dict[int, int]
    """By partition: one past the last record of the batch."""
    topic: str
    group_metadata: object
    """Who the group thought we are when these partitions were assigned."""
    following: "Batch | None" = None
    """What was read together with this batch, and comes next if this one succeeds: it may be looked at already."""


class Outputs:
    """What a transaction sends. Bounded: when the producer's queue is full it waits for the broker."""

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


class TransactionSession:
    """A member of a consumer group with a transactional producer. Use it as a context manager.

    `transactional_id` is asked whenever a new producer is made: it must name a slot that is ours for now.
    `on_assigned` is told which partitions were assigned and what the group has committed for each (None: nothing). It
    runs outside the client's callbacks, may block, and may raise to stop.
    """

    def __init__(
        self,
        *,
        name: str,
        topic: str,
        consumer: Mapping[str, Any],
        producer: Mapping[str, Any],
        transactional_id: Callable[[], str],
        on_assigned: Callable[[dict[int, int | None]], None],
        limits: BatchLimits,
        stop: Event,
    ) -> None:
        self._name = name
        self._topic = topic
        self._consumer_configuration = dict(consumer)
        self._producer_configuration = dict(producer)
        self._transactional_id = transactional_id
        self._on_assigned = on_assigned
        self._limits = limits
        self._stop = stop
        self._producer: Producer | None = None
        self._producer_errors = ErrorListener()
        self._group_metadata: object = None
        self._unchecked: set[int] = set()
        self._rebalanced = False
        self._rewind: set[int] = set()
        self._retry = Retry(name, HEADQUARTERS, stop)

    def __enter__(self) -> "TransactionSession":
        self._consumer = Consumer(
            {
                # A dead member's partitions go to the others after this long.
                "session.timeout.ms": TRANSACTION_SECONDS * 1000,
                "heartbeat.interval.ms": 3000,
                # A rebalance takes away only what moves; the rest goes on.
                "partition.assignment.strategy": "cooperative-sticky",
                # A group without offsets has everything to do.
                "auto.offset.reset": "earliest",
                **self._consumer_configuration,
            }
        )
        self._consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()
        self._drop_producer()

    def batches(self) -> Iterator[Batch]:
        """Batches until `stop` is set, the oldest records first; the same ones again after a failed attempt.

        Raises: what `on_assigned` raises; `KafkaRefused`; `KafkaException` for what waiting cannot mend.
        """
        while not self._stop.is_set():
            messages: list[Message] = []
            with self._retrying():
                self._recover()
                self._check_assigned()
                messages = self._collect()
            if messages:
                yield from self._in_turn(messages)

    def _in_turn(self, messages: list[Message]) -> Iterator[Batch]:
        """These messages batch by batch, as long as each succeeds."""
        starts = range(0, len(messages), self._limits.records_max)
        batch: Batch | None = None
        for start in reversed(starts):
            batch = self._batch(messages[start : start + self._limits.records_max], batch)
        while batch is not None and not self._stop.is_set():
            failpoint(f"{self._name}.after_poll")
            yield batch
            batch = batch.following
            if self._rewind:
                # It comes again, and with it what was read behind it.
                self._rewind |= {record_position(message)[0] for message in messages}
                return

    @contextmanager
    def attempt(self, batch: Batch) -> Generator[None]:
        """Try a batch: what may pass by itself makes it come again after a pause, anything else is raised."""
        with self._retrying():
            try:
                yield
            except BaseException:
                self._rewind |= batch.next_offsets.keys()
                raise
            self._retry.recovered()

    @contextmanager
    def transaction(self, batch: Batch) -> Generator[Outputs]:
        """One Kafka transaction: what the body sends, and the batch's offsets. Commits at the end of the body.

        Raises: `TransactionFailed` inside an `attempt`, after aborting.
        """
        producer = self._producer_ready()
        try:
            producer.begin_transaction()
            failpoint(f"{self._name}.after_begin")
            yield Outputs(producer)
            failpoint(f"{self._name}.after_produce")
            offsets = [
                TopicPartition(batch.topic, partition, offset) for partition, offset in batch.next_offsets.items()
            ]
            _in_time(lambda: producer.send_offsets_to_transaction(offsets, batch.group_metadata, REQUEST_SECONDS))
            failpoint(f"{self._name}.after_send_offsets")
            failpoint(f"{self._name}.before_kafka_commit")
            self._commit(producer)
        except KafkaException as error:
            self._abort(producer, error.args[0])
            raise (refusal_of(error) or TransactionFailed(error.args[0].str())) from error
        except BaseException:
            self._abort(producer, None)
            raise
        failpoint(f"{self._name}.after_kafka_commit")

    def _commit(self, producer: Producer) -> None:
        """Commit, repeating the same call while the client says so: a commit that timed out may have happened."""
        give_up_at = time.monotonic() + COMMIT_SECONDS
        while True:
            try:
                producer.commit_transaction(REQUEST_SECONDS)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > give_up_at:
                    raise

    def _abort(self, producer: Producer, error: KafkaError | None) -> None:
        """End a failed transaction. Where it is not certain that it ended, the producer is thrown away."""
        if error is not None:
            log.warning("transaction_failed", session=self._name, code=error.name(), fatal=error.fatal())
        if error is not None and not error.txn_requires_abort():
            self._drop_producer()
            return
        try:
            producer.abort_transaction(REQUEST_SECONDS)
        except KafkaException:
            self._drop_producer()

    def _producer_ready(self) -> Producer:
        """The producer; a new one first makes the broker end whatever its predecessor left open."""
        if self._producer is not None:
            self._producer.poll(0)
            if self._producer_errors.last is not None:
                self._drop_producer()
        if self._producer is None:
            self._producer_errors = ErrorListener()
            configuration = {
                **self._producer_configuration,
                "transactional.id": self._transactional_id(),
                "transaction.timeout.ms": TRANSACTION_SECONDS * 1000,
                # A record that is not delivered within the transaction's life can never be part of it.
                "delivery.timeout.ms": TRANSACTION_SECONDS * 1000,
                # The pause before a step of a transaction is retried, as the first one is while the broker still ends
                # the transaction before: 100 ms, the default, is the tail of the latency.
                "retry.backoff.ms": 2,
                "retry.backoff.max.ms": 20,
                "error_cb": self._producer_errors,
            }
            producer = Producer(configuration)
            producer.init_transactions(COMMIT_SECONDS)
            # What it met on its way to the broker is over.
            producer.poll(0)
            self._producer_errors.last = None
            self._producer = producer
        return self._producer

    def _drop_producer(self) -> None:
        """Let the producer go as it is.

        It is not closed: that would first end its transaction, for which it may wait without end, or raise when it is
        fenced. Its successor ends that transaction.
        """
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

    def _recover(self) -> None:
        """Before reading on after a failure: let the broker decide the last transaction, then go back to the
        offsets.
        """
        self._producer_ready()
        if not self._rewind:
            return
        assigned = {partition.partition for partition in self._consumer.assignment()}
        mine = [TopicPartition(self._topic, partition) for partition in self._rewind & assigned]
        for partition in self._consumer.committed(mine, timeout=REQUEST_SECONDS) if mine else []:
            if partition.offset == OFFSET_INVALID:
                partition.offset = OFFSET_BEGINNING
            self._consumer.seek(partition)
        self._rewind.clear()

    def _collect(self) -> list[Message]:
        """What is there: a record if any comes within the poll, at most a few batches. Nothing when a rebalance
        came.
        """
        self._rebalanced = False
        first = self._consumer.poll(POLL_SECONDS)
        if first is None:
            return []
        messages = [first]
        size = len(first)
        records_max = BATCHES_TOGETHER * self._limits.records_max
        while len(messages) < records_max and size < self._limits.bytes_max:
            more = self._consumer.consume(min(CONSUME_RECORDS, records_max - len(messages)), timeout=0)
            messages.extend(more)
            size += sum(map(len, more))
            if not more:
                break
        for message in messages:
            if message.error() is not None:
                self._rewind |= {record_position(one)[0] for one in messages if one.error() is None}
                raise KafkaException(message.error())
        if self._rebalanced:
            self._rewind |= {record_position(message)[0] for message in messages}
            return []
        return messages

    def _batch(self, messages: list[Message], following: Batch | None) -> Batch:
        next_offsets: dict[int, int] = {}
        for message in messages:
            partition, offset = record_position(message)
            next_offsets[partition] = offset + 1
        return Batch(
            messages=messages,
            next_offsets=next_offsets,
            topic=self._topic,
            group_metadata=self._group_metadata,
            following=following,
        )

    def _check_assigned(self) -> None:
        """Tell `on_assigned` about the partitions that came with the last rebalance."""
        if not self._unchecked:
            return
        asked = [TopicPartition(self._topic, partition) for partition in sorted(self._unchecked)]
        committed = self._consumer.committed(asked, timeout=REQUEST_SECONDS)
        self._on_assigned(
            {partition.partition: None if partition.offset < 0 else partition.offset for partition in committed}
        )
        self._unchecked.clear()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        self._group_metadata = consumer.consumer_group_metadata()
        self._unchecked |= {partition.partition for partition in partitions}
        log.info("partitions_assigned", session=self._name, partitions=sorted(p.partition for p in partitions))

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        failpoint(f"{self._name}.in_on_revoke")
        self._rebalanced = True
        self._unchecked -= {partition.partition for partition in partitions}
        log.info("partitions_revoked", session=self._name, partitions=sorted(p.partition for p in partitions))

    @contextmanager
    def _retrying(self) -> Generator[None]:
        """Retry transient errors of the body. Raises: `KafkaRefused`; every other error."""
        with self._retry.retrying():
            try:
                yield
            except KafkaException as error:
                refusal = refusal_of(error)
                if refusal is not None:
                    raise refusal from error
                raise


def _in_time(call: Callable[[], object]) -> None:
    """Make a call that may never return; then its thread is left behind. Raises: what it raises; `KafkaException`."""
    answer: Future[object] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            answer.set_exception(error)

    Thread(target=run, name="call", daemon=True).start()
    try:
        answer.result(REQUEST_SECONDS + _GRACE_SECONDS)
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer from the group's coordinator")) from None
