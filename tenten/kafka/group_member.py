"""A consumer group's member that reads nothing before its session says from where, and that replaces a lost client.

librdkafka may ask a coordinator that it does not know any more, without end (its issues 5511 and 5456). So a client
whose membership has ended, or that has no answer of its group for long, is replaced by a new one.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from structlog import get_logger

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.transactional_producer import TRANSACTION_SECONDS
from tenten.runtime.counting import forget
from tenten.runtime.deadline import CallsWithDeadline

log = get_logger(__name__)

JOIN_SECONDS_MAX: Final = 30.0
"""A member that has no answer of its group for this time joins with a new client."""

_COOPERATIVE: Final = "cooperative-sticky"


class GroupMember:
    """Joins when created. `on_assigned` and `on_revoked` are called with partitions, while the consumer is polled.

    Assigned partitions are paused. `group_metadata` is that of the latest assignment.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        configuration: Mapping[str, Any],
        on_assigned: Callable[[set[int]], None],
        on_revoked: Callable[[set[int]], None],
    ) -> None:
        self._name = name
        self._topic = topic
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._configuration = {
            # After this time a dead member's partitions are reassigned.
            "session.timeout.ms": TRANSACTION_SECONDS * 1000,
            # Members learn of a rebalance by a heartbeat, and one that moves partitions takes two rounds.
            "heartbeat.interval.ms": 500,
            # A rebalance interrupts only the partitions that move.
            "partition.assignment.strategy": _COOPERATIVE,
            # An offset that the topic does not have is an error: nothing is skipped or repeated silently.
            "auto.offset.reset": "error",
            **configuration,
        }
        self._is_cooperative = (
            self._configuration["partition.assignment.strategy"] == _COOPERATIVE
            or self._configuration.get("group.protocol") == "consumer"
        )
        self._lost = Event()
        self._closing = CallsWithDeadline("close-consumer")
        self.group_metadata: object = None
        self.join()

    def join(self) -> None:
        """Join the group with a new client."""
        self._joining_since: float | None = time.monotonic()
        self._lost.clear()
        self.consumer = Consumer(self._configuration)
        self.consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._membership_lost
        )

    def leave(self) -> None:
        """Leave the group. A client that does not answer is left behind: its group notices."""
        with suppress(TimeoutError):
            self._closing.call(self.consumer.close, REQUEST_SECONDS)
        self._closing.close()

    @property
    def is_lost(self) -> bool:
        """Whether the group has ended this membership, or has not answered for long: it must join again."""
        is_stuck = self._joining_since is not None and time.monotonic() - self._joining_since > JOIN_SECONDS_MAX
        return is_stuck or self._lost.is_set()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joining_since = None
        self.group_metadata = consumer.consumer_group_metadata()
        # Paused at any offset, until the session has decided.
        paused = [TopicPartition(self._topic, assigned.partition, OFFSET_BEGINNING) for assigned in partitions]
        if self._is_cooperative:
            consumer.incremental_assign(paused)
        else:
            consumer.assign(paused)
        consumer.pause(paused)
        self._on_assigned(_numbers(partitions))
        log.info("partitions_assigned", session=self._name, partitions=sorted(_numbers(partitions)))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # A client that was left behind may end later.
        if consumer is self.consumer:
            self._on_revoked(_numbers(partitions))
            log.info("partitions_revoked", session=self._name, partitions=sorted(_numbers(partitions)))

    def _membership_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._revoked(consumer, partitions)
        if consumer is self.consumer:
            forget("tenten_assigned_partitions")
            self._lost.set()


def _numbers(partitions: list[TopicPartition]) -> set[int]:
    return {partition.partition for partition in partitions}
