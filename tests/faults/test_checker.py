"""The checker is proved: it finds each classic bug in real topics and tables, and nothing in a clean history."""

import ast
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Final

import pytest

from commerce.database import open_database, upgrade_channel, upgrade_headquarters
from tests.faults import checker
from tests.faults.case import Sequence, Setting
from tests.faults.evidence import Record
from tests.faults.journal import Operation, Result
from tests.faults.traffic import Store
from tests.faults.world import World

SETTING = Setting(legal_entity_by_channel={"houston": "usrt"}, sequences={"usrt": Sequence(format="C-########")})


@pytest.fixture
def world(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> World:
    """A clean history of which only the events are written yet."""
    channel = tmp_path / "houston.db"
    for engine in (open_database(headquarters_url), open_database(f"sqlite:///{channel}")):
        if engine.dialect.name == "sqlite":
            upgrade_channel(engine)
        else:
            upgrade_headquarters(engine, {})
        engine.dispose()
    store = Store(channel_id="houston", legal_entity="usrt", rng=random.Random(7))
    lived = World(bootstrap_servers, prefix, headquarters_url, channel, store)
    lived.live()
    return lived


def violations(world: World) -> list[str]:
    """What the checker says of this world."""
    world.write()
    return checker.violations(world.gather(), world.journal, SETTING)


def test_clean_history_passes(world: World) -> None:
    """A history without any bug has no violation."""
    assert violations(world) == []


def number_twice(world: World) -> None:
    """Two customers are told the same account number."""
    for reply in world.replies:
        if reply["account_number"] == "C-00000002":
            reply["account_number"] = "C-00000001"


def two_numbers(world: World) -> None:
    """The repeat of an event gets a second account number."""
    repeated = [reply for reply in world.replies if reply["event_id"] == world.events[4]["event_id"]]
    repeated[-1]["account_number"] = "C-00000009"


def gap(world: World) -> None:
    """The counter advanced, and nobody has the number."""
    world.next_number += 1


def lost_event(world: World) -> None:
    """An event was passed over, as if the offset had been committed before the database."""
    del world.log[world.events[1]["event_id"]]


def vanished_record(world: World) -> None:
    """What the broker acknowledged is gone."""
    world.journal.operations.append(Operation(key=b"k", value=b"gone", result=Result.OK))


def version_back(world: World) -> None:
    """A snapshot of an older version comes after a newer one."""
    first = world.events[0]["customer_id"]
    older = next(deepcopy(snapshot) for key, snapshot in world.snapshots if key == first)
    world.snapshots.insert(-1, (first, older))


def same_version_other_content(world: World) -> None:
    """Two snapshots of one version differ."""
    key, snapshot = world.snapshots[1]
    assert snapshot is not None
    changed = deepcopy(snapshot)
    changed["customer"]["title"] = "Prof."
    world.snapshots.append((key, changed))


def version_back_in_channel(world: World) -> None:
    """A clerk saw a customer go back."""
    world.journal.versions_seen["houston", world.events[0]["customer_id"]] = [1, 2, 1]


def erased_revived(world: World) -> None:
    """A snapshot follows a tombstone."""
    third = world.events[2]["customer_id"]
    revived = next(deepcopy(snapshot) for key, snapshot in world.snapshots if key == third)
    world.snapshots.append((third, revived))


def log_and_dead_letter(world: World) -> None:
    """An event is both applied and a dead letter."""
    place = world.places[world.events[1]["event_id"]]
    world.dead_letters.append((place, place.value))


def dead_letter_twice(world: World) -> None:
    """One unreadable record is two dead letters."""
    world.dead_letters.append(world.dead_letters[0])


def dead_letter_changed(world: World) -> None:
    """A dead letter is not what was read."""
    world.dead_letters[0] = (world.dead_letters[0][0], b"poison?")


def dead_letter_lost(world: World) -> None:
    """An unreadable record was skipped."""
    world.dead_letters.clear()


def aborted_event_applied(world: World) -> None:
    """Headquarters has read a record whose transaction was aborted."""
    event = world.store.create(last_name="Aborted")
    producer = world.producer()
    producer.produce(f"{world.prefix}async-customers", b"aborted", event["customer_id"])
    producer.flush()
    producer.abort_transaction()
    world.places[event["event_id"]] = Record(
        topic="async-customers", partition=0, offset=999, key=None, value=None, headers=(), timestamp_ms=0
    )
    world.events.append(event)
    world._created(event)


def answer_of_aborted_attempt(world: World) -> None:
    """A reply went out for an event that the database never took in."""
    world.replies.append(world.replies[0] | {"event_id": world.store.guid()})


def offset_ahead_of_database(world: World) -> None:
    """The group has read what the database has not."""
    partition = max(world.positions)
    world.group_offsets[partition] += 1


def torn_transaction(world: World) -> None:
    """A snapshot is missing on the topic."""
    edited = world.events[3]["customer_id"]
    world.snapshots = [
        (key, one) for key, one in world.snapshots if key != edited or one is None or one["version"] == 1
    ]


def edit_overwritten(world: World) -> None:
    """The edit of one field was lost, in the database and on the topic alike."""
    edited = world.events[3]["customer_id"]
    world.customers[edited]["customer"]["title"] = ""
    for key, snapshot in world.snapshots:
        if key == edited and snapshot is not None:
            snapshot["customer"]["title"] = ""


def answer_lost(world: World) -> None:
    """A store waits for an answer for ever."""
    rejected = world.events[5]["event_id"]
    world.replies = [reply for reply in world.replies if reply["event_id"] != rejected]


def repeat_not_counted(world: World) -> None:
    """A repeat left no trace in the log."""
    world.log[world.events[3]["event_id"]]["repeats"] = 0


def aborted_snapshot_in_channel(world: World) -> None:
    """A channel shows a customer as an aborted transaction had it."""
    world.channel_customers[world.events[1]["customer_id"]]["customer"]["title"] = "Aborted"


def surplus_after_resync(world: World) -> None:
    """A resync that only upserts leaves an erased customer in a channel."""
    third = world.events[2]["customer_id"]
    world.channel_customers[third] = deepcopy(world.customers[third]) | {"erased": False}


def missing_in_channel(world: World) -> None:
    """A channel lacks a customer that its positions have passed."""
    del world.channel_customers[world.events[1]["customer_id"]]


def pending_customer_lost(world: World) -> None:
    """A resync threw away a customer whose event had not been sent."""
    event = world.store.create()
    world.outbox.append(
        {
            "id": event["event_id"],
            "aggregatetype": "customer",
            "aggregateid": event["customer_id"],
            "type": "CustomerCreated",
            "payload": b"",
            "created_at": event["occurred_at"],
        }
    )


def sent_and_lost(world: World) -> None:
    """A relay marked an event as sent that never arrived."""
    pending_customer_lost(world)
    world.outbox[-1] |= {"sent_at": world.events[0]["occurred_at"], "settled_at": world.events[0]["occurred_at"]}


NUMBERS: Final = [
    (number_twice, "I2: account number C-00000001"),
    (gap, "I3: the continuous sequence of usrt lacks [4]"),
    (vanished_record, "I4: what was acknowledged"),
]
REPEATS: Final = [(two_numbers, "I1: customer"), (repeat_not_counted, "repeats: event")]
LOST: Final = [
    (lost_event, "I4: event"),
    (dead_letter_lost, "I4: async-customers"),
    (answer_lost, "replies: nobody told houston"),
]
DEAD_LETTERS: Final = [
    (log_and_dead_letter, "I4: event"),
    (dead_letter_changed, "I4: the dead letter"),
    (dead_letter_twice, "I4: async-customers"),
]
BACKWARDS: Final = [(version_back, "goes back from version 2 to 1"), (version_back_in_channel, "I5: houston")]
UNEQUAL: Final = [
    (same_version_other_content, "has another content than an earlier record of version 1"),
    (erased_revived, "revives the erased customer"),
]
CHANNEL: Final = [
    (aborted_snapshot_in_channel, "otherwise than the topic has version 1"),
    (surplus_after_resync, "I6: houston has customer"),
    (pending_customer_lost, "I7: houston has lost customer"),
]
CHANNEL_TOO: Final = [(missing_in_channel, "I6: houston lacks customer"), (sent_and_lost, "I4: houston has sent event")]
ABORTED: Final = [(aborted_event_applied, "where no committed record has it")]
ANSWERED: Final = [(answer_of_aborted_attempt, "was answered, and is not in the log")]
DATABASE: Final = [(offset_ahead_of_database, "I9: the group"), (torn_transaction, "I10: customers")]
OVERWRITTEN: Final = [(edit_overwritten, "model: headquarters has customer")]


@pytest.mark.parametrize(
    "bugs",
    [
        *(NUMBERS, REPEATS, LOST, DEAD_LETTERS, BACKWARDS, UNEQUAL),
        *(CHANNEL, CHANNEL_TOO, ABORTED, ANSWERED, DATABASE, OVERWRITTEN),
    ],
    ids=lambda bugs: "+".join(plant.__name__ for plant, _ in bugs),
)
def test_planted_bugs_are_found(world: World, bugs: list[tuple[Callable[[World], None], str]]) -> None:
    """Each of the classic bugs breaks the promise that it must break; some are planted together, to save time."""
    # given
    for plant, _ in bugs:
        plant(world)

    # when
    found = violations(world)

    # then
    missed = [plant.__name__ for plant, sentence in bugs if not any(sentence in one for one in found)]
    assert missed == [], found


def test_hanging_transaction_is_found(world: World) -> None:
    """A transaction that nobody ends hides everything behind it, and is named."""
    # given
    world.write()
    producer = world.producer()
    producer.produce(f"{world.prefix}customers", b"", "k")
    producer.flush()

    # when
    found = checker.violations(world.gather(), world.journal, SETTING)

    # then
    producer.abort_transaction()
    assert [one for one in found if one.startswith("I8: a transaction on")], found


def test_checker_imports_nothing_of_the_product() -> None:
    """What judges the product must not share its code."""
    ours = {"avro", "case", "checker", "contents", "evidence", "journal", "model", "states"}
    for name in ours:
        tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
        modules = [one.module or "" for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
        modules += [alias.name for one in ast.walk(tree) if isinstance(one, ast.Import) for alias in one.names]
        roots = {module.split(".")[0] for module in modules}
        assert not roots & {"schemas", "commerce", "producers", "consumers", "operations"}, name
        inside = {module for module in modules if module.startswith("tests.")}
        assert inside <= {f"tests.faults.{one}" for one in ours}, name
