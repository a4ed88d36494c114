"""Scenario 1 of the fault plan, one customers worker: SIGKILL at a failpoint of a batch, or at random times.

Another worker takes over; at the end the checker reads everything.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from tenten.workers import HEADQUARTERS
from tests.faults.avro import decode
from tests.faults.checker import violations
from tests.faults.evidence import Record, gather, read_topic
from tests.faults.processes import WorkerProcess, worker_process
from tests.faults.traffic import Event, Store, traffic
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, SETTING, Scene
from tests.waiting import wait_for

EVENTS: Final = 100
BATCH_RECORDS: Final = 20
"""A few batches before and behind the one at which a worker dies."""

IN_ON_REVOKE: Final = "headquarters.in_on_revoke"
BEFORE_KAFKA: Final = HEADQUARTERS.failpoints[:5]
"""The points up to the beginning of the Kafka transaction."""
WITH_KAFKA: Final = tuple(name for name in HEADQUARTERS.failpoints[5:] if not name.startswith(("registrar.", "joins.")))
"""The points from there on. Those of the registrar's threads have tests of their own: no batch depends on them."""
BETWEEN_THE_COMMITS: Final = (
    "headquarters.after_sql_commit",
    "headquarters.after_begin",
    "headquarters.after_produce",
    "headquarters.after_send_offsets",
    "headquarters.before_kafka_commit",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadquartersStory:
    """The result of one story."""

    exit_codes: list[int]
    """Of each worker, in order; the last one received SIGTERM."""
    logged_before: int
    """Events in the log when the first worker was dead."""
    answered_before: int
    """Events with a reply at that time."""
    repeated: int
    """Events that headquarters has read more often than they were sent."""
    violations: list[str]


def killed_at(scene: Scene, failpoint: str) -> HeadquartersStory:
    """A worker dies at the third batch, with all kinds of events before and behind it; another takes over.

    The batches are handled in columns, or event by event where the columns do not accept an event.
    """
    rng = random.Random(failpoint)
    return _killed_at(scene, failpoint, traffic(rng, _stores(rng), EVENTS), in_columns=True)


def killed_at_new_customers(scene: Scene, failpoint: str) -> HeadquartersStory:
    """The same with new customers only, in small batches: a batch is one round trip to the database."""
    rng = random.Random(failpoint)
    stores = _stores(rng)
    return _killed_at(scene, failpoint, [rng.choice(stores).create() for _ in range(EVENTS)], in_columns=False)


def _killed_at(scene: Scene, failpoint: str, events: list[Event], *, in_columns: bool) -> HeadquartersStory:
    scene.send(*events)
    exit_codes = []
    at = f"{failpoint}@{1 if failpoint == IN_ON_REVOKE else 3}"
    with worker_process(scene, at, in_columns=in_columns) as doomed:
        if failpoint == IN_ON_REVOKE:
            scene.replies(*events[:1])
            exit_codes.append(doomed.stop())
        else:
            exit_codes.append(doomed.dies())
    return _healed(scene, events, exit_codes, in_columns=in_columns)


def killed_at_random_times(scene: Scene, rng: random.Random, rounds: Iterable[int]) -> HeadquartersStory:
    """A worker is killed in each round while it is busy; another takes over in the end."""
    stores = _stores(rng)
    events: list[Event] = []
    exit_codes: list[int] = []
    for _ in rounds:
        more = traffic(rng, stores, EVENTS)
        scene.send(*more)
        events += more
        with worker_process(scene) as doomed:
            wait_for(partial(_has_partitions, doomed), "partitions")
            exit_codes.append(doomed.kill(rng.uniform(0.0, 0.8)))
        _note_numbers(scene)
    return _healed(scene, events, exit_codes)


def _has_partitions(worker: WorkerProcess) -> bool:
    return "partitions_assigned" in worker.logged()


def _stores(rng: random.Random) -> list[Store]:
    return [Store(channel_id=name, legal_entity=entity, rng=rng) for name, entity in LEGAL_ENTITY_BY_CHANNEL.items()]


def _healed(scene: Scene, events: list[Event], exit_codes: list[int], *, in_columns: bool = False) -> HeadquartersStory:
    """A fresh worker takes over until every event is answered."""
    logged_before, answered_before = _note_numbers(scene)
    with worker_process(scene, in_columns=in_columns) as healed:
        scene.replies(*events)
        exit_codes.append(healed.stop())
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    expected = Counter(event["event_id"] for event in events)
    counted = {event_id: row["repeats"] for event_id, row in evidence.headquarters.log.items()}
    return HeadquartersStory(
        exit_codes=exit_codes,
        logged_before=logged_before,
        answered_before=answered_before,
        repeated=sum(counted[event_id] > count - 1 for event_id, count in expected.items()),
        violations=violations(evidence, scene.journal, SETTING),
    )


def _note_numbers(scene: Scene) -> tuple[int, int]:
    """Record the account numbers given so far; the numbers of events that are logged, and that have a reply."""
    log = scene.tables().log
    replies = [decode("Reply", record.value or b"") for record in _replies(scene)]
    for row in (*log.values(), *replies):
        if row["account_number"] is not None:
            scene.journal.numbers_seen[str(row["customer_id"])].add(row["account_number"])
    return len(log), len({reply["event_id"] for reply in replies})


def _replies(scene: Scene) -> tuple[Record, ...]:
    return read_topic(scene.bootstrap_servers, scene.prefix, "channel-replies")
