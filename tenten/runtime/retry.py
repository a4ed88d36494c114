"""Retry transient failures with exponential back-off, without limit; log once per outage."""

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Event
from typing import Final, TypeVar

from structlog import get_logger

from tenten.runtime.counting import set_gauge
from tenten.runtime.error_codes import error_code, is_full, is_transient
from tenten.runtime.errors import TransactionFailed, WriteConflict

log = get_logger(__name__)

_PAUSE_SECONDS_MIN: Final = 0.05
_PAUSE_SECONDS_MAX: Final = 5.0

FULL_ADVICE: Final = "no space is left on the disk of the database: make room; nothing is lost, the work is retried"

_NOT_AN_OUTAGE: Final = (TransactionFailed, WriteConflict)
"""Retried without `retry_started`: the first is logged where it happens, the second is ordinary concurrency."""

T = TypeVar("T")


class Stopped(Exception):
    """`stop` was set before the work was done."""


class Retry:
    """Retries work with pauses that grow from 50 ms to 5 s and end when `stop` is set.

    `is_retryable` decides which errors are retried; others are raised. `log_started` and `log_recovered` replace the
    log events of an outage. `stable_seconds`: the pauses start over only if the work has succeeded for this long
    after `recovered`.
    """

    def __init__(
        self,
        process: str,
        channel: str,
        stop: Event,
        *,
        is_retryable: Callable[[Exception], bool] = is_transient,
        log_started: Callable[[Exception], None] | None = None,
        log_recovered: Callable[[], None] | None = None,
        stable_seconds: float = 0.0,
    ) -> None:
        self._process = process
        self._channel = channel
        self._stop = stop
        self._is_retryable = is_retryable
        self._log_started = log_started or self._log_retry_started
        self._log_recovered = log_recovered or self._log_retry_recovered
        self._stable_seconds = stable_seconds
        self._failures = 0
        self._is_outage_logged = False
        self._recovered_at = math.inf

    @contextmanager
    def retrying(self) -> Generator[None]:
        """Swallow a retryable error of the body after a pause, so that the caller's loop runs the body again.

        Raises: every other error.
        """
        try:
            yield
        except Exception as error:
            if not self._is_retryable(error):
                raise
            if not self._is_outage_logged and not isinstance(error, _NOT_AN_OUTAGE):
                self._is_outage_logged = True
                set_gauge("tenten_retrying", 1, self._process)
                self._log_started(error)
            self.pause()

    def run_until_success(self, action: Callable[[], T]) -> T:
        """Return the action's result, retrying it. Raises: `Stopped`; every error that is not retryable."""
        while not self._stop.is_set():
            with self.retrying():
                result = action()
                self.recovered()
                return result
        raise Stopped

    def pause(self) -> None:
        """Wait, longer each time."""
        if time.monotonic() - self._recovered_at >= self._stable_seconds:
            self._failures = 0
        self._recovered_at = math.inf
        self._stop.wait(min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS_MIN * 2.0 ** min(self._failures, 10)))
        self._failures += 1

    def recovered(self) -> None:
        """Note that the work succeeds; ends a logged outage."""
        if self._is_outage_logged:
            self._log_recovered()
            set_gauge("tenten_retrying", 0, self._process)
        self._is_outage_logged = False
        # A failure afterwards counts the time from the first success.
        self._recovered_at = min(self._recovered_at, time.monotonic())

    def _log_retry_started(self, error: Exception) -> None:
        if is_full(error):
            log.warning(
                "disk_full",
                process=self._process,
                channel=self._channel,
                code=error_code(error),
                advice=FULL_ADVICE,
            )
            return
        log.warning(
            "retry_started",
            process=self._process,
            channel=self._channel,
            error=type(error).__name__,
            code=error_code(error),
        )

    def _log_retry_recovered(self) -> None:
        log.info("retry_recovered", process=self._process, channel=self._channel)
