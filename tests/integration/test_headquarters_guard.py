"""Changes under running workers of headquarters: the database put back, a topic recreated, offsets moved, partitions
added. Each is noticed at once, and the way out works.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Final

import psycopg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tenten import local
from tenten.consumers.headquarters import watch
from tenten.consumers.headquarters.customers.republish import republish
from tenten.consumers.headquarters.newest_outputs import accept_outputs
from tenten.kafka.partitioner import partition_of
from tenten.kafka.topics_admin import apply_topics
from tenten.runtime.errors import DatabaseOlderThanStream, KafkaRefused, TopicChanged
from tenten.sql.engine import open_database
from tenten.sql.headquarters_engine import database_identity
from tests.faults.checker import Sequence, Setting, violations
from tests.faults.evidence import gather, group_offsets
from tests.faults.processes import worker_process
from tests.faults.traffic import Event, Store
from tests.sales import Till, reply_with_status, send
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, Scene
from tests.services import directory_for_server
from tests.settings_file import PARTITIONS
from tests.waiting import wait_for

SETTING: Final = Setting(
    legal_entity_by_channel=LEGAL_ENTITY_BY_CHANNEL,
    sequences={"usrt": Sequence(format="C-########")},
    judge_content=False,
)


def individual(store: Store) -> Event:
    """An event that creates a customer, with a number from the worker's block: a small batch of creates uses none."""
    return store.create() | {"kind": "EDITED"}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers check database and topics once a second."""
    monkeypatch.setattr(watch, "WATCH_SECONDS", 1.0)


@pytest.fixture
def munich() -> Store:
    """A store of the legal entity whose numbers may have gaps, seeded."""
    return Store(channel_id="munich", legal_entity="demf", rng=random.Random(2))


def found_violations(scene: Scene) -> list[str]:
    """What the checker finds."""
    return violations(gather(scene.bootstrap_servers, scene.prefix, scene.url), scene.journal, SETTING)


def create_in(partition: int, store: Store) -> Event:
    """A create whose records go to this partition."""
    guids = iter(store.guid, "")
    return store.create(customer_id=next(guid for guid in guids if partition_of(guid, PARTITIONS) == partition))


def test_restarted_server_counts_as_another_database() -> None:
    """Files can be put back to an older copy while it is stopped. Its identity stays as long as it runs, and needs no
    privilege.
    """
    with directory_for_server("postgres") as directory:
        # given
        url = local.start_postgres(directory).postgresql
        with psycopg.connect(url) as connection:
            connection.execute("CREATE ROLE plain LOGIN")
        plain = url.replace("postgres@", "plain@")

        # when
        before = [identity_of(plain), identity_of(plain)]
        local.stop_postgres(directory)
        local.start_postgres(directory)
        after = identity_of(plain)
        local.stop_postgres(directory)

    # then
    assert before[0] == before[1] != after


def identity_of(url: str) -> tuple[object, ...]:
    """The identity of the database, on a new connection."""
    with psycopg.connect(url) as connection:
        return database_identity(connection)


class Copies:
    """Copies of headquarters' database on its server, as backups and replicas have them."""

    def __init__(self, url: str) -> None:
        self.name = str(conninfo_to_dict(url)["dbname"])
        self._server = url.replace(self.name, "postgres")

    def back_up(self) -> None:
        """Copy the database, which has no connections."""
        self._execute("CREATE DATABASE {copy} TEMPLATE {name}")

    def restore(self) -> None:
        """Put the copy in the database's place, and close all connections, as a restore or a failover does."""
        self._close()
        self._put_in_place()

    def fail_over(self) -> None:
        """Replace the database by a copy that has everything, under its workers."""
        self._close()
        self.back_up()
        self._put_in_place()

    def _close(self) -> None:
        self._execute(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {literal}",
        )
        wait_for(lambda: not self._has_connections(), "the end of the connections")

    def _put_in_place(self) -> None:
        # At no time is there no database of this name.
        self._execute(
            "BEGIN",
            "ALTER DATABASE {name} RENAME TO {old}",
            "ALTER DATABASE {copy} RENAME TO {name}",
            "COMMIT",
            "DROP DATABASE {old} WITH (FORCE)",
        )

    def _has_connections(self) -> bool:
        with psycopg.connect(self._server) as connection:
            row = connection.execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", (self.name,)).fetchone()
            return row is not None

    def _execute(self, *statements: str) -> None:
        names = {
            "name": sql.Identifier(self.name),
            "copy": sql.Identifier(f"{self.name}_copy"),
            "old": sql.Identifier(f"{self.name}_old"),
            "literal": sql.Literal(self.name),
        }
        with psycopg.connect(self._server, autocommit=True) as connection:
            for statement in statements:
                connection.execute(sql.SQL(statement).format(**names))


