"""Dead letters and what an operator does about them: look, replay, discard."""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
from typing import Any, Final

import fastavro
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form
from sqlalchemy import Engine

from tenten.consumers.headquarters.dead_letters import (
    DEAD_LETTER_HEADERS,
    DeadLetter,
    find_dead_letter,
    list_dead_letters,
    record_decision,
    replay,
)
from tenten.kafka.partitioner import partition_of
from tenten.runtime.errors import KafkaRefused, NoSuchDeadLetter
from tenten.schemas.topics import ASYNC_CUSTOMERS_DLQ, RETAIL_TRANSACTIONS_DLQ
from tenten.sql.engine import open_database
from tests.faults.avro import declaration, encode
from tests.faults.checker import violations
from tests.faults.evidence import gather, read_topic
from tests.faults.journal import Operation, Writer
from tests.faults.settled import wait_until_settled
from tests.faults.traffic import Event, Store
from tests.sales import Till, reply_with_status
from tests.scenes import SETTING, Scene
from tests.settings_file import PARTITIONS
from tests.waiting import wait_for

NEWER: Final = "a field of the next release"


@pytest.fixture
def engine(scene: Scene) -> Iterator[Engine]:
    """Headquarters' database."""
    opened = open_database(scene.url)
    yield opened
    opened.dispose()


def newer_schema() -> dict[str, Any]:
    """The event's contract as a later release may define it."""
    schema: dict[str, Any] = deepcopy(declaration("CustomerEvent"))
    schema["fields"].insert(1, {"name": "newer", "type": "string", "default": ""})
    return schema


