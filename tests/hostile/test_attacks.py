"""Attacks on a running headquarters by somebody with a store's access to the topics.

After each of them another store is served, and its customer is what it was.
"""

import json
import random
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tenten.avro.primitives import data_bytes
from tenten.avro.wire import SINGLE_OBJECT_HEADER_BYTES, SINGLE_OBJECT_MAGIC, avro_schema, contract
from tenten.kafka.partitioner import partition_of
from tests.faults.avro import encode
from tests.faults.evidence import headers_of
from tests.faults.journal import Operation
from tests.faults.settled import wait_until_settled
from tests.faults.traffic import Store
from tests.hostile import forgeries
from tests.hostile.foreign_writers import contract_with
from tests.hostile.target import Target, text, with_legal_entity
from tests.sales import reply_with_status
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL
from tests.settings_file import PARTITIONS
from tests.signed import record_of, record_of_sale

IN_A_ROW_MAX: Final = 1_000
"""The default of `dead_letters_in_a_row_max`."""

RECORDS: Final = 10_000
PLANS: Final = 500
SEED: Final = 12
"""Of the test with many records."""

UNKNOWN_SCHEMAS: Final = 2_000


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


def test_published_schemas_are_used_only_if_they_are_harmless(target: Target) -> None:
    """One under a false fingerprint, one that never ends, one whose texts are numbers, and many unknown ones."""
    # given
    swapped = json.dumps(contract("CustomerEvent").json)
    for before, after in (("first_name", "?"), ("last_name", "first_name"), ("?", "last_name")):
        swapped = swapped.replace(f'"{before}"', f'"{after}"')
    endless = contract_with(changed={"type": "array", "items": "null"})
    numbers = contract_with(channel_id={"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2})
    published = {
        b"swapped!": swapped,
        avro_schema(endless).fingerprint: json.dumps(endless),
        avro_schema(numbers).fingerprint: json.dumps(numbers),
        b"too deep": "[" * 100_000,
    }
    schemas = [
        Operation(topic="schemas", key=name.hex().encode(), value=schema.encode()) for name, schema in published.items()
    ]
    edit = target.attacker.create(target.victim["customer_id"], last_name="Stolen")
    body = encode("CustomerEvent", edit)[SINGLE_OBJECT_HEADER_BYTES:]
    key = edit["customer_id"].encode()
    sign = target.signatures["houston"].sign
    records = [sign(Operation(key=key, value=SINGLE_OBJECT_MAGIC + name + body)) for name in published]
    unknown = [
        Operation(key=key, value=SINGLE_OBJECT_MAGIC + number.to_bytes(8) + body) for number in range(UNKNOWN_SCHEMAS)
    ]

    # when
    target.attack(*schemas)
    target.attack(*records)
    target.attack(*unknown)

    # then
    reasons = [headers_of(target.dead_letter(record))["x-dlq-reason"] for record in records]
    assert reasons == ["unknown_schema", "unknown_schema", "malformed", "unknown_schema"]
    target.assert_unharmed()


def test_identifiers_that_fit_no_output_are_dead_letters(target: Target) -> None:
    """A reply to such an event would not fit its topic, or no row could hold it."""
    # given
    new = target.attacker.create
    superseded = {"event_id": text(70), "changed": []}
    events = (
        new() | {"channel_id": text(450_000)},
        new() | {"channel_id": "houston\n"},
        with_legal_entity(new(), text(300_000)),
        with_legal_entity(new(), "\x01" * 300_000),
        new() | {"supersedes": [superseded]},
    )
    sale = target.attacker_till.sale() | {"legal_entity": text(400_000)}
    # In the name of channels that do not exist: headquarters believes those, as long as it need not hold them.
    records = [*map(record_of, events[:2]), *map(target.event, events[2:]), target.sale(sale)]

    # when
    target.attack(*records)

    # then
    for record in records:
        letter = target.dead_letter(record)
        assert headers_of(letter)["x-dlq-reason"] == "malformed"
        assert (letter.key, letter.value) == (record.key, record.value)
    target.assert_unharmed()


def test_record_that_was_compressed_beyond_all_limits_is_cut(target: Target) -> None:
    """Of a record that fits no dead letter the beginning is kept; small records on the wire can be that large."""
    # given: repeated at a distance that a stronger compression than headquarters' recognizes
    block = random.Random(1).randbytes(200_000)
    key = target.attacker.guid().encode()
    bomb = Operation(key=key, value=block * 100, headers=(("x", b"y"),))

    # when
    target.attack(bomb)

    # then
    letter = target.dead_letter(bomb)
    headers = headers_of(letter)
    assert (headers["x-dlq-reason"], int(headers["x-dlq-cut-from-bytes"]) > 20_000_000) == ("too_large", True)
    assert (letter.key, letter.value) == (key, block[: 64 * 1024])
    assert "x" not in headers
    target.assert_unharmed()


def test_lists_that_take_long_to_check_are_dead_letters(target: Target) -> None:
    """Each is a few hundred bytes on the wire, and took seconds to check; a few of them kept others waiting."""
    # given
    new = target.attacker.create
    nothing = {"text": None, "integer": None, "boolean": None, "decimal": None}
    records = [
        target.event(event)
        for event in (
            new() | {"changed": [""] * 500_000},
            new() | {"supersedes": [{"event_id": "", "changed": []}] * 240_000},
            new(attributes=[{"name": "", **nothing}] * 90_000) | {"changed": []},
        )
    ]
    sale = target.attacker_till.sale() | {"payments": [{"method": "", "amount": Decimal(0)}] * 200_000}
    records.append(target.sale(sale))

    # when
    for record in records:
        target.attack(*[record] * 5)

    # then
    assert [headers_of(target.dead_letter(record))["x-dlq-reason"] for record in records] == ["malformed"] * 4
    target.assert_unharmed()


def test_number_that_takes_long_to_read_is_a_dead_letter(target: Target) -> None:
    """The time for a number grows with the square of its length; a few such events would stop headquarters."""
    # given
    unset = {"text": None, "integer": None, "boolean": None}
    event = target.attacker.create(attributes=[{"name": "n", **unset, "decimal": Decimal(2**40)}])
    number = data_bytes((2**40 * 1_000_000).to_bytes(8, "big"))
    value = encode("CustomerEvent", event)
    assert value.count(number) == 1
    value = value.replace(number, data_bytes(b"\x7f" * 500_000))
    record = target.signatures["houston"].sign(replace(record_of(event), value=value))

    # when
    target.attack(*[record] * 3)

    # then
    assert headers_of(target.dead_letter(record))["x-dlq-reason"] == "malformed"
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
