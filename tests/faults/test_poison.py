"""Scenario 13 of the fault plan: unreadable records among valid ones."""

import random
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.faults.checker import Sequence, Setting, violations
from tests.faults.evidence import gather, headers_of, read_topic
from tests.faults.journal import Operation, Writer
from tests.faults.poison import Poison, sample
from tests.faults.processes import worker_process
from tests.faults.settled import wait_until_settled
from tests.faults.soak import soak_rounds, soak_seed
from tests.faults.traffic import Store
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, Scene, set_scene

POISON: Final = 400
SEED: Final = 13
SOAK_POISON: Final = 2_000
VALID_EVERY: Final = 5
SETTING: Final = Setting(
    legal_entity_by_channel=LEGAL_ENTITY_BY_CHANNEL,
    sequences={"usrt": Sequence(format="C-########")},
    judge_content=False,
)


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url)


@pytest.fixture
def houston() -> Store:
    """A store, seeded."""
    return Store(channel_id="houston", legal_entity="usrt", rng=random.Random(1))


def dead_places(scene: Scene) -> Counter[tuple[int, int]]:
    """Partition and offset of the record of each dead letter, with their number."""
    letters = [
        headers_of(record) for record in read_topic(scene.bootstrap_servers, scene.prefix, "async-customers.dlq")
    ]
    return Counter(
        (int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])) for headers in letters
    )


def test_each_unreadable_record_is_one_dead_letter(scene: Scene, houston: Store) -> None:
    """Unreadable records become dead letters byte for byte; every valid event among them is synchronized."""
    # given
    poison = sample(POISON, SEED)

    # when
    with worker_process(scene) as worker:
        undetected = send_among_valid_events(scene, houston, poison)
        exit_code = worker.stop()

    # then
    assert undetected == []
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
    assert exit_code == 0


@pytest.mark.soak
def test_unreadable_records_of_every_kind_are_dead_letters(scene: Scene, houston: Store) -> None:
    """The same for a tenth of `TENTEN_SOAK_SECONDS`, with 2,000 unreadable records in each round."""
    # given
    seed = soak_seed()
    undetected: list[str] = []

    # when
    with worker_process(scene) as worker:
        for number in soak_rounds():
            undetected += send_among_valid_events(scene, houston, sample(SOAK_POISON, seed + number))
        exit_code = worker.stop()

    # then
    assert undetected == []
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
    assert exit_code == 0


def send_among_valid_events(scene: Scene, houston: Store, poison: list[Poison]) -> list[str]:
    """Send these records with valid events among them, and wait until all are read and the events synchronized.

    Returns the kinds of those that cannot be read and are not exactly one dead letter.
    """
    written = [(record, record.operation()) for record in poison]
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    valid = []
    for number, (_, operation) in enumerate(written):
        writer.write(operation)
        if number % VALID_EVERY == 0:
            valid.append(houston.create())
            writer.send(valid[-1])
    writer.flush()
    replies = scene.replies(*valid)
    last = scene.ask(houston.create())
    assert {reply["outcome"] for reply in (*replies, *last)} == {"SYNCHRONIZED"}
    wait_until_settled(scene, "headquarters")
    dead = dead_places(scene)
    return [record.kind for record, at in written if record.certain and dead[at.partition, at.offset] != 1]


def test_flood_of_dead_letters_stops_a_headquarters_that_checks_no_signatures(scene: Scene, houston: Store) -> None:
    """It ends with advice and consumes nothing; it continues after the setting is raised."""
    # given
    limited = scene.toml.read_text().replace("[headquarters]", "[headquarters]\ndead_letters_in_a_row_max = 5")
    scene.toml.write_text(f'authentication = "off"\n{limited}')
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    valid = [houston.create(), houston.create()]
    first, last = (Operation(key=event["customer_id"].encode(), value=None, event_id=None) for event in valid)
    writer.send(valid[0])
    writer.flush()
    partition = scene.journal.operations[0].partition
    for filler in range(6):
        writer.write(Operation(key=first.key, value=f"broken {filler}".encode()), partition)
    writer.write(Operation(key=last.key, value=b"broken as well"), partition)
    writer.flush()

    # when
    with worker_process(scene) as worker:
        exit_code = worker.dies()
    before = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    scene.toml.write_text(scene.toml.read_text().replace("in_a_row_max = 5", "in_a_row_max = 7"))
    with worker_process(scene) as healed:
        answers = scene.ask(*valid)
        assert healed.stop() == 0

    # then
    assert exit_code == 1
    assert "raise dead_letters_in_a_row_max" in worker.logged()
    assert not before.committed["async-customers.dlq"]
    assert not before.headquarters.log
    assert not any(before.group_offsets["headquarters"].values())
    assert [answer["outcome"] for answer in answers] == ["SYNCHRONIZED"] * 2
    assert sum(dead_places(scene).values()) == 7
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []


def test_dead_letter_that_cannot_be_written_stops_headquarters(scene: Scene, houston: Store) -> None:
    """A dead letter that is too large for its topic: headquarters ends with advice, and loses nothing."""
    # given
    limit(scene, "async-customers.dlq", 2_000)
    broken = Operation(key=b"k", value=random.Random(1).randbytes(5_000))
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    writer.write(broken)
    writer.flush()

    # when
    with worker_process(scene) as worker:
        exit_code = worker.dies()
    limit(scene, "async-customers.dlq", 2_000_000)
    with worker_process(scene) as healed:
        scene.ask(houston.create())
        assert healed.stop() == 0

    # then
    assert exit_code == 1
    assert "max.message.bytes" in worker.logged()
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
    assert dead_places(scene) == {(broken.partition, broken.offset): 1}


def limit(scene: Scene, topic: str, record_bytes_max: int) -> None:
    """Change the maximum size of a topic's records."""
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    entry = ConfigEntry("max.message.bytes", str(record_bytes_max), incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, scene.prefix + topic, incremental_configs=[entry])
    admin.incremental_alter_configs([change])[change].result(20)
