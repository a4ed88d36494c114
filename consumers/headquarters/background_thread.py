"""A thread that runs in parallel with the main loop of a process and stops the process when it fails."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Self

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.runtime.retry import Retry
from tenten.schemas.messages import HEADQUARTERS


class BackgroundThread:
    """Repeats its work until `stop` is set, through transient failures. Use it as a context manager.

    Any other failure sets `stop` and is raised by `check`.
    """

    def __init__(self, name: str, stop: Event, work: Callable[[Retry, Event], None]) -> None:
        self._name = name
        self._stop = stop
        self._work = work
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(REQUEST_SECONDS * 2)

    def check(self) -> None:
        """Raises: the failure of the thread, if any."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        retry = Retry(self._name, HEADQUARTERS, self._stop)
        try:
            while not self._stop.is_set():
                with retry.retrying():
                    self._work(retry, self._stop)
        except BaseException as error:  # noqa: BLE001 - raised again by `check`, in the main thread
            self._failure = error
            self._stop.set()
