"""Scenario 1 of the fault plan for what channels sell: SIGKILL at the points of a batch up to its Kafka transaction."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.faults.stories import told_side_by_side
from tests.faults.transactions_story import (
    BATCH_RECORDS,
    BEFORE_KAFKA,
    BETWEEN_THE_COMMITS,
    TransactionsStory,
    killed_at,
)


@pytest.fixture(scope="module")
def stories(
    bootstrap_servers: str, postgresql: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], TransactionsStory]]:
    """The stories by failpoint."""
    servers = (bootstrap_servers, postgresql)
    with told_side_by_side(
        BEFORE_KAFKA, killed_at, batch_records=BATCH_RECORDS, servers=servers, directories=tmp_path_factory
    ) as told:
        yield told


@pytest.mark.parametrize("failpoint", BEFORE_KAFKA)
def test_killed_worker_loses_and_doubles_nothing(stories: Callable[[str], TransactionsStory], failpoint: str) -> None:
    """Another worker takes over: each sale is in one sales order or statement, with its customer."""
    # when
    story = stories(failpoint)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL, 0, 0]
    sales = story.after.headquarters.sales
    assert Counter(row["status"] for row in sales.transactions.values()).keys() == {"synchronized"}
    assert {row["status"] for row in sales.statements.values()} == {"posted"}


@pytest.mark.parametrize("failpoint", [name for name in BEFORE_KAFKA if name in BETWEEN_THE_COMMITS])
def test_batch_between_the_commits_is_read_again(stories: Callable[[str], TransactionsStory], failpoint: str) -> None:
    """What only the database knows when the worker dies is found there by the next one, and counted as a repeat."""
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
