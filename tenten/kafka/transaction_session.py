"""The exactly-once loop of a consumer group: batches in, outputs and offsets out in one Kafka transaction.

Aborts, rewinding, fencing and rebalances are handled here and in `transactional_producer.py`. A process uses a session
like this::

    for batch in session.batches():
        with session.attempt(batch):        # after a transient error: rewind, pause, the same batch again
            ...                             # one SQL transaction
            with session.transaction(batch) as out:
                out.send(topic, key, value)

Its correctness relies on (see docs/decisions/0003-exactly-once-session.md):

- The group metadata is captured when partitions are assigned and kept with each batch. The broker checks the group's
  generation, not the owner of a partition: metadata fetched just before sending would let a worker commit offsets of
  partitions that it has lost.
- Rebalances are noticed only while polling; records collected before one are dropped and read again.
- Committed offsets are requested only after the broker has decided the previous transaction.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)
from structlog import get_logger

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import refusal_of
from tenten.kafka.records import record_position
from tenten.kafka.transactional_producer import TRANSACTION_SECONDS, Outputs, TransactionalProducer
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry
from tenten.schemas.messages import HEADQUARTERS

log = get_logger(__name__)

POLL_SECONDS: Final = 0.2
"""How long an idle poll waits: the longest delay of SIGTERM on a quiet topic."""

BATCHES_TOGETHER: Final = 4
"""How many batches are read together from a backlog; meanwhile no rebalance is noticed."""

SLOW_SECONDS: Final = 5.0
"""An attempt that fails after a longer time is repeated with half as many records: they may not fit into the time that
the database and the broker allow."""

CONSUME_RECORDS: Final = 1_000
"""How many records are consumed per call while a batch fills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """The size limits of a batch. Time has no limit: a batch consists of the records already fetched."""

    records_max: int = 10_000
    bytes_max: int = 32 * 1024 * 1024
    """Of all batches that are read together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one topic as they were delivered, ordered within each partition."""

    messages: list[Message]
    starts: dict[int, int]
    """By assigned partition: where reading continued, at a committed offset or the end of the batch before. The first
    record may come later, after control markers."""
    next_offsets: dict[int, int]
    """By partition: one past the last record of the batch."""
    topic: str
    group_metadata: object
    """Captured when these partitions were assigned."""
    following: "Batch | None" = None
    """The batch read together with this one, which is next if this one succeeds; it may be decoded already."""


