"""Which states are late, by the limits of the settings, each with the sentence that names the remedy."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from tenten.runtime.settings import Alarms
from tenten.sql.channel_settings import KEY_NOT_ACCEPTED, SUSPENDED, suspended_text
from tenten.sql.channel_state import DUPLICATE_NUMBER
from tenten.status.heartbeats import HEARTBEAT_REFUSED
from tenten.status.values import Problem

NOT_IN_SETTINGS: Final = "not_in_settings"
"""The code of the problem that headquarters hears from a channel that it does not have."""

CODES_OF_RUNNING: Final = frozenset(
    {
        "not_heard_from",
        "not_running",
        "unsent_too_long",
        "unsettled_too_long",
        "incomplete_too_long",
        "blocked_too_long",
        "held_too_long",
        DUPLICATE_NUMBER,
        KEY_NOT_ACCEPTED,
        SUSPENDED,
        NOT_IN_SETTINGS,
        HEARTBEAT_REFUSED,
    }
)
"""The codes of problems that this module finds, of a channel that shares account numbers or has another key, and of
heartbeats that it has not written.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How long ago, in seconds, the states of a channel began; None if there is no such state, or it is not known."""

    heard: float | None = None
    """The last heartbeat."""
    unsent: float | None = None
    """The oldest change that has not been sent."""
    unsettled: float | None = None
    """The oldest change that headquarters has neither settled nor rejected."""
    complete: float | None = None
    """When the channel was last known to have read everything."""


def channel_problems(
    limits: Alarms, channel: str, ages: Ages, *, is_expected: bool, suspended: str | None = None
) -> list[Problem]:
    """What is wrong with a channel. `is_expected`: it should run, so its silence is a problem. `suspended`: why
    headquarters has suspended it; then it does not count that its changes are late.
    """
    found = list(_late(limits, channel, ages if suspended is None else replace(ages, unsent=None, unsettled=None)))
    if suspended is not None:
        found.insert(0, Problem(about=(channel,), code=SUSPENDED, text=suspended_text(channel, suspended)))
    if is_expected and (ages.heard is None or ages.heard > limits.silent_seconds_max):
        since = "never been heard from" if ages.heard is None else f"not been heard from for {_duration(ages.heard)}"
        text = (
            f"{channel} has {since}: start it where its database is (`tenten channel run {channel}`), and check the "
            "connection there (`tenten doctor`)"
        )
        found.insert(0, Problem(about=(channel,), code="not_heard_from", text=text))
    return found


def _late(limits: Alarms, channel: str, ages: Ages) -> Iterator[Problem]:
    if ages.unsent is not None and ages.unsent > limits.unsent_seconds_max:
        text = (
            f"{channel} has a change that has not been sent for {_duration(ages.unsent)}: its relay does not run, or "
            f"has no connection; start `tenten channel run {channel}`, or run `tenten doctor` there"
        )
        yield Problem(about=(channel,), code="unsent_too_long", text=text)
    elif ages.unsettled is not None and ages.unsettled > limits.unsettled_seconds_max:
        text = (
            f"{channel} has a change that headquarters has neither settled nor rejected for "
            f"{_duration(ages.unsettled)}: check whether headquarters keeps up (`tenten lag`), and whether "
            f"`tenten headquarters run` and "
            f"`tenten channel run {channel}` are running"
        )
        yield Problem(about=(channel,), code="unsettled_too_long", text=text)
    if ages.complete is not None and ages.complete > limits.incomplete_seconds_max:
        text = (
            f"{channel} was last known to have every customer {_duration(ages.complete)} ago: check "
            f"`tenten channel run {channel}` and its log, and run `tenten doctor` there"
        )
        yield Problem(about=(channel,), code="incomplete_too_long", text=text)


def unknown_channel(limits: Alarms, channel: str, ages: Ages) -> Problem | None:
    """The problem that a channel which headquarters does not have is running."""
    if ages.heard is None or ages.heard > limits.silent_seconds_max:
        return None
    text = (
        f"{channel} is running, but headquarters does not have this channel: `tenten settings apply FILE` adds it; "
        "otherwise stop the store"
    )
    return Problem(about=(channel,), code=NOT_IN_SETTINGS, text=text)


def missing_worker(worker: str, command: str) -> Problem:
    """The problem that no process of a worker of headquarters runs."""
    text = (
        f"no process of the {worker} worker of headquarters is running: start `tenten {command}`, or `tenten up`, "
        "and look at its log if it ends"
    )
    return Problem(about=("headquarters",), code="not_running", text=text)


def blocked_statement(channel: str, date: str, seconds: float) -> Problem:
    """The problem that a statement has been blocked for too long."""
    text = (
        f"the statement of {channel} for {date} has been blocked for {_duration(seconds)}: "
        f"`tenten statement show {channel} {date}` shows what has to be corrected"
    )
    return Problem(about=("headquarters",), code="blocked_too_long", text=text)


def held_changes(channel: str, changes: int, seconds: float) -> Problem:
    """The problem that headquarters has held changes of a channel for too long."""
    some = f"a change of {channel} has" if changes == 1 else f"{changes:,} changes of {channel} have"
    text = (
        f"{some} been held for {_duration(seconds)}: `tenten headquarters held list --channel {channel}` shows what "
        "each waits for"
    )
    return Problem(about=("headquarters",), code="held_too_long", text=text)


def _duration(seconds: float) -> str:
    """The time in the largest unit of which it has two.

    >>> _duration(100), _duration(1_700), _duration(9_000), _duration(500_000)
    ('100 s', '28 minutes', '2 hours', '5 days')
    """
    for unit, unit_seconds in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * unit_seconds:
            return f"{int(seconds // unit_seconds)} {unit}"
    return f"{seconds:.0f} s"
