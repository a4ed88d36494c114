"""Waits of librdkafka that a question to the broker cuts short; each is half a second or a whole one.

What needs a broker that is not connected yet, or a leader that is not known yet, is tried again only after half a
second: the first step of a transactional producer, and finding the beginning of a partition. The thread of a broker of
which every partition is paused sleeps for up to a second, and resuming does not wake it.
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition

_SECONDS_MAX: Final = 1.0
"""No longer than what it saves: a broker that is away is noticed by what follows."""


def wait_for_leaders(client: Consumer | Producer, topics: Iterable[str]) -> None:
    """Wait until the client is connected and knows the leaders of these topics (with prefix), for a second at most.

    Never raises: without an answer the client continues by itself.
    """
    give_up_at = time.monotonic() + _SECONDS_MAX
    asked = sorted(topics)
    with suppress(KafkaException):
        # The first answer may be that of a bootstrap server, whose connection the client then gives up.
        for topic in (*asked[:1], *asked):
            client.list_topics(topic, timeout=max(give_up_at - time.monotonic(), 0.01))


def wake(consumer: Consumer, topic: str, partitions: Iterable[int]) -> None:
    """Have partitions that were resumed read at once. Waits for a second at most. Never raises."""
    asked = [TopicPartition(topic, partition, OFFSET_END) for partition in partitions]
    if asked:
        # For the offset of the end: a request to each leader, which costs the least.
        with suppress(KafkaException):
            consumer.offsets_for_times(asked, timeout=_SECONDS_MAX)
