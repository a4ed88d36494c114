"""Dead letters and what an operator does about them: look, replay, discard."""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import fastavro
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form
from sqlalchemy import Engine

from tenten.consumers.headquarters.dead_letters import DeadLetter, decide, find_dead_letter, list_dead_letters, replay
from tenten.runtime.errors import KafkaRefused, NoSuchDeadLetter
from tenten.schemas.topics import ASYNC_CUSTOMERS_DLQ, RETAIL_TRANSACTIONS_DLQ
from tenten.sql.engine import open_database
from tests.faults.avro import declaration
from tests.faults.checker import violations
from tests.faults.evidence import gather, read_topic
from tests.faults.journal import Operation, Writer
from tests.faults.traffic import Event, Store
from tests.scenes import SETTING, Scene, set_scene, wait_for

NEWER: Final = "a field of the next release"


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url)


@pytest.fixture
def engine(scene: Scene) -> Iterator[Engine]:
    """Headquarters' database."""
    opened = open_database(scene.url)
    yield opened
    opened.dispose()


@pytest.fixture
def houston() -> Store:
    """A store, seeded."""
    return Store(channel_id="houston", legal_entity="usrt", rng=random.Random(1))


def newer_schema() -> dict[str, Any]:
    """The event's contract as a later release may have it."""
    schema: dict[str, Any] = deepcopy(declaration("CustomerEvent"))
    schema["fields"].insert(1, {"name": "newer", "type": "string", "default": ""})
    return schema


def mark(schema: dict[str, Any]) -> bytes:
    """The schema's fingerprint."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def written_newer(event: Event) -> bytes:
    """An event as the later release writes it."""
    out = BytesIO()
    out.write(b"\xc3\x01" + mark(newer_schema()))
    fastavro.schemaless_writer(out, parse_schema(newer_schema()), event | {"newer": NEWER})
    return out.getvalue()


def write(scene: Scene, *operations: Operation) -> None:
    """Put records on async-customers."""
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    for operation in operations:
        writer.write(operation)
    writer.flush()


def letters_once_there(scene: Scene, engine: Engine, count: int) -> list[DeadLetter]:
    """So many dead letters: an answer to one record says nothing about its neighbours' partitions."""
    found: list[DeadLetter] = []

    def all_there() -> bool:
        found[:] = list_dead_letters(scene.settings, engine, ASYNC_CUSTOMERS_DLQ)
        return len(found) >= count

    wait_for(all_there, "dead letters")
    assert len(found) == count
    return found


def test_event_of_a_newer_release_is_replayed_once_its_schema_is_known(
    scene: Scene, houston: Store, engine: Engine
) -> None:
    """It is a dead letter as long as nobody knows its schema; replayed later it is an event, and twice does no harm."""
    # given
    event = houston.create()
    key = event["customer_id"].encode()
    write(scene, Operation(key=key, value=written_newer(event), headers=(("id", b"1"), ("x", None))))
    with scene.headquarters():
        scene.ask(houston.create())
        (letter,) = letters_once_there(scene, engine, 1)
        assert (letter.reason, letter.key, letter.value) == ("unknown_schema", key, written_newer(event))

        # when
        producer = Producer({"bootstrap.servers": scene.bootstrap_servers})
        producer.produce(f"{scene.prefix}schemas", key=mark(newer_schema()).hex(), value=json.dumps(newer_schema()))
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


def test_dead_letter_that_still_cannot_be_read_is_another_one(scene: Scene, houston: Store, engine: Engine) -> None:
    """A replay that changes nothing gives a new dead letter, which says that it is the second attempt."""
    # given
    write(scene, Operation(key=b"k", value=b"broken", headers=(("id", b"1"),)))
    with scene.headquarters():
        scene.ask(houston.create())
        (letter,) = letters_once_there(scene, engine, 1)

        # when
        replay(scene.settings, engine, [letter])
        wanted = scene.ask(houston.create())
        letters = letters_once_there(scene, engine, 2)

    # then
    assert [one["outcome"] for one in wanted] == ["SYNCHRONIZED"]
    assert [(one.decision, one.header("x-dlq-attempt")) for one in letters] == [("replayed", "1"), ("open", "2")]
    assert letters[1].origin.startswith(f"{scene.prefix}async-customers/")
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []


