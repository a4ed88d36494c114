"""Reading in a thread of its own, one item ahead of the thread that uses the items."""

from collections.abc import Callable
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class BackgroundReader(Generic[Item]):
    """Calls `read` again and again in a thread, and holds one item until it is taken. Use it as a context manager.

    `read` waits a little for an item, and returns None where there is none; it gets the event that ends the reading.
    It is not called while an item waits. Each item is announced through `arrived`, which several readers may share.
    """

    def __init__(self, name: str, arrived: Condition, read: Callable[[Event], Item | None]) -> None:
        self._arrived = arrived
        self._read = read
        self._item: Item | None = None
        self._failure: Exception | None = None
        self._ended = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the last call of `read`."""
        self.end()
        self._thread.join()

    def end(self) -> None:
        """End reading. Does not wait for the last call of `read`. Idempotent."""
        self._ended.set()
        with self._arrived:
            self._arrived.notify_all()

    def has_arrived(self) -> bool:
        """Whether `take` returns an item, or raises. Does not block."""
        return self._item is not None or self._failure is not None

    def take(self) -> Item | None:
        """The item that waits; None without one. Does not block. Raises: the error of reading."""
        with self._arrived:
            if self._failure is not None:
                raise self._failure
            item, self._item = self._item, None
            if item is not None:
                self._arrived.notify_all()
        return item

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                item = self._read(self._ended)
                if item is not None:
                    self._hand_over(item)
        except Exception as failure:  # noqa: BLE001 - the thread that takes raises it
            with self._arrived:
                self._failure = failure
                self._arrived.notify_all()

    def _hand_over(self, item: Item) -> None:
        with self._arrived:
            self._item = item
            self._arrived.notify_all()
            while self._item is not None and not self._ended.is_set():
                self._arrived.wait()
