"""A resync in a thread of its own, while the loop of the channel settles replies."""

from threading import Condition, Event, Thread
from time import monotonic
from typing import Final

from structlog import get_logger

from tenten.consumers.channel.distribution.resync import resync
from tenten.runtime.settings import Settings

log = get_logger(__name__)

_PROGRESS_SECONDS: Final = 5.0
"""The time between two log events of progress."""


class BackgroundResync:
    """Resyncs a channel; `ended` is notified when it has ended."""

    def __init__(self, settings: Settings, channel_name: str, ended: Condition) -> None:
        self._settings = settings
        self._channel_name = channel_name
        self._ended = ended
        self._stop = Event()
        self._failure: Exception | None = None
        self._thread = Thread(target=self._run, name="resync", daemon=True)
        self._logged_at = 0.0
        self._thread.start()

    def has_ended(self) -> bool:
        """Whether it has ended, well or not. Does not block."""
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raises: the errors of `resync`, once it has ended."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop it, and wait for its end. Idempotent."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            resync(self._settings, self._channel_name, self._log_progress, self._stop)
        except Exception as failure:  # noqa: BLE001 - `check` raises it
            self._failure = failure
        with self._ended:
            self._ended.notify_all()

    def _log_progress(self, done: int, total: int) -> None:
        if monotonic() - self._logged_at >= _PROGRESS_SECONDS:
            self._logged_at = monotonic()
            log.info("resyncing", channel=self._channel_name, done=done, total=total)
