"""Code under test in threads, whose errors are raised or returned in the test's own thread."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Final

_DEADLINE_SECONDS: Final = 180.0


class Worker:
    """A function that runs in a thread until the event that it is given is set."""

    def __init__(self, run: Callable[[Event], object]) -> None:
        self.failure: BaseException | None = None
        self._stop = Event()
        self._thread = Thread(target=self._run, args=(run,), name="worker")
        self._thread.start()

    def _run(self, run: Callable[[Event], object]) -> None:
        try:
            run(self._stop)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self.failure = error

    def stop(self) -> None:
        """Stop the worker and wait for its end."""
        self._stop.set()
        self._thread.join(_DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the worker does not stop"

    def ended(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise its failure, if it has failed."""
        if self.failure is not None:
            raise self.failure

    def dies(self) -> BaseException:
        """Wait for the worker to fail and return its failure."""
        self._thread.join(_DEADLINE_SECONDS)
        failure, self.failure = self.failure, None
        assert failure is not None, "the worker has not failed"
        return failure


def errors_of_threads(count: int, run: Callable[[], object]) -> list[BaseException]:
    """Run a function in this many threads at the same time; the errors that it raised."""
    workers = [Worker(lambda _: run()) for _ in range(count)]
    for worker in workers:
        worker.stop()
    return [worker.failure for worker in workers if worker.failure is not None]
