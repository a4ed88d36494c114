"""Headquarters erases a customer at the request of a person, with a real worker and a real store."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tenten.consumers.headquarters.customers.erase import ErasedCustomer, erase_customer, wait_for_erasure
from tenten.identity.store_identity import write_identity
from tenten.producers import OpenChannel, create_customer, edit_customer, show_customer
from tenten.runtime.errors import AlreadyErased, InputRejected, NoSuchCustomer, SeveralCustomers
from tenten.sql.engine import open_database
from tests.conftest import NewDatabase
from tests.faults.journal import Writer
from tests.faults.traffic import Store
from tests.flow_scene import DALLAS, PARTS, set_flow
from tests.scenes import Scene, set_scene
from tests.signed import Keys, record_of
from tests.waiting import wait_for

WHY = "request 2026-117"


def store(channel: str, entity: str = "usrt") -> Store:
    """Events of a store."""
    return Store(channel_id=channel, legal_entity=entity, rng=random.Random(channel))


def erased_here(channel: OpenChannel, customer_id: str) -> bool:
    """Whether the store does not have the customer any more."""
    try:
        show_customer(channel, customer_id)
    except NoSuchCustomer:
        return True
    return False


def request_rows(scene: Scene) -> list[dict[str, Any]]:
    """The whole audit."""
    return scene.query("SELECT path, operator, channel_id, version, new_value FROM customer_audit ORDER BY audit_id")


@pytest.mark.parametrize("mode", ["require", "warn"])
def test_erased_customer_is_gone_in_every_store_and_the_audit_keeps_only_the_request(
    tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase, mode: str
) -> None:
    """The event is believed because headquarters has signed it. That of a store without `may_erase` is refused."""
    # given
    flow = set_flow(tmp_path, bootstrap_servers, prefix, new_database, "sqlite", erasing=())
    scene, keys = flow.scene, Keys(url=flow.scene.url)
    scene.toml.write_text(f'authentication = "{mode}"\n{scene.toml.read_text()}')
    engine = open_database(scene.url)
    with flow.opened() as houston, flow.opened(DALLAS) as dallas, scene.headquarters():
        pair = keys.prepare()
        keys.add("houston", pair)
        with houston.engine.begin() as connection:
            write_identity(connection, pair, keys.public_key(), datetime.now(UTC))
        with flow.running(*PARTS), flow.running("loop", channel=DALLAS):
            ada = create_customer(houston, last_name="Lovelace", email="ada@example.com").customer_id
            wait_for(lambda: show_customer(houston, ada).account_number is not None, "a number")
            edit_customer(houston, ada, title="Countess")
            wait_for(
                lambda: not erased_here(dallas, ada) and show_customer(dallas, ada).state.title == "Countess",
                "the title in dallas",
            )
            # when
            refused = refused_erasure(scene, keys.signature(pair).sign, ada)
            asked = erase_customer(scene.settings, engine, "C-00000001", why=WHY, operator="mary")
            erased = wait_for_erasure(engine, asked, 60)
            # then
            wait_for(lambda: erased_here(houston, ada) and erased_here(dallas, ada), "the customer to be gone")
    again = erase_customer(scene.settings, engine, ada, why="another reason", operator="john")
    engine.dispose()
    assert refused["outcome"] == "REJECTED"
    assert [reason["code"] for reason in refused["reasons"]] == ["not_permitted"]
    assert (erased.outcome, erased.customer_id, erased.account_number) == ("erased", ada, "C-00000001")
    assert again == erased
    assert request_rows(scene) == [
        {
            "path": "erasure",
            "operator": "mary",
            "channel_id": "headquarters",
            "version": 3,
            "new_value": {"why": WHY},
        }
    ]


def refused_erasure(scene: Scene, sign: Any, customer_id: str) -> dict[str, Any]:
    """The reply to an erasure by the store itself."""
    event = store("houston").erase(customer_id)
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    writer.write(sign(record_of(event)))
    writer.flush()
    (reply,) = scene.replies(event)
    return reply


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase) -> Scene:
    """Two legal entities whose account numbers look alike; all channels may erase."""
    return set_scene(tmp_path, bootstrap_servers, prefix, new_database("headquarters"), usrt_format="D########")


def test_request_is_carried_out_once_a_worker_runs_and_asking_again_changes_nothing(scene: Scene) -> None:
    """The first reason stays. A customer that is held is erased, too; what is unknown, ambiguous or erased by others is
    refused.
    """
    # given
    american, german, held = store("houston"), store("munich", "demf"), store("lyon", "frrt")
    first, second, other = american.create(), german.create(), american.create()
    waiting = held.create()
    with scene.headquarters():
        assert [reply["account_number"] for reply in scene.ask(first, second)] == ["D00000001"] * 2
        scene.ask(other, american.erase(other["customer_id"]), waiting)
    engine = open_database(scene.url)

    def ask(who: str, why: str = WHY, operator: str | None = None) -> ErasedCustomer:
        return erase_customer(scene.settings, engine, who, why=why, operator=operator)

    # when
    with pytest.raises(SeveralCustomers, match=f"{second['customer_id']} of demf, {first['customer_id']} of usrt"):
        ask("D00000001")
    refused = {"D99999999": NoSuchCustomer, american.guid(): NoSuchCustomer, other["customer_id"]: AlreadyErased}
    for who, error in refused.items():
        with pytest.raises(error):
            ask(who)
    for why, operator in ((" ", None), ("x" * 501, None), (WHY, "x" * 65)):
        with pytest.raises(InputRejected):
            ask(first["customer_id"], why, operator)
    asked, repeated = ask(first["customer_id"]), ask(first["customer_id"], "later", "john")
    of_held = ask(waiting["customer_id"])
    not_yet = wait_for_erasure(engine, asked, 0)
    with scene.headquarters():
        done = [wait_for_erasure(engine, request, 60) for request in (asked, of_held)]
    engine.dispose()
    # then
    assert (asked, asked.outcome, asked.why, asked.operator) == (repeated, None, WHY, None)
    assert not_yet == asked
    assert [(erased.outcome, erased.account_number) for erased in done] == [("erased", "D00000001"), ("erased", None)]
    log = scene.query("SELECT outcome, repeats, conflicts FROM synchronization_log WHERE event_id = %s", asked.event_id)
    assert log == [{"outcome": "erased", "repeats": 1, "conflicts": 0}]
    assert scene.query("SELECT count(*) FROM held_events WHERE value <> ''") == [{"count": 0}]


def test_rejected_request_can_be_made_again(scene: Scene) -> None:
    """It is a new event, with its own reason."""
    # given
    created = store("houston").create()
    with scene.headquarters():
        scene.ask(created)
    engine = open_database(scene.url)
    asked = erase_customer(scene.settings, engine, created["customer_id"], why="a trial")
    scene.query(
        "INSERT INTO synchronization_log (event_id, customer_id, channel_id, kind, outcome, reasons, topic, partition, "
        "\"offset\", occurred_at, received_at) VALUES (%s, %s, 'headquarters', 'erased', 'rejected', "
        '\'[{"field": "", "code": "database_refused", "text": "No."}]\', \'x\', 0, 0, now(), now())',
        asked.event_id,
        created["customer_id"],
    )
    rejected = wait_for_erasure(engine, asked, 0)
    # when
    again = erase_customer(scene.settings, engine, created["customer_id"], why=WHY)
    with scene.headquarters():
        done = wait_for_erasure(engine, again, 60)
    engine.dispose()
    # then
    assert (rejected.outcome, [reason["code"] for reason in rejected.reasons]) == ("rejected", ["database_refused"])
    assert again.event_id != asked.event_id
    assert (done.outcome, done.why) == ("erased", WHY)