class TransactionSession:
    """A member of a consumer group with a transactional producer. Use it as a context manager.

    `transactional_id` is called whenever a new producer is created; it must return the id of a reserved slot.
    `on_assigned` receives the assigned partitions with the committed offset of each (None: no commit). It runs outside
    the client's callbacks, may block, and may raise to stop.
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
        self._on_assigned = on_assigned
        self._limits = limits
        self._records_max = limits.records_max
        self._stop = stop
        self._producer = TransactionalProducer(name, producer, transactional_id)
        self._group_metadata: object = None
        self._unchecked: set[int] = set()
        self._continue_at: dict[int, int] = {}
        """By assigned partition: the end of what has been processed."""
        self._rebalanced = False
        self._rewind: set[int] = set()
        self._retry = Retry(name, HEADQUARTERS, stop)

    def __enter__(self) -> "TransactionSession":
        self._consumer = Consumer(
            {
                # After this time a dead member's partitions are reassigned.
                "session.timeout.ms": TRANSACTION_SECONDS * 1000,
                # Members learn of a rebalance by a heartbeat, and one that moves partitions takes two rounds.
                "heartbeat.interval.ms": 500,
                # A rebalance interrupts only the partitions that move.
                "partition.assignment.strategy": "cooperative-sticky",
                # A group without offsets starts at the beginning.
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
        self._producer.discard()

    def batches(self) -> Iterator[Batch]:
        """Yield batches until `stop` is set, the oldest records first; after a failed attempt the same ones again.

        Raises: errors of `on_assigned`; `KafkaRefused`; `KafkaException` that is not transient.
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
        """Yield these messages batch by batch while each succeeds."""
        batch = self._batches(messages)
        while batch is not None and not self._stop.is_set():
            failpoint(f"{self._name}.after_poll")
            yield batch
            if self._rewind:
                # The batch is read again, and so are the records after it.
                self._rewind |= {record_position(message)[0] for message in messages}
                return
            self._continue_at.update(batch.next_offsets)
            batch = batch.following

    @contextmanager
    def attempt(self, batch: Batch) -> Generator[None]:
        """Process a batch in the body: a transient error rewinds and pauses. Raises: every other error.

        After a slow failure the next batches are smaller; each success doubles them, up to the limit.
        """
        began = time.monotonic()
        with self._retrying():
            try:
                yield
            except BaseException:
                self._rewind |= batch.next_offsets.keys()
                if time.monotonic() - began > SLOW_SECONDS and len(batch.messages) > 1:
                    self._records_max = len(batch.messages) // 2
                    log.warning("batch_halved", session=self._name, records_max=self._records_max)
                raise
            self._records_max = min(2 * self._records_max, self._limits.records_max)
            self._retry.recovered()

    @contextmanager
    def transaction(self, batch: Batch) -> Generator[Outputs]:
        """One Kafka transaction: the records that the body sends, and the batch's offsets. Commits after the body.

        Raises: `TransactionFailed` after aborting, which the surrounding `attempt` retries; `KafkaRefused`.
        """
        with self._producer.transaction(batch.topic, batch.next_offsets, batch.group_metadata) as outputs:
            yield outputs

    def _recover(self) -> None:
        """After a failure: let the broker decide the last transaction, then seek to the committed offsets."""
        self._producer.ready()
        if not self._rewind:
            return
        assigned = {partition.partition for partition in self._consumer.assignment()}
        mine = [TopicPartition(self._topic, partition) for partition in self._rewind & assigned]
        for partition in self._consumer.committed(mine, timeout=REQUEST_SECONDS) if mine else []:
            self._continue_at[partition.partition] = max(partition.offset, 0)
            if partition.offset == OFFSET_INVALID:
                partition.offset = OFFSET_BEGINNING
            self._consumer.seek(partition)
        self._rewind.clear()

    def _collect(self) -> list[Message]:
        """Collect fetched records, at most a few batches; waits only for the first. Empty after a rebalance."""
        self._rebalanced = False
        first = self._consumer.poll(POLL_SECONDS)
        if first is None:
            return []
        messages = [first]
        size = len(first)
        records_max = BATCHES_TOGETHER * self._records_max
        while len(messages) < records_max and size < self._limits.bytes_max:
            more = self._consumer.consume(min(CONSUME_RECORDS, records_max - len(messages)), timeout=0)
            messages.extend(more)
            size += sum(map(len, more))
            if not more:
                break
        for message in messages:
            if message.error() is not None:
                self._rewind |= {record_position(good)[0] for good in messages if good.error() is None}
                raise KafkaException(message.error())
        if self._rebalanced:
            self._rewind |= {record_position(message)[0] for message in messages}
            return []
        return messages

    def _batches(self, messages: list[Message]) -> Batch | None:
        """The messages as batches, of which the first is returned and each names the following one."""
        lots = [messages[at : at + self._records_max] for at in range(0, len(messages), self._records_max)]
        next_offsets = [dict(record_position(message) for message in lot) for lot in lots]
        continue_at = dict(self._continue_at)
        starts = []
        for reached in next_offsets:
            reached.update((partition, offset + 1) for partition, offset in reached.items())
            starts.append(dict(continue_at))
            continue_at.update(reached)
        batch: Batch | None = None
        for lot, start, reached in zip(reversed(lots), reversed(starts), reversed(next_offsets), strict=True):
            batch = Batch(
                messages=lot,
                starts=start,
                next_offsets=reached,
                topic=self._topic,
                group_metadata=self._group_metadata,
                following=batch,
            )
        return batch

    def _check_assigned(self) -> None:
        """Call `on_assigned` for the partitions of the last rebalance."""
        if not self._unchecked:
            return
        assigned = [TopicPartition(self._topic, partition) for partition in sorted(self._unchecked)]
        committed = self._consumer.committed(assigned, timeout=REQUEST_SECONDS)
        self._on_assigned(
            {partition.partition: None if partition.offset < 0 else partition.offset for partition in committed}
        )
        self._continue_at.update((partition.partition, max(partition.offset, 0)) for partition in committed)
        self._unchecked.clear()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        self._group_metadata = consumer.consumer_group_metadata()
        self._unchecked |= {partition.partition for partition in partitions}
        log.info("partitions_assigned", session=self._name, partitions=sorted(p.partition for p in partitions))

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        failpoint(f"{self._name}.in_on_revoke")
        self._rebalanced = True
        for partition in partitions:
            self._unchecked.discard(partition.partition)
            self._continue_at.pop(partition.partition, None)
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
