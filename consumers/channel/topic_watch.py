"""A background check of the topics that a channel reads: their ids, numbers of partitions, and last stable offsets.

A consumer does not notice that its topic was deleted and created again, and is notified of an end only once. A channel
that has kept customers which `customers` may lack also waits for headquarters to declare that topic complete.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

from tenten.consumers.channel.positions import TopicRead
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.topics_admin import TopicInfo, topic_exists, topic_ids
from tenten.runtime.error_codes import is_transient
from tenten.runtime.settings import Settings

WATCH_SECONDS: Final = 60.0
"""The time between two checks, on average: stores that were started together do not ask together."""


class TopicWatch:
    """Checks topics about once a minute in a thread of its own. Use it as a context manager.

    `missing` are names of topics that do not exist yet; `with_offsets` is the topic whose last stable offsets are read;
    `awaited` is asked at each check, too, and counts as a change when it returns True.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[TopicRead],
        *,
        missing: Sequence[str] = (),
        with_offsets: TopicRead | None = None,
        awaited: Callable[[], bool] | None = None,
    ) -> None:
        self._settings = settings
        self._expected = {
            topic.name: TopicInfo(topic_id=topic.topic_id, partitions=topic.partitions) for topic in topics
        }
        self._missing = missing
        self._with_offsets = with_offsets
        self._awaited = awaited
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

    def topics_changed(self) -> bool:
        """Whether the id or number of partitions of a topic has changed, a missing one exists, or what is awaited has
        happened. Does not block.

        Raises: the error of the last check, unless waiting may fix it; there are no further checks after it.
        """
        if self._failure is not None:
            raise self._failure
        return self._changed

    def take_stable_offsets(self) -> Mapping[int, int]:
        """The last stable offsets of the last check; empty when they have been taken already. Does not block."""
        taken, self._stable_offsets = self._stable_offsets, {}
        return taken

    def _run(self) -> None:
        while not self._changed and self._failure is None and not self._ended.wait(_pause_seconds()):
            try:
                self._check()
            except Exception as failure:  # noqa: BLE001 - the thread that uses the topics raises it
                if not is_transient(failure):
                    self._failure = failure

    def _check(self) -> None:
        found = topic_ids(self._settings, self._expected) if self._expected else {}
        self._changed = (
            found != self._expected
            or any(topic_exists(self._settings, name) for name in self._missing)
            or (self._awaited is not None and self._awaited())
        )
        if self._with_offsets is not None:
            topic = self._with_offsets
            self._stable_offsets = last_stable_offsets(self._settings, topic.name, topic.partitions)


def _pause_seconds() -> float:
    return WATCH_SECONDS * random.uniform(0.8, 1.2)
