"""Make calls that may never return, in a thread of their own that is kept from call to call."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class CallsWithDeadline:
    """Makes one call at a time. After a missed deadline the thread is abandoned, and the next call gets a new one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Callable[[], object], Future[object]] | None] | None = None

    def call(self, function: Callable[[], object], deadline_seconds: float) -> None:
        """Call the function in the thread. Raises: its errors; `TimeoutError` after the deadline."""
        if self._calls is None:
            self._calls = SimpleQueue()
            Thread(target=_run, args=(self._calls,), name=self._name, daemon=True).start()
        answer: Future[object] = Future()
        self._calls.put((function, answer))
        try:
            answer.result(deadline_seconds)
        except TimeoutError:
            if not answer.done():
                self.close()
            raise

    def close(self) -> None:
        """End the thread, as soon as its call has returned. Idempotent."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None


def _run(calls: "SimpleQueue[tuple[Callable[[], object], Future[object]] | None]") -> None:
    while (next_call := calls.get()) is not None:
        function, answer = next_call
        try:
            answer.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised again in the waiting thread
            answer.set_exception(error)
