"""Scenario 1 of the fault plan, one worker: SIGKILL at the points of a batch up to its Kafka transaction."""

import signal
from collections.abc import Callable

import pytest

from tests.faults.headquarters_story import (
    BATCH_RECORDS,
    BEFORE_KAFKA,
    BETWEEN_THE_COMMITS,
    EVENTS,
    HeadquartersStory,
    killed_at,
)
from tests.faults.stories import fixture_of_stories

stories = fixture_of_stories(killed_at, BEFORE_KAFKA, BATCH_RECORDS)


@pytest.mark.parametrize("failpoint", BEFORE_KAFKA)
def test_killed_worker_changes_nothing(stories: Callable[[str], HeadquartersStory], failpoint: str) -> None:
    """Another worker takes over: the account numbers are the same, and no event is lost or applied twice."""
    # when
    story = stories(failpoint)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL, 0]
    assert 0 < story.answered_before < EVENTS


@pytest.mark.parametrize("failpoint", [name for name in BEFORE_KAFKA if name in BETWEEN_THE_COMMITS])
def test_batch_between_the_commits_is_sent_again(stories: Callable[[str], HeadquartersStory], failpoint: str) -> None:
    """The next worker finds in the log the events that were committed only there, and replies from it."""
    # when
    story = stories(failpoint)

    # then
    assert story.logged_before > story.answered_before
    assert story.repeated > 0
