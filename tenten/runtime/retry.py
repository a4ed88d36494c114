"""Wait for what passes by itself: a broker or a database that is away, a lock, a full disk.

As long as it lasts, and said once.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Event
from typing import Final, TypeVar

from confluent_kafka import KafkaError
from structlog import get_logger

from tenten.runtime.errors import Contended, is_transient

log = get_logger(__name__)

_PAUSE_SECONDS_MIN: Final = 0.05
_PAUSE_SECONDS_MAX: Final = 5.0

T = TypeVar("T")


class Stopped(Exception):
    """The process is to end before this is done."""


class Patience:
    """Survives failures that waiting mends, with pauses that grow up to five seconds and end when `stop` is set."""

    def __init__(self, process: str, channel: str, stop: Event) -> None:
        self._process = process
        self._channel = channel
        self._stop = stop
        self._failures = 0
        self._said = False

    @contextmanager
    def surviving(self) -> Generator[None]:
        """Do something that may fail for a while; whoever comes out of here tries again. Anything else is raised."""
        try:
            yield
        except Exception as error:
            if not is_transient(error):
                raise
            if not self._said and not isinstance(error, Contended):
                self._said = True
                log.warning(
                    "waiting",
                    process=self._process,
                    channel=self._channel,
                    error=type(error).__name__,
                    code=_code(error),
                )
            self.pause()

    def persist(self, action: Callable[[], T]) -> T:
        """What the action gives, tried until it succeeds. Raises: `Stopped` when `stop` is set before that."""
        while not self._stop.is_set():
            with self.surviving():
                result = action()
                self.succeeded()
                return result
        raise Stopped

    def pause(self) -> None:
        """Wait a little, longer each time."""
        self._stop.wait(min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS_MIN * 2.0 ** min(self._failures, 10)))
        self._failures += 1

    def succeeded(self) -> None:
        """It works (again)."""
        if self._said:
            log.info("going_on", process=self._process, channel=self._channel)
        self._said = False
        self._failures = 0


def _code(error: BaseException) -> str:
    """The error's code without its text, which may hold personal data."""
    inner = error.args[0] if error.args else None
    if isinstance(inner, KafkaError):
        return str(inner.name())
    database = getattr(error, "orig", error)
    return str(getattr(database, "sqlstate", None) or getattr(database, "sqlite_errorname", None) or "")
