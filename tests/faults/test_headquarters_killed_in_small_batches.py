"""Scenario 1 of the fault plan, one worker: SIGKILL while small batches of new customers are one round trip each."""

import signal
from collections.abc import Callable

import pytest

from tests.faults.headquarters_story import (
    BATCH_RECORDS,
    BEFORE_KAFKA,
    BETWEEN_THE_COMMITS,
    EVENTS,
    HeadquartersStory,
    killed_at_new_customers,
)
from tests.faults.stories import fixture_of_stories

FAILPOINTS = (*BEFORE_KAFKA, "headquarters.before_kafka_commit", "headquarters.after_kafka_commit")

stories = fixture_of_stories(killed_at_new_customers, FAILPOINTS, BATCH_RECORDS)


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_worker_changes_nothing(stories: Callable[[str], HeadquartersStory], failpoint: str) -> None:
    """Another worker takes over: the account numbers are the same, without a gap, and no event is lost."""
    # when
    story = stories(failpoint)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL, 0]
    assert 0 < story.answered_before < EVENTS


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name in BETWEEN_THE_COMMITS])
def test_batch_between_the_commits_is_sent_again(stories: Callable[[str], HeadquartersStory], failpoint: str) -> None:
    """The next worker finds the customers of that batch in the log, and replies from it."""
    # when
    story = stories(failpoint)

    # then
    assert story.logged_before > story.answered_before
    assert story.repeated > 0
