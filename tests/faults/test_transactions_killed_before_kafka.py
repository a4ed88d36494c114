"""Scenario 1 of the fault plan for transactions: SIGKILL at the points of a batch up to its Kafka transaction."""

import signal
from collections.abc import Callable

import pytest

from tests.faults.stories import fixture_of_stories
from tests.faults.transactions_story import (
    BATCH_RECORDS,
    BEFORE_KAFKA,
    BETWEEN_THE_COMMITS,
    TransactionsStory,
    killed_at,
)

stories = fixture_of_stories(killed_at, BEFORE_KAFKA, BATCH_RECORDS)


@pytest.mark.parametrize("failpoint", BEFORE_KAFKA)
def test_killed_worker_loses_and_doubles_nothing(stories: Callable[[str], TransactionsStory], failpoint: str) -> None:
    """Another worker takes over: each sale is in one sales order or statement, with its customer."""
    # when
    story = stories(failpoint)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL, 0, 0]
    assert story.statuses == ({"synchronized"}, {"posted"})


@pytest.mark.parametrize("failpoint", [name for name in BEFORE_KAFKA if name in BETWEEN_THE_COMMITS])
def test_batch_between_the_commits_is_read_again(stories: Callable[[str], TransactionsStory], failpoint: str) -> None:
    """The next worker finds in the database what was committed only there, and counts it as repeats."""
    # when
    story = stories(failpoint)

    # then
    ingested = {
        row["partition"]: row["next_offset"]
        for row in story.before.headquarters.positions
        if row["consumer_group"].endswith("transactions")
    }
    committed = story.before.group_offsets["transactions"]
    assert sum(ingested.values()) > sum(committed.values()) > 0