def fingerprint_of(schema: dict[str, Any]) -> bytes:
    """The schema's fingerprint."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def encoded_newer(event: Event) -> bytes:
    """An event as the later release encodes it."""
    out = BytesIO()
    out.write(b"\xc3\x01" + fingerprint_of(newer_schema()))
    fastavro.schemaless_writer(out, parse_schema(newer_schema()), event | {"newer": NEWER})
    return out.getvalue()


def write(scene: Scene, *operations: Operation) -> None:
    """Write records to async-customers."""
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    for operation in operations:
        writer.write(operation)
    writer.flush()


def wait_for_letters(scene: Scene, engine: Engine, count: int) -> list[DeadLetter]:
    """Exactly `count` dead letters, once they have arrived: a reply to one record proves nothing about other
    partitions.
    """
    letters: list[DeadLetter] = []

    def have_arrived() -> bool:
        letters[:] = list_dead_letters(scene.settings, engine, ASYNC_CUSTOMERS_DLQ)
        return len(letters) >= count

    wait_for(have_arrived, "dead letters")
    assert len(letters) == count
    return letters


def test_event_of_a_newer_release_is_replayed_once_its_schema_is_known(
    scene: Scene, houston: Store, engine: Engine
) -> None:
    """It is a dead letter while its schema is unknown; replayed later it is an event, and a second replay a repeat."""
    # given
    event = houston.create()
    key = event["customer_id"].encode()
    write(scene, Operation(key=key, value=encoded_newer(event), headers=(("id", b"1"), ("x", None))))
    with scene.headquarters():
        scene.ask(houston.create())
        (letter,) = wait_for_letters(scene, engine, 1)
        assert [name for name, _ in letter.headers] == ["id", "x", *tuple(DEAD_LETTER_HEADERS)[:-1]]
        assert (letter.reason, letter.key, letter.value) == ("unknown_schema", key, encoded_newer(event))

        # when
        producer = Producer({"bootstrap.servers": scene.bootstrap_servers})
        producer.produce(
            f"{scene.prefix}schemas", key=fingerprint_of(newer_schema()).hex(), value=json.dumps(newer_schema())
        )
        producer.flush()
        assert replay(scene.settings, engine, [letter]) == 1
        (first,) = scene.replies(event)
        assert replay(scene.settings, engine, [letter]) == 1
        scene.ask(houston.touch(event["customer_id"]))

    # then
    assert (first["outcome"], first["account_number"]) == ("SYNCHRONIZED", "C-00000002")
    (after,) = list_dead_letters(scene.settings, engine, ASYNC_CUSTOMERS_DLQ)
    assert (after.decision, after.header("x-dlq-attempt"), after.header("id")) == ("replayed", "1", "1")
    row = scene.tables().log[event["event_id"]]
    assert (row["outcome"], row["repeats"]) == ("synchronized", 1)


def test_replay_of_a_still_unreadable_record_makes_a_new_dead_letter(
    scene: Scene, houston: Store, engine: Engine
) -> None:
    """The new dead letter names the second attempt; the first one is marked as replayed."""
    # given
    write(scene, Operation(key=b"k", value=b"broken", headers=(("id", b"1"),)))
    with scene.headquarters():
        scene.ask(houston.create())
        (letter,) = wait_for_letters(scene, engine, 1)

        # when
        replay(scene.settings, engine, [letter])
        replies = scene.ask(houston.create())
        letters = wait_for_letters(scene, engine, 2)

    # then
    assert [reply["outcome"] for reply in replies] == ["SYNCHRONIZED"]
    assert [(letter.decision, letter.header("x-dlq-attempt")) for letter in letters] == [
        ("replayed", "1"),
        ("open", "2"),
    ]
    assert letters[1].origin.startswith(f"{scene.prefix}async-customers/")
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []


def test_dead_letter_stays_open_when_the_broker_does_not_accept_its_replay(
    scene: Scene, houston: Store, engine: Engine
) -> None:
    """Only the dead letters that the topic has accepted are marked as replayed."""
    # given
    large, small = random.Random(1).randbytes(6_000), b"small"
    write(scene, Operation(key=b"k", value=large), Operation(key=b"k", value=small))
    with scene.headquarters():
        scene.ask(houston.create())
        letters = wait_for_letters(scene, engine, 2)
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    entry = ConfigEntry("max.message.bytes", "3000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, f"{scene.prefix}async-customers", incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(20)

    # when
    for letter in letters:
        if letter.value == large:
            with pytest.raises(KafkaRefused, match=r"max\.message\.bytes"):
                replay(scene.settings, engine, [letter])
        else:
            replay(scene.settings, engine, [letter])

    # then
    letters = list(list_dead_letters(scene.settings, engine, ASYNC_CUSTOMERS_DLQ))
    decisions = {letter.value: letter.decision for letter in letters}
    assert decisions == {large: "open", small: "replayed"}


def test_discarded_dead_letter_stays_on_the_topic(scene: Scene, houston: Store, engine: Engine) -> None:
    """The decision is recorded in the database; a position without a dead letter raises."""
    # given
    write(scene, Operation(key=None, value=None))
    with scene.headquarters():
        scene.ask(houston.create())
    (letter,) = wait_for_letters(scene, engine, 1)

    # when
    record_decision(scene.settings, engine, [letter], "discarded")

    # then
    found: DeadLetter = find_dead_letter(scene.settings, engine, ASYNC_CUSTOMERS_DLQ, letter.partition, letter.offset)
    assert (found.decision, found.reason, found.key, found.value) == ("discarded", "null_value", None, None)
    with pytest.raises(NoSuchDeadLetter):
        find_dead_letter(scene.settings, engine, ASYNC_CUSTOMERS_DLQ, 0, 999)


def unreadable_transaction(scene: Scene, value: bytes) -> None:
    """Write a dead letter of retail-transactions whose header names a wrong topic."""
    origin = {"topic": f"{scene.prefix}customers", "partition": "7", "offset": "41", "exception.message": "no Avro"}
    headers: list[tuple[str, str | bytes | None]] = [("id", b"1"), ("x-dlq-reason", b"no_avro")]
    headers += [(f"__connect.errors.{name}", text) for name, text in origin.items()]
    producer = Producer({"bootstrap.servers": scene.bootstrap_servers})
    producer.produce(f"{scene.prefix}retail-transactions.dlq", value, b"houston", headers=headers)
    assert producer.flush(30) == 0


def test_dead_letter_of_a_transaction_goes_back_to_retail_transactions(scene: Scene, engine: Engine) -> None:
    """It is sent byte for byte to the topic that its dead letter topic belongs to, whatever its headers name."""
    # given
    unreadable_transaction(scene, b"\x00poison")
    [letter] = list_dead_letters(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ)

    # when
    assert replay(scene.settings, engine, [letter]) == 1

    # then
    [again] = read_topic(scene.bootstrap_servers, scene.prefix, "retail-transactions")
    assert (again.key, again.value, again.headers) == (b"houston", b"\x00poison", (("id", b"1"),))
    assert read_topic(scene.bootstrap_servers, scene.prefix, "customers") == ()
    [after] = list_dead_letters(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ)
    assert (after.position, after.decision) == ("retail-transactions.dlq/0/0", "replayed")
    assert list(list_dead_letters(scene.settings, engine, ASYNC_CUSTOMERS_DLQ)) == []


def test_decision_about_a_transaction_leaves_the_customers_letter_at_the_same_position_open(
    scene: Scene, engine: Engine
) -> None:
    """Partition and offset alone do not identify a dead letter."""
    # given
    unreadable_transaction(scene, b"of a transaction")
    producer = Producer({"bootstrap.servers": scene.bootstrap_servers})
    producer.produce(f"{scene.prefix}async-customers.dlq", b"of a customer")
    assert producer.flush(30) == 0

    # when
    record_decision(
        scene.settings, engine, list_dead_letters(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ), "discarded"
    )

    # then
    of_transaction = find_dead_letter(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ, 0, 0)
    of_customer = find_dead_letter(scene.settings, engine, ASYNC_CUSTOMERS_DLQ, 0, 0)
    assert (of_transaction.value, of_transaction.decision) == (b"of a transaction", "discarded")
    assert (of_customer.value, of_customer.decision, of_customer.position) == (b"of a customer", "open", "0/0")
    with pytest.raises(NoSuchDeadLetter, match=r"retail-transactions\.dlq/0/1"):
        find_dead_letter(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ, 0, 1)


def test_store_is_told_which_of_its_events_cannot_be_read(scene: Scene, houston: Store, engine: Engine) -> None:
    """An event is answered if its beginning names a known channel and the event, even if it is too large or damaged."""
    # given
    large, damaged, renamed, strange = (houston.create() for _ in range(4))
    large["customer"]["last_name"] = "x" * 600_000
    strange["channel_id"] = "nowhere"
    values = [encode("CustomerEvent", event) for event in (large, damaged, renamed, strange)]
    keys = [event["customer_id"].encode() for event in (large, damaged, renamed, strange)]
    ids = [large["event_id"], damaged["event_id"], strange["event_id"], strange["event_id"]]
    damages = [values[0], values[1][:-3], values[2][:-3], values[3][:-3]]
    operations = [
        Operation(key=key, value=value, headers=(("id", name.encode()),))
        for key, value, name in zip(keys, damages, ids, strict=True)
    ]

    # when
    write(scene, *operations, Operation(key=b"k", value=b"broken"))
    with scene.headquarters():
        wait_for_letters(scene, engine, 5)
        answers = scene.replies(large, damaged)
        scene.ask(houston.create())

    # then
    assert [answer["outcome"] for answer in answers] == ["UNREADABLE"] * 2
    assert [answer["reasons"][0]["code"] for answer in answers] == ["unreadable_event"] * 2
    assert "more than 524288" in answers[0]["reasons"][0]["text"]
    assert [(answer["input_partition"], answer["input_offset"]) for answer in answers] == [
        (operation.partition, operation.offset) for operation in operations[:2]
    ]
    assert len(read_topic(scene.bootstrap_servers, scene.prefix, "channel-replies")) == 3
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []


def test_store_is_told_which_of_its_transactions_cannot_be_read(scene: Scene, engine: Engine) -> None:
    """A transaction is answered if its beginning names a known channel, as its key does, and a transaction, as its
    header does; a replay that succeeds is answered with a higher number.
    """
    # given
    till = Till(channel_id="houston")
    damaged, refused, renamed, strange, misplaced = till.order(), till.order(), till.order(), till.order(), till.sale()
    refused["lines"][0]["sku"] = "REFUSED"
    strange["channel_id"] = "nowhere"
    scene.query("ALTER TABLE retail_transactions ADD CONSTRAINT c CHECK (position('REFUSED' IN content::text) = 0)")
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)

    def write_transaction(key: bytes, transaction: dict[str, Any], end: int | None, name: str) -> None:
        value = encode("RetailTransaction", transaction)[:end]
        writer.write(Operation(topic="retail-transactions", key=key, value=value, headers=(("id", name.encode()),)))

    write_transaction(b"houston", damaged, -3, damaged["transaction_id"])
    write_transaction(b"houston", refused, None, refused["transaction_id"])
    write_transaction(b"houston", renamed, -3, strange["transaction_id"])
    write_transaction(b"nowhere", strange, -3, strange["transaction_id"])
    write_transaction(b"dallas", misplaced, None, misplaced["transaction_id"])
    writer.write(Operation(topic="retail-transactions", key=b"houston", value=b"broken"))
    writer.flush()

    # when
    with scene.transactions():
        told = [reply_with_status(scene, transaction, "rejected") for transaction in (damaged, refused)]
        wait_until_settled(scene, "transactions")
        evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
        scene.query("ALTER TABLE retail_transactions DROP CONSTRAINT c")
        letters = list(list_dead_letters(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ))
        replay(scene.settings, engine, [letter for letter in letters if letter.reason == "database_refused"])
        read = reply_with_status(scene, refused, "synchronized")

    # then
    assert len(letters) == 6
    assert [(reply["sequence"], reply["reasons"][0]["code"]) for reply in told] == [(-1, "unreadable_event")] * 2
    assert [(reply["input_partition"], reply["input_offset"]) for reply in told] == [
        (operation.partition, operation.offset) for operation in scene.journal.operations[:2]
    ]
    assert "is refused by headquarters' database" in told[1]["reasons"][0]["text"]
    assert len(evidence.committed["transaction-replies"]) == 2
    assert violations(evidence, scene.journal, SETTING) == []
    assert (read["sequence"], read["sales_order"]) == (1, "SO-00000001")


def test_transaction_outside_the_partition_of_its_channel_is_a_dead_letter(scene: Scene, engine: Engine) -> None:
    """A replay writes it to the right partition, where it is read."""
    # given
    order = Till(channel_id="houston").order()
    partition = (partition_of("houston", PARTITIONS) + 1) % PARTITIONS
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    value = encode("RetailTransaction", order)
    writer.write(Operation(topic="retail-transactions", key=b"houston", value=value), partition)
    writer.flush()

    # when
    with scene.transactions():
        # A consumer waits for the leaders of a new topic, which a request for offsets does not.
        name = RETAIL_TRANSACTIONS_DLQ.name
        wait_for(lambda: bool(read_topic(scene.bootstrap_servers, scene.prefix, name)), "the dead letter")
        letters = list(list_dead_letters(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ))
        replay(scene.settings, engine, letters)
        reply_with_status(scene, order, "synchronized")

    # then
    assert [letter.reason for letter in letters] == ["wrong_partition"]
