"""Prefetch: prepare the next item in a thread of its own while the caller uses the current one."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

Source = TypeVar("Source")
Item = TypeVar("Item")


class Prefetcher(Generic[Source, Item]):
    """Prepares items from sources; only one at a time. Use it as a context manager; one thread at a time."""

    def __init__(self, prepare: Callable[[Source], Item]) -> None:
        self._prepare = prepare
        self._started: tuple[Source, Future[Item]] | None = None

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, "prefetch")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def get(self, source: Source, following: Source | None) -> Item:
        """Return the item of this source, prepared already if it was the previous call's `following`; start preparing
        `following`.

        Raises: what preparing the item raises.
        """
        started, self._started = self._started, None
        prefetched = started is not None and started[0] is source
        item = started[1].result() if started is not None and prefetched else self._prepare(source)
        if following is not None:
            self._started = (following, self._thread.submit(self._prepare, following))
        return item


def prefetched(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items in the same order; the next one is computed while the caller uses the current one.

    `items` needs no lock: it is used by one thread at a time. Its errors are raised here, in their place.
    """
    with Prefetcher[object, Item | None](lambda _: next(items, None)) as prefetcher:
        turn = object()
        while True:
            following = object()
            item = prefetcher.get(turn, following)
            if item is None:
                return
            yield item
            turn = following
