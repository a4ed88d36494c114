"""Scenario 1 of the fault plan for what channels sell: SIGKILL of `tenten transactions run` at each of its points.

Also of `tenten headquarters run` on an order's way, and of both at random times.

Each story has topics and a database of its own, so they run side by side.
"""

import random
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tenten.local import create_database
from tenten.workers import TRANSACTIONS
from tests.databases import copy_database, drop_database
from tests.faults.checker import violations
from tests.faults.evidence import Evidence, gather
from tests.faults.processes import WorkerProcess, worker_process
from tests.faults.settled import wait_until_settled
from tests.faults.trade import send_steps, shops, trade
from tests.scenes import SETTING, Scene, set_scene, wait_for

SIDE_BY_SIDE: Final = 4
BATCH_RECORDS: Final = 20
ROUNDS: Final = 3
RANDOM: Final = "at random times"
IN_ON_REVOKE: Final = "transactions.in_on_revoke"
OF_A_BATCH: Final = tuple(name for name in TRANSACTIONS.failpoints if name.startswith("transactions."))
OF_A_ROUND: Final = tuple(name for name in TRANSACTIONS.failpoints if not name.startswith("transactions."))
BETWEEN_THE_COMMITS: Final = (
    "transactions.after_sql_commit",
    "transactions.after_begin",
    "transactions.after_produce",
    "transactions.after_send_offsets",
    "transactions.before_kafka_commit",
)
OF_HEADQUARTERS: Final = (
    "headquarters.before_sql_commit",
    "headquarters.after_sql_commit",
    "headquarters.before_kafka_commit",
)
STORIES: Final = (RANDOM, *TRANSACTIONS.failpoints, *OF_HEADQUARTERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What came of one story."""

    exit_codes: list[int]
    """Of each worker that was a process, in order; the last two were asked to end."""
    before: Evidence
    """What there was when the first was dead."""
    after: Evidence
    violations: list[str]


@pytest.fixture(scope="module")
def stories(
    bootstrap_servers: str, postgresql: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Story]]:
    """The stories by failpoint; all of them start when the first is asked for."""
    with ExitStack() as ends, ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        databases = [f"t{secrets.token_hex(6)}" for _ in range(len(STORIES) + 1)]
        for database in databases:
            ends.callback(drop_database, postgresql, database)
        template, *copies = databases
        limits = {"batch_records_max": BATCH_RECORDS}

        def directory() -> Path:
            return tmp_path_factory.mktemp("killed")

        url = create_database(postgresql, template)
        first = set_scene(directory(), bootstrap_servers, f"{template}-", url, limits=limits)

        def tell(name: str, database: str) -> Story:
            copy_database(postgresql, template, database)
            own, prefix = first.url.replace(template, database), f"{database}-"
            scene = set_scene(directory(), bootstrap_servers, prefix, own, limits=limits, has_tables=True)
            return _TELL.get(name, _of_a_round if name in OF_A_ROUND else _of_a_batch)(scene, name)

        begun = {name: threads.submit(tell, name, database) for name, database in zip(STORIES, copies, strict=True)}
        yield lambda name: begun[name].result()


def _of_a_batch(scene: Scene, failpoint: str) -> Story:
    """A worker dies at the third batch, with others before and behind it; another takes over."""
    rng = random.Random(failpoint)
    steps = trade(shops(rng))
    group, other = "transactions", "headquarters"
    if failpoint in OF_HEADQUARTERS:
        group, other = other, group
    with worker_process(scene, group=other):
        send_steps(scene, steps)
        at = 1 if failpoint == IN_ON_REVOKE else 3
        with worker_process(scene, f"{failpoint}@{at}", group=group) as doomed:
            if failpoint == IN_ON_REVOKE:
                wait_for(partial(_says, doomed, "transactions_taken_in"), "a batch")
                exit_codes = [doomed.stop()]
            else:
                exit_codes = [doomed.dies()]
    return _healed(scene, exit_codes)


def _of_a_round(scene: Scene, failpoint: str) -> Story:
    """All is taken in and every customer there when a worker comes, makes its first round, and dies of it."""
    rng = random.Random(failpoint)
    send_steps(scene, trade(shops(rng)))
    with worker_process(scene, group="transactions"):
        wait_until_settled(scene, "transactions")
    with worker_process(scene):
        wait_until_settled(scene, "headquarters")
    with worker_process(scene, f"{failpoint}@1", group="transactions") as doomed:
        exit_codes = [doomed.dies()]
    return _healed(scene, exit_codes)


def _at_random(scene: Scene, _: str) -> Story:
    """Both are killed while they are busy, whenever it happens to be."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sellers = shops(rng)
    exit_codes: list[int] = []
    for number in range(1, ROUNDS + 1):
        send_steps(scene, trade(sellers, closes=number == ROUNDS))
        with worker_process(scene) as headquarters, worker_process(scene, group="transactions") as transactions:
            for doomed in (headquarters, transactions):
                wait_for(partial(_says, doomed, "partitions_assigned"), "partitions")
            order = rng.sample([headquarters, transactions], 2)
            exit_codes += [doomed.kill(rng.uniform(0.0, 0.6)) for doomed in order]
    return _healed(scene, exit_codes)


_TELL: Final = {RANDOM: _at_random}


def _says(worker: WorkerProcess, what: str) -> bool:
    worker.check()
    return what in worker.said()


def _healed(scene: Scene, exit_codes: Sequence[int]) -> Story:
    """Fresh processes take up what was left, until nothing is under way any more."""
    before = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    with worker_process(scene) as headquarters, worker_process(scene, group="transactions") as transactions:
        wait_until_settled(scene, "transactions", "headquarters", let_through=True)
        last = [transactions.stop(), headquarters.stop()]
    after = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    for row in before.headquarters.customers.values():
        scene.journal.numbers_seen[str(row["customer_id"])].add(row["account_number"])
    return Story(
        exit_codes=[*exit_codes, *last],
        before=before,
        after=after,
        violations=violations(after, scene.journal, SETTING),
    )


@pytest.mark.parametrize("failpoint", [*TRANSACTIONS.failpoints, *OF_HEADQUARTERS])
def test_killed_worker_loses_and_doubles_nothing(stories: Callable[[str], Story], failpoint: str) -> None:
    """Whatever it was doing, another takes it up: each sale in one sales order or statement, with its customer."""
    # when
    story = stories(failpoint)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL, 0, 0]
    sales = story.after.headquarters.sales
    assert Counter(one["status"] for one in sales.transactions.values()).keys() == {"synchronized"}
    assert {one["status"] for one in sales.statements.values()} == {"posted"}


