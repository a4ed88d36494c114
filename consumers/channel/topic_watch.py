"""An eye on the topic itself, beside the reading: whether it still is the same one, and where it ends.

A consumer does not notice that its topic was deleted and made again, and hears of an end once only.
"""

from collections.abc import Mapping
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

from tenten.consumers.channel.positions import TopicRead
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.runtime.settings import Settings

WATCH_SECONDS: Final = 15.0
"""How often the topic is looked at."""


class Watch:
    """Looks at a topic every few seconds in a thread of its own. Use it as a context manager."""

    def __init__(self, settings: Settings, topic: TopicRead) -> None:
        self._settings = settings
        self._topic = topic
        self._ended = Event()
        self._thread = Thread(target=self._look, name="watch", daemon=True)
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
        """Whether the topic is another one now, or has another number of partitions.

        Raises: what the last look raised, once; there is no further one then.
        """
        if self._failure is not None:
            raise self._failure
        return self._changed

    def stable_offsets(self) -> Mapping[int, int]:
        """The last stable offsets as last seen, given once each time."""
        seen, self._stable_offsets = self._stable_offsets, {}
        return seen

    def _look(self) -> None:
        expected = TopicInfo(topic_id=self._topic.topic_id, partitions=self._topic.partitions)
        while not self._changed and self._failure is None and not self._ended.wait(WATCH_SECONDS):
            try:
                self._changed = topic_ids(self._settings, [self._topic.name])[self._topic.name] != expected
                self._stable_offsets = last_stable_offsets(self._settings, self._topic.name, self._topic.partitions)
            except Exception as failure:  # noqa: BLE001 - it is raised where the reading goes on
                self._failure = failure
