"""The stores as the overview shows them: what each reports and headquarters knows of it, the worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

from tenten.runtime.settings.model import Alarms
from tenten.schemas.messages import Loading, Problem
from tenten.sql.channel_settings import KEY_NOT_ACCEPTED
from tenten.status.fleet import heard_ages
from tenten.status.heartbeats import HEARTBEAT_REFUSED, refused_problem
from tenten.status.lateness import Ages, channel_problems
from tenten.web.dashboard.watch import KafkaSeen


class State(IntEnum):
    """How a store is, the worst first."""

    BAD = 0
    WARN = 1
    UNKNOWN = 2
    GOOD = 3


_NAMES = {State.BAD: "bad", State.WARN: "warn", State.UNKNOWN: "unknown", State.GOOD: "good"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChannel:
    """What headquarters' database knows of a channel."""

    channel_id: str
    legal_entity: str
    address_books: tuple[str, ...]
    offline_customers: str
    suspended_at: datetime | None
    suspended_reason: str | None
    held: int
    rejected: int
    """Its events that were rejected within a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRow:
    """A channel on the overview."""

    channel_id: str
    state: State
    state_text: str
    legal_entity: str
    heard_at: datetime | None
    oldest_unsent_at: datetime | None
    unsent: int | None
    oldest_unsettled_at: datetime | None
    unsettled: int | None
    complete_at: datetime | None
    customers: int | None
    release: str
    rejected: int
    held: int
    suspended_reason: str | None
    loading: Loading | None
    """How far a load of all customers is."""
    problems: tuple[Problem, ...]

    @property
    def state_name(self) -> str:
        """For the stylesheet."""
        return _NAMES[self.state]

    def content(self) -> tuple[Any, ...]:
        """Everything that a browser must be told of; equal while only time passes."""
        return tuple(getattr(self, name) for name in self.__slots__ if name != "problems") + tuple(
            problem.code for problem in self.problems
        )


def store_rows(
    alarms: Alarms,
    known: Mapping[str, KnownChannel],
    seen: KafkaSeen,
    now: datetime,
) -> tuple[StoreRow, ...]:
    """A row for each channel that headquarters has, or hears from."""
    names = {*known, *(seen.heard or ())}
    rows = [_row(alarms, name, known.get(name), seen, now) for name in names]
    return tuple(sorted(rows, key=lambda row: (row.state, -len(row.problems), row.channel_id)))


def _row(
    alarms: Alarms,
    name: str,
    known: KnownChannel | None,
    seen: KafkaSeen,
    now: datetime,
) -> StoreRow:
    heard = seen.heard
    last = None if heard is None else heard.get(name)
    ages = heard_ages(last, now)
    is_expected = heard is not None and known is not None
    late = channel_problems(alarms, name, ages, is_expected=is_expected)
    refused = refused_problem(seen.refused.get(name), now)
    if refused is not None:
        late.append(refused)
    problems = (
        *(Problem(code=problem.code, text=problem.text) for problem in late),
        *(last.heartbeat.problems if last is not None else ()),
    )
    suspended = known is not None and known.suspended_at is not None
    state, text = _state(ages, problems, is_known=heard is not None, is_suspended=suspended)
    heartbeat = None if last is None else last.heartbeat
    return StoreRow(
        channel_id=name,
        state=state,
        state_text=text if known is not None else f"{text}, not in the settings",
        legal_entity="" if known is None else known.legal_entity,
        heard_at=None if last is None else last.at,
        oldest_unsent_at=None if last is None else last.moment(last.heartbeat.oldest_unsent_at),
        unsent=None if heartbeat is None else heartbeat.unsent,
        oldest_unsettled_at=None if last is None else last.moment(last.heartbeat.oldest_unsettled_at),
        unsettled=None if heartbeat is None else heartbeat.unsettled,
        complete_at=None if last is None else last.moment(last.heartbeat.complete_at),
        customers=None if heartbeat is None else heartbeat.customers,
        release="" if heartbeat is None else heartbeat.release or "sources",
        rejected=0 if known is None else known.rejected,
        held=0 if known is None else known.held,
        suspended_reason=None if known is None else known.suspended_reason,
        loading=None if last is None else last.loading,
        problems=problems,
    )


_STATE_TEXTS = {
    "not_heard_from": "silent",
    "unsent_too_long": "not sending",
    "unsettled_too_long": "not settled",
    "incomplete_too_long": "incomplete",
    "duplicate_account_number": "shared numbers",
    "surplus_kept": "surplus kept",
}


def _state(ages: Ages, problems: Sequence[Problem], *, is_known: bool, is_suspended: bool) -> tuple[State, str]:
    """The state with its word. A suspended channel's key is not accepted, which is no further problem."""
    if not is_known:
        return State.UNKNOWN, "not known yet"
    others = [
        problem
        for problem in problems
        if problem.code != HEARTBEAT_REFUSED and not (is_suspended and problem.code == KEY_NOT_ACCEPTED)
    ]
    if ages.heard is None and others:
        return State.BAD, "never heard"
    if others:
        return State.BAD, _STATE_TEXTS.get(others[0].code, "problem")
    if is_suspended or len(problems) > len(others):
        return State.WARN, "suspended" if is_suspended else "heartbeat refused"
    if ages.complete is None:
        return State.WARN, "loading"
    return State.GOOD, "ok"