@pytest.mark.parametrize("failpoint", BETWEEN_THE_COMMITS)
def test_batch_between_the_commits_comes_again(stories: Callable[[str], Story], failpoint: str) -> None:
    """What only the database knows when the worker dies is found there by the next one, and counted as a repeat."""
    # when
    story = stories(failpoint)

    # then
    taken_in = {
        row["partition"]: row["next_offset"]
        for row in story.before.headquarters.positions
        if row["consumer_group"].endswith("transactions")
    }
    committed = story.before.group_offsets["transactions"]
    assert sum(taken_in.values()) > sum(committed.values()) > 0


def test_round_that_dies_before_its_commit_did_not_happen(stories: Callable[[str], Story]) -> None:
    """Customers are there, and their orders still wait: the numbers that the round had taken are given anew."""
    # when
    sales = stories("release.before_commit").before.headquarters.sales

    # then
    waiting = [one for one in sales.transactions.values() if one["status"] == "waiting"]
    assert [one for one in waiting if one["customer_id"] is not None] != []
    assert len(sales.orders) == sum(row["next"] - 1 for row in sales.sequences.values())


@pytest.mark.parametrize("failpoint", ["release.after_commit", "answers.after_send"])
def test_round_that_dies_behind_its_commit_is_answered_by_the_next(
    stories: Callable[[str], Story], failpoint: str
) -> None:
    """Its answers lie in the database, sent or not, and the next worker sends them."""
    # when
    story = stories(failpoint)

    # then
    sales = story.before.headquarters.sales
    assert len(sales.replies_due) > 0
    due = {transaction_id for one in sales.replies_due for transaction_id in one["transaction_ids"]}
    assert {sales.transactions[one]["status"] for one in due & sales.transactions.keys()} >= {"synchronized"}
    assert story.after.headquarters.sales.replies_due == ()


def test_workers_killed_at_random_times_lose_and_double_nothing(stories: Callable[[str], Story]) -> None:
    """SIGKILL of both groups' workers from outside, while sales and customers go through."""
    # when
    story = stories(RANDOM)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL] * 2 * ROUNDS + [0, 0]
