"""Attacks on a running headquarters by somebody with a store's access to the topics.

After each of them another store is served, and its customer is what it was.
"""

import random
from collections import Counter
from dataclasses import replace
from typing import Final

from tenten.identity.channel_changes import By
from tenten.identity.suspension import resume
from tenten.kafka.partitioner import partition_of
from tenten.sql.engine import open_database
from tests.faults.avro import encode
from tests.faults.evidence import headers_of
from tests.faults.journal import Operation
from tests.faults.settled import wait_until_settled
from tests.faults.traffic import Store
from tests.hostile import forgeries
from tests.hostile.target import SERVED_SECONDS_MAX, Target, text
from tests.sales import reply_with_status
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL
from tests.settings_file import PARTITIONS
from tests.signed import record_of, record_of_sale
from tests.waiting import wait_for

IN_A_ROW_MAX: Final = 1_000
"""The default of `dead_letters_in_a_row_max`."""

RECORDS: Final = 10_000
PLANS: Final = 500
SEED: Final = 12
"""Of the test with many records."""


def test_store_cannot_speak_for_another_store_or_headquarters(target: Target) -> None:
    """Signed with its own key, not signed, or with the headers of one of its own records: all are dead letters.

    In the name of a channel that does not exist it may write what is not signed: that is held, and changes nothing.
    """
    # given
    victim = target.victim["customer_id"]
    forged = [
        target.attacker.create(victim, last_name="Stolen") | {"channel_id": "dallas"},
        target.attacker.erase(victim) | {"channel_id": "headquarters"},
        target.attacker.touch(victim),
        target.attacker.create(victim, last_name="Stolen") | {"channel_id": "unknown"},
    ]
    own = target.event(target.attacker.create())
    records = [
        *map(target.event, forged),
        *map(record_of, forged[:3]),
        *(replace(record_of(event), headers=own.headers) for event in forged[:3]),
    ]
    order = target.attacker_till.order(target.attacker.create()) | {"channel_id": "dallas"}
    sales = [target.sale(order), record_of_sale(order)]

    # when
    target.attack(own, *records, *sales, record_of(forged[3]))

    # then
    reasons = {headers_of(letter)["x-dlq-reason"] for letter in map(target.dead_letter, (*records, *sales))}
    assert reasons == {"not_authentic"}
    (held,) = target.scene.replies(forged[3])
    assert held["outcome"] == "HELD"
    target.assert_unharmed()
    assert not target.answered({event["event_id"] for event in forged[:3]} | {order["transaction_id"]})


