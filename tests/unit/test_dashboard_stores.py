"""The stores of the overview: their state and their order, from heartbeats and what headquarters knows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenten.runtime.settings.model import Alarms
from tenten.schemas.messages import Heartbeat, Problem
from tenten.status.heartbeats import Heard, Refused
from tenten.web.dashboard.stores import KnownChannel, State, store_rows
from tenten.web.dashboard.watch import KafkaSeen

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
CLOCK_AHEAD = timedelta(hours=5)
"""The store's clock is wrong."""


def known(name: str, **fields: Any) -> KnownChannel:
    """A channel of headquarters' settings."""
    nothing = dict.fromkeys(("suspended_at", "suspended_reason", "held_since", "blocked_since", "blocked_date"))
    values = {**nothing, "held": 0, "rejected": 0, **fields}
    return KnownChannel(channel_id=name, legal_entity="usrt", address_books=(), offline_customers="all", **values)


def heard(name: str, ago: float = 5.0, **ages: float) -> Heard:
    """A heartbeat that came this long ago; `complete` and `unsent` are ages at that time."""
    at = NOW - timedelta(seconds=ago)
    sent = at + CLOCK_AHEAD
    times = {field: sent - timedelta(seconds=seconds) for field, seconds in ages.items()}
    heartbeat = Heartbeat(
        channel_id=name,
        release="0.2.0",
        sent_at=sent,
        complete_at=times.get("complete"),
        oldest_unsent_at=times.get("unsent"),
    )
    return Heard(heartbeat=heartbeat, at=at)


@pytest.mark.parametrize(
    ("channel", "beat", "expected"),
    [
        (known("a"), heard("a", complete=1), (State.GOOD, "ok")),
        (known("a"), heard("a", ago=91, complete=1), (State.BAD, "silent")),
        (known("a"), heard("a", ago=89, complete=1), (State.GOOD, "ok")),
        (known("a"), None, (State.UNHEARD, "never heard")),
        (known("a"), heard("a", complete=1, unsent=601), (State.BAD, "not sending")),
        (known("a"), heard("a", complete=901), (State.BAD, "incomplete")),
        (known("a"), heard("a"), (State.WARN, "loading")),
        (known("a", suspended_at=NOW, suspended_reason="stolen"), heard("a", complete=1), (State.WARN, "suspended")),
        (
            known("a", held=1, held_since=NOW - timedelta(seconds=901)),
            heard("a", complete=1),
            (State.BAD, "held changes"),
        ),
        (known("a", held=1, held_since=NOW - timedelta(seconds=899)), heard("a", complete=1), (State.GOOD, "ok")),
        (None, heard("a", complete=1), (State.BAD, "not in the settings")),
        (None, heard("a", ago=100, complete=1), (State.GOOD, "ok, not in the settings")),
    ],
)
def test_state_of_a_store(channel: KnownChannel | None, beat: Heard | None, expected: tuple[State, str]) -> None:
    """By the limits of the settings; ages do not depend on the store's clock."""
    [row] = store_rows(
        Alarms(), {} if channel is None else {"a": channel}, KafkaSeen(heard={} if beat is None else {"a": beat}), NOW
    )
    assert (row.state, row.state_text) == expected


def test_times_are_by_the_brokers_clock() -> None:
    """Whatever the clock of the store shows."""
    seen = KafkaSeen(heard={"a": heard("a", ago=10, complete=20, unsent=30)})
    [row] = store_rows(Alarms(), {"a": known("a")}, seen, NOW)
    assert row.complete_at == NOW - timedelta(seconds=30)
    assert row.oldest_unsent_at == NOW - timedelta(seconds=40)


def test_worst_stores_come_first_and_nothing_is_bad_before_heartbeats_were_read() -> None:
    """By state, then by the number of problems, then by name."""
    # given
    channels = {name: known(name) for name in ("a", "b", "c", "d")}
    beats = {
        "a": heard("a", complete=1),
        "b": heard("b"),
        "c": heard("c", ago=100, complete=2_000),
        "d": heard("d", ago=100, complete=1),
    }
    # when
    rows = store_rows(Alarms(), channels, KafkaSeen(heard=beats), NOW)
    unread = store_rows(Alarms(), channels, KafkaSeen(), NOW)
    # then
    assert [row.channel_id for row in rows] == ["c", "d", "b", "a"]
    assert {row.state for row in unread} == {State.UNKNOWN}


def test_suspended_store_without_accepted_key_is_only_suspended() -> None:
    """That headquarters does not accept its key follows from the suspension."""
    beat = heard("a", complete=1)
    problem = Problem(code="key_not_accepted", text="headquarters accepts none of its records")
    beat = Heard(
        heartbeat=Heartbeat(
            **{name: getattr(beat.heartbeat, name) for name in Heartbeat.__slots__ if name != "problems"},
            problems=(problem,),
        ),
        at=beat.at,
    )
    [suspended] = store_rows(Alarms(), {"a": known("a", suspended_at=NOW)}, KafkaSeen(heard={"a": beat}), NOW)
    [other] = store_rows(Alarms(), {"a": known("a")}, KafkaSeen(heard={"a": beat}), NOW)
    assert (suspended.state, other.state) == (State.WARN, State.BAD)


def test_refused_heartbeat_is_shown_for_ten_minutes_and_hides_nothing_worse() -> None:
    """Somebody else has written it, or the store has another key: a person must look."""
    # given
    channels = {name: known(name) for name in ("a", "b", "c")}
    beats = {name: heard(name, ago=ago, complete=1) for name, ago in (("a", 5), ("b", 100), ("c", 5))}
    refused = {
        name: Refused(channel_id=name, at=NOW - timedelta(seconds=ago), kid=None)
        for name, ago in (("a", 599), ("b", 1), ("c", 601))
    }
    # when
    rows = store_rows(Alarms(), channels, KafkaSeen(heard=beats, refused=refused), NOW)
    # then
    assert [(row.channel_id, row.state_text) for row in rows] == [
        ("b", "silent"),
        ("a", "heartbeat refused"),
        ("c", "ok"),
    ]
    assert [problem.code for problem in rows[0].problems] == ["not_heard_from", "heartbeat_refused"]
