"""The stores as the overview shows them: what each reports and headquarters knows of it, the worst first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import IntEnum
from typing import Any

from tenten.runtime.settings.model import Alarms
from tenten.schemas.messages import Loading, Problem
from tenten.sql.channel_settings import SUSPENDED
from tenten.status.fleet import heard_ages, reported_problems
from tenten.status.heartbeats import HEARTBEAT_REFUSED, refused_problem
from tenten.status.lateness import (
    NOT_IN_SETTINGS,
    Ages,
    blocked_statement,
    channel_problems,
    held_changes,
    unknown_channel,
)
from tenten.status.values import Problem as Found
from tenten.web.dashboard.watch import KafkaSeen


class State(IntEnum):
    """How a store is, the worst first."""

    BAD = 0
    WARN = 1
    UNHEARD = 2
    """It was never heard from, and nothing else is wrong: it has not been started yet."""
    UNKNOWN = 3
    GOOD = 4


_NAMES = {
    State.BAD: "bad",
    State.WARN: "warn",
    State.UNHEARD: "bad",
    State.UNKNOWN: "unknown",
    State.GOOD: "good",
}


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
    held_since: datetime | None
    """The oldest one."""
    blocked_since: datetime | None
    """When its statement came that has been blocked for longest."""
    blocked_date: date | None
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

    @property
    def is_unheard(self) -> bool:
        """Whether nothing is known of it but that it has never been heard from."""
        return self.state is State.UNHEARD

    def content(self) -> tuple[Any, ...]:
        """Everything that a browser must be told of; equal while only time passes."""
        return tuple(getattr(self, name) for name in self.__slots__ if name != "problems") + tuple(
            problem.code for problem in self.problems
        )


def store_rows(
    alarms: Alarms,
    known: Mapping[str, KnownChannel] | None,
    seen: KafkaSeen,
    now: datetime,
) -> tuple[StoreRow, ...]:
    """A row for each channel that headquarters has, or hears from. `known`: None if its database does not answer."""
    names = {*(known or ()), *(seen.heard or ())}
    rows = [_row(alarms, name, (known or {}).get(name), seen, now) for name in names]
    if known is not None:
        rows = [row if row.channel_id in known else _stranger(alarms, row, seen, now) for row in rows]
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
    suspended = None if known is None or known.suspended_at is None else known.suspended_reason or ""
    late = channel_problems(alarms, name, ages, is_expected=is_expected, suspended=suspended)
    late += _at_headquarters(alarms, known, now)
    refused = refused_problem(seen.refused.get(name), now)
    if refused is not None:
        late.append(refused)
    problems = (
        *(Problem(code=problem.code, text=problem.text) for problem in late),
        *(reported_problems(last, is_suspended=suspended is not None) if last is not None else ()),
    )
    state, text = _state(ages, problems, is_known=heard is not None)
    heartbeat = None if last is None else last.heartbeat
    return StoreRow(
        channel_id=name,
        state=state,
        state_text=text,
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


def _stranger(alarms: Alarms, row: StoreRow, seen: KafkaSeen, now: datetime) -> StoreRow:
    """The row of a channel that headquarters does not have: a problem while it runs."""
    text = f"{row.state_text}, {_STATE_TEXTS[NOT_IN_SETTINGS]}"
    running = unknown_channel(alarms, row.channel_id, heard_ages((seen.heard or {}).get(row.channel_id), now))
    if running is None:
        return replace(row, state_text=text)
    problem = Problem(code=running.code, text=running.text)
    return replace(row, state=State.BAD, state_text=_STATE_TEXTS[NOT_IN_SETTINGS], problems=(problem, *row.problems))


def _at_headquarters(alarms: Alarms, known: KnownChannel | None, now: datetime) -> Iterator[Found]:
    """What has waited at headquarters for too long."""
    if known is None:
        return
    if known.blocked_since is not None and known.blocked_date is not None:
        seconds = (now - known.blocked_since).total_seconds()
        if seconds > alarms.blocked_seconds_max:
            yield blocked_statement(known.channel_id, known.blocked_date.isoformat(), seconds)
    if known.held_since is not None:
        seconds = (now - known.held_since).total_seconds()
        if seconds > alarms.held_seconds_max:
            yield held_changes(known.channel_id, known.held, seconds)


_STATE_TEXTS = {
    "not_heard_from": "silent",
    "unsent_too_long": "not sending",
    "unsettled_too_long": "not settled",
    "incomplete_too_long": "incomplete",
    "duplicate_account_number": "shared numbers",
    "surplus_kept": "surplus kept",
    "blocked_too_long": "blocked statement",
    "held_too_long": "held changes",
    NOT_IN_SETTINGS: "not in the settings",
}


def _state(ages: Ages, problems: Sequence[Problem], *, is_known: bool) -> tuple[State, str]:
    """The state with its word."""
    if not is_known:
        return State.UNKNOWN, "not known yet"
    codes = {problem.code for problem in problems}
    is_unheard = ages.heard is None and "not_heard_from" in codes
    milder = {SUSPENDED, HEARTBEAT_REFUSED, *(["not_heard_from"] if is_unheard else [])}
    others = [problem for problem in problems if problem.code not in milder]
    if others:
        return State.BAD, _STATE_TEXTS.get(others[0].code, "problem")
    if codes & {SUSPENDED, HEARTBEAT_REFUSED}:
        return State.WARN, "suspended" if SUSPENDED in codes else "heartbeat refused"
    if is_unheard:
        return State.UNHEARD, "never heard"
    if ages.complete is None:
        return State.WARN, "loading"
    return State.GOOD, "ok"
