"""A background check of a topic: its id, its number of partitions, and its last stable offsets.

A consumer does not notice that its topic was deleted and created again, and is notified of an end only once.
"""

import random
from collections.abc import Mapping
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

from tenten.consumers.channel.positions import TopicRead
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.runtime.settings import Settings

WATCH_SECONDS: Final = 60.0
"""The time between two checks, on average: stores that were started together do not ask together."""


class TopicWatch:
    """Checks a topic every few seconds in a thread of its own. Use it as a context manager."""

    def __init__(self, settings: Settings, topic: TopicRead) -> None:
        self._settings = settings
        self._topic = topic
        self._ended = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)
        self._failure: Exception | None = None
        self._changed = False
        self._stable_offsets: Mapping[int, int] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def topic_changed(self) -> bool:
        """Whether the id or the number of partitions of the topic has changed. Does not block.

        Raises: the error of the last check; there are no further checks after it.
        """
        if self._failure is not None:
            raise self._failure
        return self._changed

    def take_stable_offsets(self) -> Mapping[int, int]:
        """The last stable offsets of the last check; empty when they have been taken already. Does not block."""
        taken, self._stable_offsets = self._stable_offsets, {}
        return taken

    def _run(self) -> None:
        expected = TopicInfo(topic_id=self._topic.topic_id, partitions=self._topic.partitions)
        while not self._changed and self._failure is None and not self._ended.wait(_pause_seconds()):
            try:
                self._changed = topic_ids(self._settings, [self._topic.name])[self._topic.name] != expected
                self._stable_offsets = last_stable_offsets(self._settings, self._topic.name, self._topic.partitions)
            except Exception as failure:  # noqa: BLE001 - the reading thread raises it
                self._failure = failure


def _pause_seconds() -> float:
    return WATCH_SECONDS * random.uniform(0.8, 1.2)
