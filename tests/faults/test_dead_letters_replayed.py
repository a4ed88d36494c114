"""Scenario 25 of the fault plan: dead letters that are replayed twice, and too late."""

import random
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from tenten.consumers.headquarters.dead_letters import DeadLetter, list_dead_letters, replay
from tenten.kafka.partitioner import partition_of
from tenten.schemas.topics import ASYNC_CUSTOMERS_DLQ, RETAIL_TRANSACTIONS_DLQ
from tenten.sql.engine import open_database
from tests.faults.avro import encode
from tests.faults.checker import violations
from tests.faults.evidence import gather
from tests.faults.journal import Operation, Writer
from tests.faults.processes import worker_process
from tests.faults.settled import wait_until_settled
from tests.faults.traffic import Store
from tests.sales import Till
from tests.scenes import SETTING, Scene, set_scene
from tests.settings_file import PARTITIONS
from tests.waiting import wait_for

LETTERS: Final = 5
"""The dead letters of the test: three events, and an order that was sent twice."""


def test_dead_letters_replayed_twice_and_too_late(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str
) -> None:
    """Meanwhile the clerk has corrected one customer and sent another one again, one was erased, and the store has sent
    its order a second time: none of that changes, and nothing is done twice.
    """
    scene = set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url)
    houston = Store(channel_id="houston", legal_entity="usrt", rng=random.Random(25))
    engine = open_database(headquarters_url)
    with worker_process(scene), worker_process(scene, group="transactions"):
        # given
        known = [houston.create() for _ in range(2)]
        scene.ask(*known)
        edited, erased = (event["customer_id"] for event in known)
        late_edit, late_for_erased = (houston.edit(customer_id, title="Late") for customer_id in (edited, erased))
        late_create = houston.create()
        late_order = Till(channel_id="houston").order(customer_id=late_create["customer_id"])
        late_events = (late_edit, late_for_erased, late_create)
        write_misplaced(scene, "CustomerEvent", *((event["customer_id"], event) for event in late_events))
        write_misplaced(scene, "RetailTransaction", *[("houston", late_order)] * 2)
        wait_for(lambda: len(letters_of(scene, engine)) == LETTERS, "the dead letters")
        correction = houston.edit(edited, [late_edit], title="New", last_name="Right")
        again = houston.edit(late_create["customer_id"], [late_create], title="New")
        scene.ask(correction, again, houston.erase(erased))
        before = customers_of(scene)

        # when
        for _ in range(2):
            assert replay(scene.settings, engine, letters_of(scene, engine)) == LETTERS
            wait_until_settled(scene, "transactions", "headquarters", released=True)

        # then
        outcomes = [reply["outcome"] for reply in scene.replies(*late_events)]
        assert customers_of(scene) == before
    engine.dispose()
    assert outcomes == ["SUPERSEDED", "ERASED", "SUPERSEDED"]
    evidence = gather(bootstrap_servers, prefix, headquarters_url)
    assert violations(evidence, scene.journal, SETTING) == []
    customers = evidence.headquarters.customers
    assert (customers[edited]["title"], customers[edited]["last_name"]) == ("New", "Right")
    assert customers[erased]["erased_at"] is not None
    assert [evidence.headquarters.log[event["event_id"]]["repeats"] for event in (late_edit, late_create)] == [2, 2]
    (order,) = evidence.headquarters.sales.orders
    assert str(order["transaction_id"]) == late_order["transaction_id"]


def write_misplaced(scene: Scene, contract: str, *records: tuple[str, dict[str, Any]]) -> None:
    """Write records, each with its key, to another partition than that of the key: headquarters does not read them."""
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    topic = "async-customers" if contract == "CustomerEvent" else "retail-transactions"
    for key, record in records:
        operation = Operation(topic=topic, key=key.encode(), value=encode(contract, record))
        writer.write(operation, (partition_of(key, PARTITIONS) + 1) % PARTITIONS)
    writer.flush()


def letters_of(scene: Scene, engine: Engine) -> list[DeadLetter]:
    """All dead letters."""
    return [
        letter
        for topic in (ASYNC_CUSTOMERS_DLQ, RETAIL_TRANSACTIONS_DLQ)
        for letter in list_dead_letters(scene.settings, engine, topic)
    ]


def customers_of(scene: Scene) -> dict[str, tuple[Any, ...]]:
    """Number, version and erasure of each customer, and everything that was entered."""
    tables = scene.tables()
    return {
        customer_id: (row["account_number"], row["version"], row["erased_at"], tables.states.get(customer_id))
        for customer_id, row in tables.customers.items()
    }
