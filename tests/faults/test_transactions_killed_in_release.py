"""Scenario 1 of the fault plan for transactions: SIGKILL in a release pass, and of headquarters' other worker."""

import signal
from collections.abc import Callable
from typing import Final

import pytest

from tests.faults.stories import fixture_of_stories
from tests.faults.transactions_story import (
    BATCH_RECORDS,
    OF_A_RELEASE_PASS,
    OF_HEADQUARTERS,
    TransactionsStory,
    killed_at,
)

STORIES: Final = (*OF_A_RELEASE_PASS, *OF_HEADQUARTERS)


stories = fixture_of_stories(killed_at, STORIES, BATCH_RECORDS)


@pytest.mark.parametrize("failpoint", STORIES)
def test_killed_worker_loses_and_doubles_nothing(stories: Callable[[str], TransactionsStory], failpoint: str) -> None:
    """Another worker takes over: each sale is in one sales order or statement, with its customer."""
    # when
    story = stories(failpoint)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL, 0, 0]
    assert story.statuses == ({"synchronized"}, {"posted"})


def test_release_pass_that_dies_before_its_commit_changes_nothing(
    stories: Callable[[str], TransactionsStory],
) -> None:
    """Customers are synchronized and their orders still wait: the numbers of the release pass are given again."""
    # when
    sales = stories("release.before_commit").before.headquarters.sales

    # then
    waiting = [row for row in sales.transactions.values() if row["status"] == "waiting"]
    assert [row for row in waiting if row["customer_id"] is not None] != []
    assert len(sales.orders) == sum(row["next"] - 1 for row in sales.sequences.values())


@pytest.mark.parametrize("failpoint", ["release.after_commit", "answers.after_send"])
def test_replies_of_a_worker_that_dies_are_sent_by_the_next(
    stories: Callable[[str], TransactionsStory], failpoint: str
) -> None:
    """The replies of its release pass are in the database, sent or not, and the next worker sends them."""
    # when
    story = stories(failpoint)

    # then
    sales = story.before.headquarters.sales
    assert len(sales.replies_due) > 0
    due = {transaction_id for row in sales.replies_due for transaction_id in row["transaction_ids"]}
    assert {sales.transactions[key]["status"] for key in due & sales.transactions.keys()} >= {"synchronized"}
    assert story.after.headquarters.sales.replies_due == ()
