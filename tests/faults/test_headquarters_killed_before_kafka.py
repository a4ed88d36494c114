"""Scenario 1 of the fault plan, one worker: SIGKILL at the points of a batch up to its Kafka transaction."""

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.faults.headquarters_story import (
    BATCH_RECORDS,
    BEFORE_KAFKA,
    BETWEEN_THE_COMMITS,
    EVENTS,
    HeadquartersStory,
    killed_at,
)
from tests.faults.stories import told_side_by_side


@pytest.fixture(scope="module")
def stories(
    bootstrap_servers: str, postgresql: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], HeadquartersStory]]:
    """The stories by failpoint."""
    servers = (bootstrap_servers, postgresql)
    with told_side_by_side(
        BEFORE_KAFKA, killed_at, batch_records=BATCH_RECORDS, servers=servers, directories=tmp_path_factory
    ) as told:
        yield told


@pytest.mark.parametrize("failpoint", BEFORE_KAFKA)
def test_killed_worker_changes_nothing(stories: Callable[[str], HeadquartersStory], failpoint: str) -> None:
    """Another worker takes over, whatever a batch was doing: the same numbers, nothing lost, nothing doubled."""
    # when
    story = stories(failpoint)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL, 0]
    assert 0 < story.answered_before < EVENTS


@pytest.mark.parametrize("failpoint", [name for name in BEFORE_KAFKA if name in BETWEEN_THE_COMMITS])
def test_batch_between_the_commits_is_sent_again(stories: Callable[[str], HeadquartersStory], failpoint: str) -> None:
    """What only the database knows when the worker dies is found there by the next one, and answered from the log."""
    # when
    story = stories(failpoint)

    # then
    assert story.logged_before > story.answered_before
    assert story.repeated > 0