def test_database_put_back_is_noticed_by_a_worker_that_had_nothing_to_do(scene: Scene, houston: Store) -> None:
    """Only one of two workers has committed something since the backup; the next event is the other one's. Neither
    assigns a number again.
    """
    # given
    copies = Copies(scene.url)
    with scene.headquarters():
        scene.ask(*(create_in(partition, houston) for partition in range(PARTITIONS)))
    copies.back_up()

    # when
    with scene.headquarters() as first, scene.headquarters() as second:
        wait_for(lambda: shares(scene) == [1, 2], "a share for each")
        scene.ask(create_in(0, houston))
        before = position_of(scene, 0)
        copies.restore()
        scene.send(*(create_in(partition, houston) for partition in range(1, PARTITIONS)))
        failures = [worker.dies() for worker in (first, second)]

    # then
    assert [type(failure) for failure in failures] == [DatabaseOlderThanStream] * 2
    assert all("older than the stream" in str(failure) for failure in failures)
    assert len(scene.tables().customers) == PARTITIONS
    assert scene.tables().sequences["usrt"]["next"] == PARTITIONS + 1
    assert position_of(scene, 0) < before


def position_of(scene: Scene, partition: int) -> int:
    """The position in async-customers."""
    (row,) = scene.query(
        "SELECT next_offset FROM positions WHERE consumer_group = %s AND partition = %s",
        f"{scene.prefix}headquarters",
        partition,
    )
    return int(row["next_offset"])


def shares(scene: Scene) -> list[int]:
    """The number of partitions of each customers worker, sorted; empty until all are assigned."""
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    (group,) = admin.describe_consumer_groups([f"{scene.prefix}headquarters"]).values()
    counts = sorted(len(member.assignment.topic_partitions) for member in group.result(20).members)
    return counts if sum(counts) == PARTITIONS else []


def test_release_pass_does_not_work_on_a_database_that_was_put_back(scene: Scene) -> None:
    """The worker has nothing to do, and stops all the same: the order of the lost interval would get another number."""
    # given
    copies = Copies(scene.url)
    order = Till(channel_id="houston").order()
    copies.back_up()

    # when
    with scene.transactions() as worker:
        send(scene, order)
        reply_with_status(scene, order, "synchronized")
        copies.restore()
        failure = worker.dies()

    # then
    assert isinstance(failure, DatabaseOlderThanStream)
    assert "sales orders" in str(failure)
    assert scene.tables().sales.orders == ()


def test_workers_continue_on_a_database_that_has_everything(scene: Scene, houston: Store, munich: Store) -> None:
    """After a failover that lost nothing they go on; numbers that were reserved in a block are not used any more, since
    the other database may not know of the block.
    """
    # given
    with scene.headquarters():
        (before,) = scene.ask(individual(munich))

        # when
        Copies(scene.url).fail_over()
        (after,) = scene.ask(individual(munich))
        (continuous,) = scene.ask(houston.create())

    # then
    assert (before["account_number"], after["account_number"]) == ("D00000001", "D00001001")
    assert continuous["account_number"] == "C-00000001"
    assert found_violations(scene) == []


