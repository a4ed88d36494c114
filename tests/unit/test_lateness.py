"""Each age of a channel is late behind its own limit, and only there."""

from typing import Final

import pytest

from tenten.runtime.settings import Alarms
from tenten.status.lateness import Ages, channel_problems

LIMITS: Final = Alarms(
    silent_seconds_max=100, unsent_seconds_max=200, unsettled_seconds_max=300, incomplete_seconds_max=400
)


def codes(ages: Ages, *, is_expected: bool = True) -> list[str]:
    """The codes of the problems of a channel."""
    return [problem.code for problem in channel_problems(LIMITS, "houston", ages, is_expected=is_expected)]


@pytest.mark.parametrize(
    ("in_time", "late", "code"),
    [
        (Ages(heard=100), Ages(heard=101), "not_heard_from"),
        (Ages(heard=0, unsent=200), Ages(heard=0, unsent=201), "unsent_too_long"),
        (Ages(heard=0, unsettled=300), Ages(heard=0, unsettled=301), "unsettled_too_long"),
        (Ages(heard=0, complete=400), Ages(heard=0, complete=401), "incomplete_too_long"),
    ],
)
def test_age_is_late_only_behind_its_limit(in_time: Ages, late: Ages, code: str) -> None:
    """At the limit nothing is reported, a second later this problem alone."""
    assert codes(in_time) == []
    assert codes(late) == [code]


def test_silence_counts_only_where_a_channel_should_run() -> None:
    """A channel that was never heard from is reported, unless it is not expected to run."""
    assert codes(Ages()) == ["not_heard_from"]
    assert codes(Ages(), is_expected=False) == []
    assert codes(Ages(heard=1_000), is_expected=False) == []
