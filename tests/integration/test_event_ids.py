"""An event is identified by its id, its customer and its content: the same id with other content is not a repeat."""

import random
from copy import deepcopy
from typing import Any, Final

import pytest

from tenten.status.databases import read_headquarters
from tests.faults.avro import decode
from tests.faults.checker import violations
from tests.faults.evidence import gather, read_topic
from tests.faults.identity import is_conflict_reply
from tests.faults.settled import wait_until_settled
from tests.faults.traffic import Event, Store
from tests.sales import Till, send, wait_until
from tests.scenes import SETTING, Scene

LARGE: Final = 200
"""Events of a batch that headquarters handles in columns."""


@pytest.fixture
def dallas() -> Store:
    """Another store of the same company."""
    return Store(channel_id="dallas", legal_entity="usrt", rng=random.Random(2))


def changed(event: Event, **fields: Any) -> Event:
    """Another event with the id of this one: its customer has these values."""
    other = deepcopy(event)
    other["customer"] |= fields
    return other


def conflict_replies(scene: Scene) -> list[dict[str, Any]]:
    """The rejections of events with the id of another event."""
    records = read_topic(scene.bootstrap_servers, scene.prefix, "channel-replies")
    return [reply for record in records if is_conflict_reply(reply := decode("Reply", record.value or b""))]


def assert_sound(scene: Scene) -> None:
    """The checker finds that each conflict was rejected, and nothing else has changed."""
    assert violations(gather(scene.bootstrap_servers, scene.prefix, scene.url), scene.journal, SETTING) == []


def test_same_id_with_other_content_is_rejected_and_its_correction_is_applied(
    scene: Scene, houston: Store, dallas: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first event stands. The second store's next event brings the changes along, as after any rejection."""
    # given
    first = houston.create(last_name="Lee", title="")
    customer_id = first["customer_id"]
    dallas.adopt(houston, customer_id)
    second = changed(first, title="Dr.") | {"channel_id": "dallas", "changed": ["title"]}
    dallas.customers[customer_id]["title"] = "Dr."
    correction = dallas.edit(customer_id, [second], middle_name="M")

    # when
    with scene.headquarters():
        scene.ask(first)
        scene.send(second, first)
        scene.ask(houston.touch(customer_id))
        rejected = scene.tables()
        scene.ask(correction)
        scene.send(correction)
        scene.ask(houston.touch(customer_id))

    # then
    row = rejected.log[first["event_id"]]
    assert (row["channel_id"], row["outcome"], row["repeats"], row["conflicts"]) == ("houston", "synchronized", 1, 1)
    assert rejected.states[customer_id]["title"] == ""
    to_second = [
        (reply["channel_id"], reply["outcome"], reply["judgement"], reply["account_number"])
        for reply in conflict_replies(scene)
    ]
    assert to_second == [("dallas", "REJECTED", 1, None), *[("dallas", "SUPERSEDED", 2, None)] * 2]
    state = scene.tables().states[customer_id]
    assert (state["title"], state["middle_name"]) == ("Dr.", "M")
    assert scene.tables().log[first["event_id"]]["outcome"] == "synchronized"
    (alarm,) = [line for line in capsys.readouterr().out.splitlines() if "event_id_conflicted" in line]
    assert "channel=dallas" in alarm
    assert "first_channel=houston" in alarm
    assert read_headquarters(scene.settings).status.conflicts == 1
    assert_sound(scene)


def test_conflicts_are_found_in_batches_of_any_size(scene: Scene, houston: Store) -> None:
    """Within a large batch, between large ones, and between a small one and a large one; all others are created."""
    # given
    alone = houston.create()
    batches = [[houston.create() for _ in range(LARGE)] for _ in range(2)]
    conflicts = [changed(event, last_name="Other") for event in (alone, batches[0][0], batches[0][1])]
    inside = changed(batches[0][2], last_name="Other")

    # when
    with scene.headquarters():
        scene.ask(alone)
    scene.send(*batches[0], inside)
    with scene.headquarters():
        scene.replies(*batches[0])
    scene.send(*batches[1], *conflicts, alone, batches[0][0])
    with scene.headquarters():
        scene.replies(*batches[1])
        wait_until_settled(scene, "headquarters")

    # then
    rejected = [reply["event_id"] for reply in conflict_replies(scene)]
    assert sorted(rejected) == sorted(event["event_id"] for event in (inside, *conflicts))
    tables = scene.tables()
    assert len(tables.customers) == 2 * LARGE + 1
    assert [tables.log[event["event_id"]]["repeats"] for event in (alone, batches[0][0])] == [1, 1]
    assert_sound(scene)


def test_embedded_events_with_one_id_and_other_content_are_judged(scene: Scene, houston: Store, dallas: Store) -> None:
    """Orders bring events with the id of another event, known or in the same batch: each is forwarded and rejected."""
    # given
    first, known = houston.create(last_name="Lee"), houston.create(last_name="Lee")
    conflicts = [changed(event, last_name="Li") | {"channel_id": "dallas"} for event in (known, known, first)]
    conflicts[1]["customer"]["title"] = "Dr."
    conflicts[2] |= {"channel_id": "houston"}
    orders = [Till(channel_id="houston").order(first)]
    tills = {name: Till(channel_id=name, rng=random.Random(3)) for name in ("dallas", "houston")}
    tills["houston"].rng.seed(4)
    later = [tills[event["channel_id"]].order(event) for event in (*conflicts, first)]

    # when
    with scene.headquarters(), scene.transactions():
        scene.ask(known)
        send(scene, *orders)
        wait_until(scene, orders[0], "synchronized")
        send(scene, *later)
        for order in later:
            wait_until(scene, order, "synchronized")
        wait_until_settled(scene, "transactions", "headquarters")

    # then
    expected = [(event["event_id"], event["channel_id"]) for event in conflicts]
    assert sorted((reply["event_id"], reply["channel_id"]) for reply in conflict_replies(scene)) == sorted(expected)
    assert [state["last_name"] for state in scene.tables().states.values()] == ["Lee", "Lee"]
    assert_sound(scene)


def test_embedded_event_that_is_known_is_not_forwarded(scene: Scene, houston: Store) -> None:
    """Its order is synchronized all the same, and the offset of a batch that sends nothing is committed."""
    known = houston.create()
    order = Till(channel_id="houston").order(known)
    with scene.headquarters(), scene.transactions():
        scene.ask(known)
        send(scene, order)
        wait_until(scene, order, "synchronized")
        wait_until_settled(scene, "transactions", "headquarters")
    assert len(read_topic(scene.bootstrap_servers, scene.prefix, "async-customers")) == 1
    assert_sound(scene)
