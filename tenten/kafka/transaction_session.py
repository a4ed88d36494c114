"""The exactly-once loop of a consumer group: batches in, outputs and offsets out in one Kafka transaction.

Aborts, rewinding, fencing and rebalances are handled here and in `transactional_producer.py`. A process uses a session
like this::

    for batch in session.batches():
        with session.attempt(batch):        # after a transient error: rewind, pause, the same batch again
            ...                             # one SQL transaction
            with session.transaction(batch) as out:
                out.send(topic, key, value)

A batch without outputs needs no Kafka transaction: `session.commit_later(batch)` in its place.

Its correctness relies on (see docs/decisions/0003-exactly-once-session.md):

- The group metadata is captured when partitions are assigned and kept with each batch. The broker checks the group's
  generation, not the owner of a partition: metadata fetched just before sending would let a worker commit offsets of
  partitions that it has lost.
- Rebalances are noticed only while polling; records collected before one are dropped and read again.
- Committed offsets are requested only after the broker has decided the previous transaction.
- The client never chooses where reading begins: partitions are paused until `on_assigned` has decided it.
- A member that has lost its membership joins again with a new client (`group_member.py`).
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any, Final

from confluent_kafka import (
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from structlog import get_logger

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import refusal_of
from tenten.kafka.client_waits import wake
from tenten.kafka.group_member import GroupMember
from tenten.kafka.records import record_position
from tenten.kafka.transactional_producer import Outputs, TransactionalProducer
from tenten.runtime.counting import count, observe, set_gauge
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

_POSITION_LOST: Final = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
"""Errors of a topic that does not have the position: it was recreated, or its records have expired or were lost."""

COMMIT_LATER_SECONDS: Final = 1.0
"""How long the offsets of batches without outputs are not committed at most, while records arrive."""

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
    `on_assigned` receives partitions with the committed offset of each (None: no commit) and returns where reading of
    each begins. It is called after an assignment and after a failure, outside the client's callbacks; it may
    block, and may raise to stop. `linger_seconds`: a batch that is not full waits this long for more records.
    """

    def __init__(
        self,
        *,
        name: str,
        topic: str,
        consumer: Mapping[str, Any],
        producer: Mapping[str, Any],
        transactional_id: Callable[[], str],
        on_assigned: Callable[[dict[int, int | None]], Mapping[int, int]],
        limits: BatchLimits,
        stop: Event,
        linger_seconds: float = 0.0,
    ) -> None:
        self._name = name
        self._topic = topic
        self._consumer_configuration = consumer
        self._on_assigned = on_assigned
        self._limits = limits
        self._linger_seconds = linger_seconds
        self._records_max = limits.records_max
        self._stop = stop
        self._producer = TransactionalProducer(name, producer, transactional_id, topic=topic)
        self._assigned_partitions: set[int] = set()
        self._unchecked: set[int] = set()
        self._continue_at: dict[int, int] = {}
        """By assigned partition: the end of what has been processed."""
        self._uncommitted: dict[int, int] = {}
        """By assigned partition: the end of the batches without outputs since the last commit."""
        self._committed_at = time.monotonic()
        self._rebalanced = False
        self._rewind: set[int] = set()
        self._begin_again = Event()
        self._retry = Retry(name, HEADQUARTERS, stop)

    def __enter__(self) -> "TransactionSession":
        self._member = GroupMember(self._name, self._topic, self._consumer_configuration, self._assigned, self._revoked)
        return self

    def begin_again(self) -> None:
        """Leave the group and join it again before the next batch, for example because the topic was recreated. Any
        thread may call it.
        """
        self._begin_again.set()

    def _rejoin(self) -> None:
        log.warning("group_rejoined", session=self._name)
        self._begin_again.clear()
        self._member.leave()
        self._assigned_partitions.clear()
        self._unchecked.clear()
        self._continue_at.clear()
        self._uncommitted.clear()
        self._rewind.clear()
        self._member.join()

    def __exit__(self, *_: object) -> None:
        self._member.leave()
        self._producer.discard()

    def batches(self) -> Iterator[Batch]:
        """Yield batches until `stop` is set, the oldest records first; after a failed attempt the same ones again.

        Raises: errors of `on_assigned`; `KafkaRefused`; `KafkaException` that is not transient.
        """
        while not self._stop.is_set():
            messages: list[Message] = []
            with self._retrying():
                if self._begin_again.is_set() or self._member.is_lost:
                    self._rejoin()
                self._recover()
                self._check_assigned()
                messages = self._collect()
                if not messages or time.monotonic() - self._committed_at > COMMIT_LATER_SECONDS:
                    self._commit_uncommitted()
            if messages:
                yield from self._in_turn(messages)
        with self._retrying():
            self._commit_uncommitted()

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
            count("tenten_batches_total", 1, self._name)
            count("tenten_batch_records_total", len(batch.messages), self._name)
            observe("tenten_batch_seconds", time.monotonic() - began, self._name)

    @contextmanager
    def transaction(self, batch: Batch) -> Generator[Outputs]:
        """One Kafka transaction: the records that the body sends, and the batch's offsets. Commits after the body.

        Raises: `TransactionFailed` after aborting, which the surrounding `attempt` retries; `KafkaRefused`.
        """
        offsets = {**self._uncommitted, **batch.next_offsets}
        with self._producer.transaction(batch.topic, offsets, batch.group_metadata) as outputs:
            yield outputs
        self._are_committed()

    def commit_later(self, batch: Batch) -> None:
        """Have the offsets of a batch without outputs committed with the next transaction, or in about a second. After
        a crash before that the batch is read again.
        """
        self._uncommitted.update(batch.next_offsets)

    def _commit_uncommitted(self) -> None:
        if self._uncommitted:
            self._producer.commit_offsets(self._topic, self._uncommitted, self._member.group_metadata)
        self._are_committed()

    def _are_committed(self) -> None:
        self._uncommitted.clear()
        self._committed_at = time.monotonic()

    def _recover(self) -> None:
        """After a failure: let the broker decide the last transaction, then read from the committed offsets again."""
        self._producer.ready()
        if self._rewind:
            self._unchecked |= self._rewind & {partition.partition for partition in self._member.consumer.assignment()}
            self._rewind.clear()

    def _collect(self) -> list[Message]:
        """Collect fetched records, at most a few batches; waits for the first, and then lingers. Empty after a
        rebalance.
        """
        self._rebalanced = False
        first = self._member.consumer.poll(POLL_SECONDS)
        if first is None:
            return []
        messages = [first]
        size = len(first)
        records_max = BATCHES_TOGETHER * self._records_max
        linger_seconds = self._linger_seconds
        while len(messages) < records_max and size < self._limits.bytes_max:
            wanted = min(CONSUME_RECORDS, records_max - len(messages))
            more = self._member.consumer.consume(wanted, linger_seconds)
            linger_seconds = 0.0
            messages.extend(more)
            size += sum(map(len, more))
            if not more:
                break
        for message in messages:
            error = message.error()
            if error is not None:
                self._rewind |= {record_position(good)[0] for good in messages if good.error() is None}
                if error.code() not in _POSITION_LOST:
                    raise KafkaException(error)
                self._begin_again.set()
                self._retry.pause()
                return []
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
                group_metadata=self._member.group_metadata,
                following=batch,
            )
        return batch

    def _check_assigned(self) -> None:
        """Read the partitions of the last rebalance, and those of a failed batch, from where `on_assigned` says."""
        if not self._unchecked:
            return
        try:
            self._begin_reading(sorted(self._unchecked))
        except Exception:
            # A rebalance meanwhile has made the group's metadata old; the next attempt needs those that it brings.
            self._stay_a_member()
            raise

    def _begin_reading(self, partitions: list[int]) -> None:
        """Resume these partitions where `on_assigned` says."""
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        answered = self._member.consumer.committed(asked, timeout=REQUEST_SECONDS)
        committed = {found.partition: None if found.offset < 0 else found.offset for found in answered}
        starts = self._on_assigned(committed)
        begin_at = [TopicPartition(self._topic, partition, offset) for partition, offset in starts.items()]
        if not self._seek(begin_at):
            self._begin_again.set()
            self._retry.pause()
            return
        unlike = {number: offset for number, offset in starts.items() if _is_before(offset, committed[number])}
        if unlike:
            # If the worker dies between its commits, the next one must find where this batch began.
            self._producer.commit_offsets(self._topic, unlike, self._member.group_metadata)
        self._member.consumer.resume(begin_at)
        wake(self._member.consumer, self._topic, starts)
        self._continue_at.update(starts)
        for partition in starts:
            # It is read again from before them.
            self._uncommitted.pop(partition, None)
        self._unchecked.clear()

    def _seek(self, begin_at: list[TopicPartition]) -> bool:
        """Whether the client has moved to these positions. It cannot while it does not know the topic, for example
        because that was deleted.
        """
        try:
            for position in begin_at:
                self._member.consumer.seek(position)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise
            return False
        return True

    def _stay_a_member(self) -> None:
        """Poll, since the group evicts a member that does not, and one that it has evicted learns of it, and gets an
        answer, only after a poll. A record of another partition is read again.
        """
        message = self._member.consumer.poll(0)
        if message is not None and message.error() is None:
            self._rewind.add(record_position(message)[0])

    def _assigned(self, partitions: set[int]) -> None:
        self._rebalanced = True
        self._unchecked |= partitions
        self._assigned_partitions |= partitions
        set_gauge("tenten_assigned_partitions", len(self._assigned_partitions))

    def _revoked(self, partitions: set[int]) -> None:
        failpoint(f"{self._name}.in_on_revoke")
        self._rebalanced = True
        self._assigned_partitions -= partitions
        set_gauge("tenten_assigned_partitions", len(self._assigned_partitions))
        for partition in partitions:
            self._unchecked.discard(partition)
            self._continue_at.pop(partition, None)
            self._uncommitted.pop(partition, None)

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


def _is_before(offset: int, committed: int | None) -> bool:
    return committed is None or offset < committed
