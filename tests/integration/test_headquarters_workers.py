"""Several headquarters workers: partitions, slots, number sequences, and the same event in two partitions."""

import random
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tenten.runtime.errors import LockHeld, TopicChanged
from tests.faults.avro import encode
from tests.faults.checker import violations
from tests.faults.evidence import gather, headers_of, read_topic
from tests.faults.journal import Operation, Writer
from tests.faults.settled import wait_until_read
from tests.faults.traffic import Store, traffic
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, SETTING, Scene, set_scene
from tests.waiting import wait_for

PARTITIONS: Final = 12
CONNECT: Final = "__connect.errors."


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """This test's own topics, tables and settings; small batches, so that workers compete."""
    limits = {"batch_records_max": 10}
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url, limits=limits, partitions=PARTITIONS)


@pytest.fixture
def stores() -> list[Store]:
    """One store of each channel, seeded; the numbers of the last may have gaps."""
    rng = random.Random(1)
    return [Store(channel_id=name, legal_entity=entity, rng=rng) for name, entity in LEGAL_ENTITY_BY_CHANNEL.items()]


def shares(scene: Scene) -> list[int]:
    """The number of partitions of each member of the group, sorted; empty until all are assigned."""
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    (group,) = admin.describe_consumer_groups([f"{scene.prefix}headquarters"]).values()
    counts = sorted(len(member.assignment.topic_partitions) for member in group.result(20).members)
    return counts if sum(counts) == PARTITIONS else []


def test_workers_share_the_partitions_and_take_over(scene: Scene, stores: list[Store]) -> None:
    """Two workers have half of the partitions each; when one stops the other has all; nothing is lost or duplicated."""
    # given
    events = traffic(random.Random(2), stores, 400)

    # when
    with scene.headquarters():
        scene.send(*events[:100])
        with scene.headquarters():
            scene.send(*events[100:200])
            wait_for(lambda: shares(scene) == [6, 6], "equal shares")
            scene.send(*events[200:300])
            scene.replies(*events[:300])
        scene.send(*events[300:])
        scene.replies(*events)
        wait_for(lambda: shares(scene) == [12], "all partitions")

    # then
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []


def test_record_outside_the_partition_of_its_key_is_a_dead_letter(scene: Scene, stores: list[Store]) -> None:
    """The same new customers in several partitions, read by two workers: only the record in the right partition counts,
    so each customer has one owner.
    """
    # given
    events = [store.create() for _ in range(40) for store in stores]
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)

    # when
    with scene.headquarters(), scene.headquarters():
        wait_for(lambda: shares(scene) == [6, 6], "equal shares")
        for event in events:
            for partition in (0, 3, 6, 9, -1):
                value = encode("CustomerEvent", event)
                writer.write(Operation(key=event["customer_id"].encode(), value=value), partition)
        writer.flush()
        scene.replies(*events)
        wait_until_read(scene, "headquarters")

    # then
    operations = scene.journal.operations
    right = {operation.key: operation.partition for operation in operations[4::5]}
    misplaced = {
        (operation.partition, operation.offset)
        for operation in operations
        if operation.partition != right[operation.key]
    }
    letters = [
        headers_of(record) for record in read_topic(scene.bootstrap_servers, scene.prefix, "async-customers.dlq")
    ]
    assert {letter["x-dlq-reason"] for letter in letters} == {"wrong_partition"}
    origins = [(int(letter[f"{CONNECT}partition"]), int(letter[f"{CONNECT}offset"])) for letter in letters]
    assert sorted(origins) == sorted(misplaced)
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
    assert len(scene.tables().customers) == len(events)


def test_slot_of_another_worker_is_refused(scene: Scene, stores: list[Store]) -> None:
    """A slot belongs to one worker at a time; a worker that requests no slot gets the next free one."""
    # given
    with scene.headquarters(slot=0):
        scene.ask(stores[0].create())

        # when
        with scene.headquarters(slot=0) as second:
            failure = second.dies()
        with scene.headquarters():
            wait_for(lambda: shares(scene) == [6, 6], "the worker with another slot")

    # then
    assert isinstance(failure, LockHeld)


def test_added_partitions_stop_headquarters(scene: Scene, stores: list[Store]) -> None:
    """Another partition count moves keys: the worker stops with advice before it reads a record."""
    # given
    with scene.headquarters():
        scene.ask(stores[0].create())
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    topic = f"{scene.prefix}async-customers"
    admin.create_partitions([NewPartitions(topic, PARTITIONS + 1)])[topic].result(20)
    scene.send(stores[0].create())

    # when
    with scene.headquarters() as worker:
        failure = worker.dies()

    # then
    assert isinstance(failure, TopicChanged)
    assert "tenten topics apply" in str(failure)
    assert len(scene.tables().customers) == 1
