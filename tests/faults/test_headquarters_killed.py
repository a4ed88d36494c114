"""Scenario 1 of the fault plan, one worker: SIGKILL at every point that a batch passes, and at random times.

Each story has topics and a database of its own, so they run side by side: most of their time is waiting for the broker
to notice that a member is gone.
"""

import random
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest

from tenten.local import create_database
from tenten.workers import HEADQUARTERS
from tests.databases import copy_database, drop_database
from tests.faults.avro import decode
from tests.faults.checker import violations
from tests.faults.evidence import Record, gather, read_topic
from tests.faults.processes import WorkerProcess, worker_process
from tests.faults.traffic import Event, Store, traffic
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, SETTING, Scene, set_scene, wait_for

SIDE_BY_SIDE: Final = 4
EVENTS: Final = 200
BATCH_RECORDS: Final = 40
"""Enough for columns: a few events go one by one."""
ROUNDS: Final = 3
IN_ON_REVOKE: Final = "headquarters.in_on_revoke"
BETWEEN_THE_COMMITS: Final = (
    "headquarters.after_sql_commit",
    "headquarters.after_begin",
    "headquarters.after_produce",
    "headquarters.after_send_offsets",
    "headquarters.before_kafka_commit",
)
RANDOM: Final = "at random times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What came of one story."""

    exit_codes: list[int]
    """Of each worker, in order; the last one was asked to end."""
    logged_before: int
    """How many events the database had when the first worker was dead."""
    answered_before: int
    """How many of them had been answered."""
    repeated: int
    """How many events headquarters has read more often than they were sent."""
    violations: list[str]


@pytest.fixture(scope="module")
def stories(
    bootstrap_servers: str, postgresql: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Story]]:
    """The stories by failpoint; all of them start when the first is asked for."""
    with ExitStack() as ends, ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        databases = [f"t{secrets.token_hex(6)}" for _ in range(len(HEADQUARTERS.failpoints) + 2)]
        for database in databases:
            ends.callback(drop_database, postgresql, database)
        template, *copies = databases
        limits = {"batch_records_max": BATCH_RECORDS}
        url = create_database(postgresql, template)
        first = set_scene(tmp_path_factory.mktemp("killed"), bootstrap_servers, f"{template}-", url, limits=limits)

        def tell(name: str, database: str) -> Story:
            copy_database(postgresql, template, database)
            scene = set_scene(
                tmp_path_factory.mktemp("killed"),
                bootstrap_servers,
                f"{database}-",
                first.url.replace(template, database),
                limits=limits,
                has_tables=True,
            )
            return _killed_at_random(scene) if name == RANDOM else _killed_at(scene, name)

        names = (RANDOM, *HEADQUARTERS.failpoints)
        begun = {name: threads.submit(tell, name, database) for name, database in zip(names, copies, strict=True)}
        yield lambda name: begun[name].result()


def _killed_at(scene: Scene, failpoint: str) -> Story:
    """A worker dies at the third batch, with events before and behind it; another takes over."""
    rng = random.Random(failpoint)
    events = traffic(rng, _stores(rng), EVENTS)
    scene.send(*events)
    exit_codes = []
    with worker_process(scene, f"{failpoint}@{1 if failpoint == IN_ON_REVOKE else 3}") as doomed:
        if failpoint == IN_ON_REVOKE:
            scene.replies(*events[:1])
            exit_codes.append(doomed.stop())
        else:
            exit_codes.append(doomed.dies())
    logged_before, answered_before = _note_numbers(scene)
    with worker_process(scene) as healed:
        scene.replies(*events)
        exit_codes.append(healed.stop())
    return _story(scene, events, exit_codes, logged_before, answered_before)


def _killed_at_random(scene: Scene) -> Story:
    """Workers are killed while they are busy, whenever it happens to be."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    stores = _stores(rng)
    events: list[Event] = []
    exit_codes: list[int] = []
    logged_before = answered_before = 0
    for _round in range(ROUNDS):
        more = traffic(rng, stores, EVENTS)
        scene.send(*more)
        events += more
        with worker_process(scene) as doomed:
            wait_for(partial(_has_partitions, doomed), "partitions")
            exit_codes.append(doomed.kill(rng.uniform(0.0, 0.8)))
        logged_before, answered_before = _note_numbers(scene)
    with worker_process(scene) as healed:
        scene.replies(*events)
        exit_codes.append(healed.stop())
    return _story(scene, events, exit_codes, logged_before, answered_before)


def _has_partitions(worker: WorkerProcess) -> bool:
    return "partitions_assigned" in worker.said()


def _stores(rng: random.Random) -> list[Store]:
    return [Store(channel_id=name, legal_entity=entity, rng=rng) for name, entity in LEGAL_ENTITY_BY_CHANNEL.items()]


def _note_numbers(scene: Scene) -> tuple[int, int]:
    """Remember the account numbers that there are by now; how many events are logged, and how many are answered."""
    log = scene.tables().log
    told = [decode("Reply", one.value or b"") for one in _replies(scene)]
    for row in (*log.values(), *told):
        if row["account_number"] is not None:
            scene.journal.numbers_seen[str(row["customer_id"])].add(row["account_number"])
    return len(log), len({reply["event_id"] for reply in told})


def _replies(scene: Scene) -> tuple[Record, ...]:
    return read_topic(scene.bootstrap_servers, scene.prefix, "channel-replies")


def _story(scene: Scene, events: list[Event], exit_codes: list[int], logged_before: int, answered_before: int) -> Story:
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    expected = Counter(event["event_id"] for event in events)
    counted = {event_id: row["repeats"] for event_id, row in evidence.headquarters.log.items()}
    return Story(
        exit_codes=exit_codes,
        logged_before=logged_before,
        answered_before=answered_before,
        repeated=sum(counted[event_id] > count - 1 for event_id, count in expected.items()),
        violations=violations(evidence, scene.journal, SETTING),
    )


@pytest.mark.parametrize("failpoint", HEADQUARTERS.failpoints)
def test_killed_worker_changes_nothing(stories: Callable[[str], Story], failpoint: str) -> None:
    """Whatever a batch was doing, another worker takes it up: the same numbers go out, nothing is lost or doubled."""
    # when
    story = stories(failpoint)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL, 0]
    assert 0 < story.answered_before < EVENTS or failpoint == IN_ON_REVOKE


@pytest.mark.parametrize("failpoint", BETWEEN_THE_COMMITS)
def test_batch_between_the_commits_goes_out_again(stories: Callable[[str], Story], failpoint: str) -> None:
    """What only the database knows when the worker dies is found there by the next one, and answered from the log."""
    # when
    story = stories(failpoint)

    # then
    assert story.logged_before > story.answered_before
    assert story.repeated > 0


def test_worker_killed_at_random_times_changes_nothing(stories: Callable[[str], Story]) -> None:
    """SIGKILL from outside, while batches go through: as at the named points, wherever it hits."""
    # when
    story = stories(RANDOM)

    # then
    assert story.violations == []
    assert story.exit_codes == [-signal.SIGKILL] * ROUNDS + [0]