def moved_offsets(scene: Scene, *, forward: int | None) -> None:
    """Move the group's offsets forward by so many records, or to the beginning. The group has no members."""
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    name = f"{scene.prefix}async-customers"
    now = group_offsets(scene.bootstrap_servers, scene.prefix, "headquarters")
    moved = [
        TopicPartition(name, partition, 0 if forward is None else offset + forward) for partition, offset in now.items()
    ]
    group = ConsumerGroupTopicPartitions(f"{scene.prefix}headquarters", moved)
    (future,) = admin.alter_consumer_group_offsets([group]).values()
    assert [partition.error for partition in future.result(20).topic_partitions] == [None] * PARTITIONS


def deleted_offsets(scene: Scene) -> None:
    """Delete the group, as the expiry of its offsets does."""
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    group = f"{scene.prefix}headquarters"
    admin.delete_consumer_groups([group])[group].result(20)


UNREAD: Final = 10
"""Events in each partition that are unread when the offsets are moved."""

MOVES: Final[dict[str, tuple[Callable[[Scene], None], int]]] = {
    "beginning": (partial(moved_offsets, forward=None), 1),
    "end": (partial(moved_offsets, forward=UNREAD), 0),
    "deleted": (deleted_offsets, 0),
}
"""A change of the group's offsets, and how often the events before it are repeated."""


@pytest.mark.parametrize("move", MOVES)
def test_moved_offsets_skip_and_number_nothing_twice(scene: Scene, houston: Store, move: str) -> None:
    """Offsets at the beginning cause repeats; with offsets past unread events, or without any, headquarters continues
    where its database is.
    """
    # given
    change, repeats = MOVES[move]
    events = [create_in(partition, houston) for partition in range(PARTITIONS)]
    with scene.headquarters():
        scene.ask(*events)
    unread = [create_in(number % PARTITIONS, houston) for number in range(UNREAD * PARTITIONS)]
    scene.send(*unread)
    change(scene)

    # when
    with scene.headquarters():
        replies = scene.replies(*unread)

    # then
    assert {reply["outcome"] for reply in replies} == {"SYNCHRONIZED"}
    assert len({reply["account_number"] for reply in replies}) == len(unread)
    assert {int(scene.tables().log[event["event_id"]]["repeats"]) for event in events} == {repeats}
    assert found_violations(scene) == []


def test_first_batch_of_a_group_is_repeated_after_a_crash(scene: Scene, houston: Store) -> None:
    """The group has never committed an offset of a batch, and the database is ahead already: the outputs of that batch
    are still sent.
    """
    # given
    events = [create_in(partition, houston) for partition in range(PARTITIONS)]
    scene.send(*events)
    with worker_process(scene, "headquarters.after_sql_commit") as doomed:
        doomed.dies()

    # when
    with scene.headquarters():
        replies = scene.replies(*events)

    # then
    assert {reply["outcome"] for reply in replies} == {"SYNCHRONIZED"}
    assert any(row["repeats"] for row in scene.tables().log.values())
    assert found_violations(scene) == []


def test_accepted_outputs_prove_nothing(scene: Scene, houston: Store) -> None:
    """After a recovery that could not restore everything the outputs of that time are no reason to stop; later ones
    are.
    """
    # given
    with scene.headquarters():
        scene.ask(houston.create())
    scene.query("DELETE FROM synchronization_log")
    with scene.headquarters() as worker:
        assert "1 of the newest 1 replies to events" in str(worker.dies())

    # when
    engine = open_database(scene.url)
    with engine.begin() as connection:
        accept_outputs(scene.settings, connection)
    engine.dispose()
    with scene.headquarters():
        (reply,) = scene.ask(houston.create())

    # then
    assert reply["account_number"] == "C-00000002"
    scene.query("DELETE FROM synchronization_log")
    with scene.headquarters() as worker:
        assert isinstance(worker.dies(), DatabaseOlderThanStream)


def recreate(scene: Scene, topic: str) -> None:
    """Delete a topic and create it again."""
    delete(scene, topic)
    wait_for(lambda: creates(scene, topic), "the new topic")