def test_rubbish_that_nobody_has_signed_stops_nothing(target: Target) -> None:
    """More of it in a row than headquarters bears from one store, on both topics; some of it names other stores."""
    # given
    event = encode("CustomerEvent", target.attacker.create() | {"channel_id": "dallas"})
    sale = encode("RetailTransaction", target.attacker_till.sale() | {"channel_id": "dallas"})
    rubbish = [Operation(key=b"dallas", value=value) for value in (b"", b"\x00", event[:-3])]
    rubbish += [Operation(topic="retail-transactions", key=b"dallas", value=value) for value in (b"", sale[:-3])]

    # when
    target.attack(*rubbish * (IN_A_ROW_MAX // 2 + 1))

    # then
    target.assert_unharmed()
    assert target.scene.query("SELECT channel_id FROM channels WHERE suspended_at IS NOT NULL") == []


def test_store_that_sends_only_rubbish_is_suspended_and_no_other(target: Target) -> None:
    """Its events are not answered, and are accepted when it sends them again after `resume`."""
    # given
    munich = Store(channel_id="munich", legal_entity="demf", rng=random.Random(71))
    damaged = record_of(munich.create())
    damaged = replace(damaged, value=(damaged.value or b"")[:-3])
    event = munich.create()
    suspended = "SELECT channel_id FROM channels WHERE suspended_at IS NOT NULL"

    # when
    target.attack(*[target.signatures["munich"].sign(damaged)] * (IN_A_ROW_MAX + 1))
    wait_for(lambda: target.scene.query(suspended) != [], "the suspension", SERVED_SECONDS_MAX)
    refused = target.event(event, "munich")
    target.attack(refused)

    # then
    assert target.scene.query(suspended) == [{"channel_id": "munich"}]
    assert headers_of(target.dead_letter(refused))["x-dlq-reason"] == "suspended"
    target.assert_unharmed()
    assert not target.answered({event["event_id"]})
    engine = open_database(target.scene.url)
    resume(engine, "munich", By(source="a test"))
    engine.dispose()
    (reply,) = target.ask(event)
    assert reply["outcome"] == "SYNCHRONIZED"


def test_store_cannot_erase_or_touch_customers(target: Target) -> None:
    """Such events are rejected, sent alone or inside an order, and the customer is not sent to all stores again."""
    # given
    victim = target.victim["customer_id"]
    erasure, touch = target.attacker.erase(victim), target.attacker.touch(victim) | {"channel_id": "houston"}
    embedded = target.attacker.erase(victim)
    munich = Store(channel_id="munich", legal_entity="demf", rng=random.Random(70))
    own = munich.create()
    of_other_company, of_own_company = munich.erase(victim), munich.erase(own["customer_id"])
    target.attack(target.event(own, "munich"))

    # when
    target.attack(*[target.event(erasure), target.event(touch)] * 20)
    target.attack(*(target.event(event, "munich") for event in (of_other_company, of_own_company)))
    target.attack(target.sale(target.attacker_till.order(embedded)))

    # then
    replies = target.scene.replies(erasure, touch, embedded, of_other_company, of_own_company)
    assert [(reply["outcome"], [reason["code"] for reason in reply["reasons"]]) for reply in replies] == [
        ("REJECTED", ["not_permitted"]),
        ("REJECTED", ["not_permitted"]),
        ("REJECTED", ["not_permitted"]),
        ("REJECTED", ["other_legal_entity"]),
        ("ERASED", []),
    ]
    target.assert_unharmed()


def test_store_cannot_supersede_an_event_of_another_store(target: Target) -> None:
    """The other store's rejected event keeps its outcome, and its correction still has the changes of both."""
    # given
    wrong = target.other.create(last_name="", first_name=" ", title="Dr.")
    (rejected,) = target.ask(wrong)
    superseded = {"event_id": wrong["event_id"], "changed": ["title"]}
    ours = target.attacker.create(wrong["customer_id"], title="") | {"supersedes": [superseded], "changed": []}

    # when
    target.ask(ours)

    # then
    assert rejected["outcome"] == "REJECTED"
    (row,) = target.scene.query("SELECT outcome FROM synchronization_log WHERE event_id = %s", wrong["event_id"])
    assert row == {"outcome": "rejected"}
    target.assert_unharmed()


def test_event_inside_a_sale_must_belong_to_it(target: Target) -> None:
    """An event of another channel, customer or id rejects the sale, an unreadable one makes it a dead letter."""
    # given
    till, event = target.attacker_till, target.attacker.create()
    of_victim = target.attacker.create(target.victim["customer_id"], last_name="Stolen") | {"channel_id": "dallas"}
    of_headquarters = target.attacker.erase(target.victim["customer_id"]) | {"channel_id": "headquarters"}
    foreign = [
        till.order(of_victim),
        till.order(of_headquarters),
        till.order(event) | {"customer_id": target.victim["customer_id"]},
        till.order(event) | {"customer_event_id": target.attacker.guid()},
    ]
    unreadable = [till.order(event) | {"customer_event": value} for value in (b"", b"\xc3\x01" + bytes(20))]
    unreadable.append(till.order(event | {"channel_id": text(100)}))

    # when
    records = list(map(target.sale, unreadable))
    target.attack(*map(target.sale, foreign), *records)

    # then
    reasons = [reply_with_status(target.scene, order, "rejected")["reasons"] for order in (*foreign, *unreadable)]
    assert [reason["code"] for (reason,) in reasons] == ["event_mismatch"] * 4 + ["unreadable_event"] * 3
    assert [headers_of(target.dead_letter(record))["x-dlq-reason"] for record in records] == [
        "no_avro",
        "unknown_schema",
        "malformed",
    ]
    target.assert_unharmed()
    ids = {headers_of(record).get("id") for record in target.read("async-customers")}
    assert not ids & {event["event_id"], of_victim["event_id"], of_headquarters["event_id"]}


def test_record_in_another_partition_than_its_key_is_a_dead_letter(target: Target) -> None:
    """Two workers could own its customer, and the older snapshot could end up last."""
    # given
    edit = target.event(target.attacker.create(target.victim["customer_id"], last_name="Stolen"))
    owned = partition_of(target.victim["customer_id"], PARTITIONS)

    # when
    target.attack(edit, partition=(owned + 1) % PARTITIONS)

    # then
    assert headers_of(target.dead_letter(edit))["x-dlq-reason"] == "wrong_partition"
    target.assert_unharmed()


def test_of_many_records_only_the_authentic_change_anything(target: Target) -> None:
    """Every authentic one is answered; of the others only those in the name of channels that do not exist, which change
    nothing.
    """
    # given
    stores = {
        channel: Store(channel_id=channel, legal_entity=entity, rng=random.Random(channel))
        for channel, entity in LEGAL_ENTITY_BY_CHANNEL.items()
    }
    sent = forgeries.records(forgeries.plans(PLANS, SEED), RECORDS, target.signatures, stores)
    authentic = [record.event for record in sent if record.is_authentic]
    before, logged_before = target.customers(), {row["event_id"] for row in target.log()}

    # when
    target.attack(*(record.record for record in sent))

    # then
    replies = target.scene.replies(*authentic)
    wait_until_settled(target.scene, "headquarters")
    assert {reply["outcome"] for reply in replies} == {"SYNCHRONIZED"}
    edits = Counter(event["customer_id"] for event in authentic)
    expected = {
        customer_id: (customer["last_name"], customer.get("title", ""), edits[customer_id])
        for store in stores.values()
        for customer_id, customer in store.customers.items()
    }
    assert target.customers() == before | expected
    ids = logged_before.union(event["event_id"] for event in authentic)
    others = [row for row in target.log() if row["event_id"] not in ids]
    assert {row["outcome"] for row in others} <= {"held", "rejected"}
    assert {row["channel_id"] for row in others}.isdisjoint((*LEGAL_ENTITY_BY_CHANNEL, "headquarters"))
    assert min(len(authentic), RECORDS - len(authentic) - len(others)) > RECORDS // 4
    target.assert_unharmed()