def test_replay_that_the_topic_does_not_take_leaves_the_dead_letter_open(
    scene: Scene, houston: Store, engine: Engine
) -> None:
    """What did not arrive is not called replayed; what did is."""
    # given
    large, small = random.Random(1).randbytes(6_000), b"small"
    write(scene, Operation(key=b"k", value=large), Operation(key=b"k", value=small))
    with scene.headquarters():
        scene.ask(houston.create())
        letters = letters_once_there(scene, engine, 2)
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
    decisions = {one.value: one.decision for one in list_dead_letters(scene.settings, engine, ASYNC_CUSTOMERS_DLQ)}
    assert decisions == {large: "open", small: "replayed"}


def test_discarded_dead_letter_stays_and_says_so(scene: Scene, houston: Store, engine: Engine) -> None:
    """A decision is noted beside the topic; a place without a dead letter is refused."""
    # given
    write(scene, Operation(key=None, value=None))
    with scene.headquarters():
        scene.ask(houston.create())
    (letter,) = letters_once_there(scene, engine, 1)

    # when
    decide(scene.settings, engine, [letter], "discarded")

    # then
    found: DeadLetter = find_dead_letter(scene.settings, engine, ASYNC_CUSTOMERS_DLQ, letter.partition, letter.offset)
    assert (found.decision, found.reason, found.key, found.value) == ("discarded", "null_value", None, None)
    with pytest.raises(NoSuchDeadLetter):
        find_dead_letter(scene.settings, engine, ASYNC_CUSTOMERS_DLQ, 0, 999)


def unreadable_transaction(scene: Scene, value: bytes) -> None:
    """A dead letter of retail-transactions, as its reader leaves it; the topic that its header names is another's."""
    about = {"topic": f"{scene.prefix}customers", "partition": "7", "offset": "41", "exception.message": "no Avro"}
    headers: list[tuple[str, str | bytes | None]] = [("id", b"1"), ("x-dlq-reason", b"framing")]
    headers += [(f"__connect.errors.{name}", text) for name, text in about.items()]
    producer = Producer({"bootstrap.servers": scene.bootstrap_servers})
    producer.produce(f"{scene.prefix}retail-transactions.dlq", value, b"houston", headers=headers)
    assert producer.flush(30) == 0


def test_dead_letter_of_a_transaction_goes_back_to_retail_transactions(scene: Scene, engine: Engine) -> None:
    """It is sent byte for byte to the topic that its dead letter topic belongs to, whatever a header says, and the
    customers' dead letters are others.
    """
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
    assert (after.place, after.decision) == ("retail-transactions.dlq/0/0", "replayed")
    assert list(list_dead_letters(scene.settings, engine, ASYNC_CUSTOMERS_DLQ)) == []


def test_decision_about_a_transaction_leaves_the_customers_letter_at_that_place_open(
    scene: Scene, engine: Engine
) -> None:
    """Partition and offset alone do not say which dead letter it is."""
    # given
    unreadable_transaction(scene, b"of a transaction")
    producer = Producer({"bootstrap.servers": scene.bootstrap_servers})
    producer.produce(f"{scene.prefix}async-customers.dlq", b"of a customer")
    assert producer.flush(30) == 0

    # when
    decide(scene.settings, engine, list_dead_letters(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ), "discarded")

    # then
    of_transaction = find_dead_letter(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ, 0, 0)
    of_customer = find_dead_letter(scene.settings, engine, ASYNC_CUSTOMERS_DLQ, 0, 0)
    assert (of_transaction.value, of_transaction.decision) == (b"of a transaction", "discarded")
    assert (of_customer.value, of_customer.decision, of_customer.place) == (b"of a customer", "open", "0/0")
    with pytest.raises(NoSuchDeadLetter, match=r"retail-transactions\.dlq/0/1"):
        find_dead_letter(scene.settings, engine, RETAIL_TRANSACTIONS_DLQ, 0, 1)