def delete(scene: Scene, topic: str) -> None:
    """Delete a topic."""
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    name = f"{scene.prefix}{topic}"
    admin.delete_topics([name])[name].result(20)


def creates(scene: Scene, topic: str) -> bool:
    """Run what `tenten topics apply` runs; whether it has created this topic."""
    changes = {change.topic: change.action for change in apply_topics(scene.settings)}
    return changes[f"{scene.prefix}{topic}"] == "create"


@pytest.mark.usefixtures("often")
def test_recreated_input_is_read_from_its_beginning(scene: Scene, houston: Store) -> None:
    """`async-customers` is deleted and created again while headquarters runs, and after that it starts again."""
    # given
    events = [create_in(number % PARTITIONS, houston) for number in range(2 * PARTITIONS)]

    # when
    with scene.headquarters() as worker:
        scene.ask(*events)
        recreate(scene, "async-customers")
        after = [create_in(number % PARTITIONS, houston) for number in range(4 * PARTITIONS)]
        scene.send(*after, *events)
        answers = scene.replies(*after)
        wait_for(lambda: minimum_repeats(scene, events) > 0, "the events that stores send again", check=worker.check)
    with scene.headquarters():
        (last,) = scene.ask(houston.create())

    # then
    numbers = {answer["account_number"] for answer in (*answers, last)}
    assert len(numbers) == len(after) + 1
    tables = scene.tables()
    assert len(tables.customers) == tables.sequences["usrt"]["next"] - 1 == len(events) + len(after) + 1


def minimum_repeats(scene: Scene, events: list[Event]) -> int:
    """How often the event that was repeated least was repeated."""
    log = scene.tables().log
    return min(int(log[event["event_id"]]["repeats"]) for event in events)


@pytest.mark.usefixtures("often")
def test_recreated_customers_stop_only_the_customers_worker(scene: Scene, houston: Store) -> None:
    """The topic lacks customers from then on: the message names the command that sends them again, after which
    headquarters goes on. Orders never stop.
    """
    # given
    till = Till(channel_id="houston")

    # when
    with scene.headquarters() as worker:
        scene.ask(houston.create())
        recreate(scene, "customers")
        failure = worker.dies()

    # then
    # Or it has seen that the topic was missing.
    assert isinstance(failure, TopicChanged | KafkaRefused)
    with scene.headquarters() as worker:
        failure = worker.dies()
    assert isinstance(failure, TopicChanged)
    assert "tenten headquarters republish" in str(failure)
    order = till.order()
    with scene.transactions():
        send(scene, order)
        reply_with_status(scene, order, "synchronized")
    engine = open_database(scene.url)
    republish(scene.settings, engine)
    engine.dispose()
    with scene.headquarters():
        (reply,) = scene.ask(houston.create())
    assert reply["account_number"] == "C-00000002"


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("topic", ["async-customers", "retail-transactions", "channel-replies"])
def test_added_partitions_stop_the_worker_until_the_topic_is_recreated(
    scene: Scene, houston: Store, topic: str
) -> None:
    """It stops although it has nothing to do; the message names the way out, which works."""
    # given
    run = scene.transactions if topic == "retail-transactions" else scene.headquarters
    order = Till(channel_id="houston").order()
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    name = f"{scene.prefix}{topic}"

    # when
    with run() as worker:
        wait_for(lambda: assigned(scene, topic), "partitions", check=worker.check)
        admin.create_partitions([NewPartitions(name, PARTITIONS + 1)])[name].result(20)
        failure = worker.dies()
    recreate(scene, topic)

    # then
    assert isinstance(failure, TopicChanged)
    assert "tenten topics apply" in str(failure)
    with scene.headquarters(), scene.transactions():
        (reply,) = scene.ask(houston.create())
        send(scene, order)
        reply_with_status(scene, order, "synchronized")
    assert reply["account_number"] == "C-00000001"


def assigned(scene: Scene, topic: str) -> bool:
    """Whether a worker has begun to read, and knows the topic."""
    return bool(scene.query("SELECT 1 FROM topics WHERE topic = %s", f"{scene.prefix}{topic}"))
