"""Retries: which errors, how long, and what is logged."""

import sqlite3
from collections.abc import Iterator
from threading import Event

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tenten.runtime.errors import WriteConflict
from tenten.runtime.retry import Retry, Stopped


class NoPause(Event):
    """A `stop` that records the pauses instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Record the pause."""
        self.pauses.append(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def stop() -> NoPause:
    """The event of the process."""
    return NoPause()


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    """The events that are logged."""
    with capture_logs() as events:
        yield events


def _busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_BUSY, "SQLITE_BUSY"
    return error


def _fail(times: int, error: Exception) -> "Iterator[Exception | None]":
    yield from [error] * times
    yield None


def _action(outcomes: "Iterator[Exception | None]") -> str:
    error = next(outcomes)
    if error is not None:
        raise error
    return "done"


def test_transient_failures_are_retried_and_logged_once(stop: NoPause, logged: list[EventDict]) -> None:
    """An outage has one event at its start and one at its end; the pauses double up to 5 s."""
    # given
    outcomes = _fail(9, _busy())
    retry = Retry("relay", "houston", stop)

    # when
    result = retry.run_until_success(lambda: _action(outcomes))

    # then
    assert result == "done"
    assert stop.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    who = {"process": "relay", "channel": "houston"}
    assert logged == [
        {"event": "retry_started", "log_level": "warning", "error": "OperationalError", "code": "SQLITE_BUSY", **who},
        {"event": "retry_recovered", "log_level": "info", **who},
    ]


def test_other_errors_are_raised(stop: NoPause, logged: list[EventDict]) -> None:
    """An error that waiting cannot fix is neither retried nor logged."""
    with pytest.raises(ValueError, match="wrong"):
        Retry("relay", "houston", stop).run_until_success(lambda: _action(_fail(1, ValueError("wrong"))))
    assert (stop.pauses, logged) == ([], [])


def test_write_conflicts_are_retried_without_a_log_event(stop: NoPause, logged: list[EventDict]) -> None:
    """Concurrent workers are not an outage."""
    # given
    outcomes = _fail(2, WriteConflict("another worker writes this customer"))

    # when
    Retry("headquarters", "headquarters", stop).run_until_success(lambda: _action(outcomes))

    # then
    assert stop.pauses == [0.05, 0.1]
    assert logged == []


def test_stop_ends_the_retries(stop: NoPause) -> None:
    """A process that is asked to stop does not wait for an outage to end."""
    # given
    stop.set()

    # then
    with pytest.raises(Stopped):
        Retry("relay", "houston", stop).run_until_success(lambda: _action(_fail(1, _busy())))


def test_pauses_start_over_after_a_recovery(stop: NoPause) -> None:
    """The next outage is retried as quickly as the first."""
    # given
    retry = Retry("relay", "houston", stop)

    # when
    for outcomes in (_fail(3, _busy()), _fail(2, _busy())):
        retry.run_until_success(lambda outcomes=outcomes: _action(outcomes))  # type: ignore[misc]  # binds the loop's value

    # then
    assert stop.pauses == [0.05, 0.1, 0.2, 0.05, 0.1]


def test_pauses_grow_while_the_work_is_not_stable(stop: NoPause, logged: list[EventDict]) -> None:
    """Work that fails again right after a recovery is not hammered, and each outage is logged."""
    # given
    retry = Retry("relay", "houston", stop, stable_seconds=60)

    # when
    for _ in range(3):
        with retry.retrying():
            _action(_fail(1, _busy()))
        retry.recovered()

    # then
    assert stop.pauses == [0.05, 0.1, 0.2]
    assert [event["event"] for event in logged] == ["retry_started", "retry_recovered"] * 3


def test_caller_decides_and_logs(stop: NoPause, logged: list[EventDict]) -> None:
    """A process with its own errors and log events replaces the default ones."""
    # given
    noted: list[str] = []
    outcomes = _fail(2, KeyError("later"))
    retry = Retry(
        "relay",
        "houston",
        stop,
        is_retryable=lambda error: isinstance(error, KeyError),
        log_started=lambda error: noted.append(type(error).__name__),
        log_recovered=lambda: noted.append("recovered"),
    )

    # when
    retry.run_until_success(lambda: _action(outcomes))

    # then
    assert noted == ["KeyError", "recovered"]
    assert logged == []
