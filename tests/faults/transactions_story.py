"""Scenario 1 of the fault plan for transactions: SIGKILL of `tenten transactions run` at one of its failpoints.

Also of `tenten headquarters run` while it handles the customers of orders, and of both at random times.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tenten.workers import TRANSACTIONS
from tests.faults.checker import violations
from tests.faults.evidence import Evidence, gather
from tests.faults.processes import WorkerProcess, worker_process
from tests.faults.settled import wait_until_read, wait_until_settled
from tests.faults.trade import send_steps, shops, trade
from tests.scenes import SETTING, Scene
from tests.waiting import wait_for

BATCH_RECORDS: Final = 8
CHOICES: Final = 12
"""Of each shop in one story; about two records each."""

IN_ON_REVOKE: Final = "transactions.in_on_revoke"
OF_A_BATCH: Final = tuple(name for name in TRANSACTIONS.failpoints if name.startswith("transactions."))
BEFORE_KAFKA: Final = OF_A_BATCH[:5]
"""The points of a batch up to the beginning of the Kafka transaction."""
WITH_KAFKA: Final = OF_A_BATCH[5:]
OF_A_RELEASE_PASS: Final = tuple(name for name in TRANSACTIONS.failpoints if not name.startswith("transactions."))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionsStory:
    """The result of one story."""

    exit_codes: list[int]
    """Of each worker process, in order; the last two received SIGTERM."""
    before: Evidence
    """The evidence when the first worker was dead."""
    after: Evidence
    violations: list[str]

    @property
    def statuses(self) -> tuple[set[str], set[str]]:
        """The statuses of sales and of statements in the end."""
        sales = self.after.headquarters.sales
        return (
            {row["status"] for row in sales.transactions.values()},
            {row["status"] for row in sales.statements.values()},
        )


def killed_at(scene: Scene, failpoint: str) -> TransactionsStory:
    """A worker dies at this point, and others take over."""
    if failpoint in OF_A_RELEASE_PASS:
        return _killed_in_release_pass(scene, failpoint)
    return _killed_in_batch(scene, failpoint)


def _killed_in_batch(scene: Scene, failpoint: str) -> TransactionsStory:
    """A worker dies in the middle of its batches; another takes over."""
    rng = random.Random(failpoint)
    steps = trade(shops(rng), CHOICES)
    group, other = "transactions", "headquarters"
    if failpoint in OF_HEADQUARTERS:
        group, other = other, group
    with worker_process(scene, group=other) as living:
        send_steps(scene, steps)
        # Headquarters has fewer batches: only the customers of the orders.
        at = 1 if failpoint == IN_ON_REVOKE else 2 if failpoint in OF_HEADQUARTERS else 3
        with worker_process(scene, f"{failpoint}@{at}", group=group) as doomed:
            if failpoint == IN_ON_REVOKE:
                wait_for(partial(_has_logged, doomed, "transactions_ingested"), "a batch")
                exit_codes = [doomed.stop()]
            else:
                exit_codes = [doomed.dies()]
        before = _gather(scene)
        with worker_process(scene, group=group) as healed:
            return _healed(scene, before, exit_codes, [healed, living])


def _killed_in_release_pass(scene: Scene, failpoint: str) -> TransactionsStory:
    """A worker dies in its first release pass, with all transactions ingested and all customers synchronized."""
    rng = random.Random(failpoint)
    send_steps(scene, trade(shops(rng), CHOICES))
    with worker_process(scene, group="transactions") as ingesting:
        wait_until_settled(scene, "transactions")
        assert ingesting.stop() == 0
    with worker_process(scene) as headquarters:
        wait_until_read(scene, "headquarters")
        with worker_process(scene, f"{failpoint}@1", group="transactions") as doomed:
            exit_codes = [doomed.dies()]
        before = _gather(scene)
        with worker_process(scene, group="transactions") as healed:
            return _healed(scene, before, exit_codes, [healed, headquarters])


def killed_at_random_times(scene: Scene, rng: random.Random, rounds: Iterable[int]) -> TransactionsStory:
    """A worker of each group is killed in each round while it is busy; others take over in the end."""
    sellers = shops(rng)
    exit_codes: list[int] = []
    for _ in rounds:
        send_steps(scene, trade(sellers, CHOICES, closes=rng.random() < 0.5))
        with worker_process(scene) as headquarters, worker_process(scene, group="transactions") as transactions:
            for doomed in (headquarters, transactions):
                wait_for(partial(_has_logged, doomed, "partitions_assigned"), "partitions")
            order = rng.sample([headquarters, transactions], 2)
            exit_codes += [doomed.kill(rng.uniform(0.0, 0.6)) for doomed in order]
    send_steps(scene, trade(sellers, 0))
    before = _gather(scene)
    with worker_process(scene) as headquarters, worker_process(scene, group="transactions") as transactions:
        return _healed(scene, before, exit_codes, [transactions, headquarters])


def _has_logged(worker: WorkerProcess, event: str) -> bool:
    worker.check()
    return event in worker.logged()


def _gather(scene: Scene) -> Evidence:
    return gather(scene.bootstrap_servers, scene.prefix, scene.url)


def _healed(
    scene: Scene, before: Evidence, exit_codes: Sequence[int], workers: Sequence[WorkerProcess]
) -> TransactionsStory:
    """These workers, one of each group, continue until everything is released, posted and replied to."""
    wait_until_settled(scene, "transactions", "headquarters", released=True)
    last = [worker.stop() for worker in workers]
    after = _gather(scene)
    for row in before.headquarters.customers.values():
        scene.journal.numbers_seen[str(row["customer_id"])].add(row["account_number"])
    return TransactionsStory(
        exit_codes=[*exit_codes, *last],
        before=before,
        after=after,
        violations=violations(after, scene.journal, SETTING),
    )
