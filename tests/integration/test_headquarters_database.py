"""Headquarters and its database: rejected rows, exhausted sequences, lost connections, a restored backup."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import current_thread
from typing import Any, Final

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from psycopg import sql
from sqlalchemy import Engine, event

from tenten.headquarters_views.held import held_status
from tenten.kafka.partitioner import partition_of
from tenten.runtime.errors import DatabaseOlderThanStream, DatabaseRefused
from tenten.sql.engine import open_database
from tests.faults.checker import Sequence, Setting, violations
from tests.faults.evidence import gather
from tests.faults.traffic import Store
from tests.roles import worker_role
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, Scene, set_scene
from tests.settings_file import PARTITIONS
from tests.waiting import wait_for

SETTING: Final = Setting(
    legal_entity_by_channel=LEGAL_ENTITY_BY_CHANNEL,
    sequences={"usrt": Sequence(format="C-########")},
    judge_content=False,
)
REJECT_TABLES: Final = """
    CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.last_name = 'Tables' THEN RAISE EXCEPTION 'no thanks' USING ERRCODE = 'check_violation'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER reject BEFORE INSERT OR UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION reject()
"""
CHECK_TABLES: Final = "ALTER TABLE customers ADD CONSTRAINT no_tables CHECK (last_name <> 'Tables')"


@pytest.fixture
def munich() -> Store:
    """A store of the legal entity whose numbers may have gaps, seeded."""
    return Store(channel_id="munich", legal_entity="demf", rng=random.Random(2))


@pytest.mark.parametrize("obstacle", [REJECT_TABLES, CHECK_TABLES], ids=["trigger", "check"])
def test_event_that_the_database_rejects_is_rejected_alone(
    scene: Scene, houston: Store, munich: Store, obstacle: str
) -> None:
    """A create or an edit that the database does not accept is rejected; all others are synchronized, without a gap."""
    # given
    scene.query(obstacle)
    edited = houston.create()
    creates = [store.create() for _ in range(20) for store in (houston, munich)]
    creates[7]["customer"]["last_name"] = creates[29]["customer"]["last_name"] = "Tables"
    edits = [houston.edit(edited["customer_id"], title="Dr."), houston.edit(edited["customer_id"], last_name="Tables")]

    # when
    scene.send(edited, *creates, *edits)
    with scene.headquarters():
        replies = scene.replies(edited, *creates, *edits)

    # then
    rejected = [index for index, reply in enumerate(replies) if reply["outcome"] == "REJECTED"]
    assert rejected == [8, 30, 42]
    assert {reason["code"] for index in rejected for reason in replies[index]["reasons"]} == {"database_refused"}
    assert scene.tables().states[edited["customer_id"]]["title"] == "Dr."
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
    # The numbers of failed attempts are used again.
    german = sorted(
        int(row["account_number"][1:]) for row in scene.tables().customers.values() if row["legal_entity"] == "demf"
    )
    assert german == list(range(1, len(german) + 1))


@pytest.mark.parametrize(
    ("fault", "correction", "remedy"),
    [
        (
            "REVOKE INSERT ON customers FROM worker",
            "GRANT INSERT ON customers TO worker",
            "permission denied for table customers",
        ),
        (
            "CREATE TRIGGER stop BEFORE INSERT ON customers FOR EACH STATEMENT EXECUTE FUNCTION stop()",
            "DROP TRIGGER stop ON customers",
            "SQLSTATE P0001",
        ),
    ],
    ids=["privilege", "trigger"],
)
def test_fault_of_the_database_stops_the_worker_and_rejects_no_event(
    scene: Scene, houston: Store, fault: str, correction: str, remedy: str
) -> None:
    """An error that no event causes: the worker stops, the message names the remedy; then every event goes through."""
    # given
    events = [houston.create() for _ in range(30)]
    with worker_role(scene.url) as role:
        as_role = replace(scene, toml=scene.toml.with_name("role.toml"))
        as_role.toml.write_text(scene.toml.read_text().replace(scene.url, role.url))
        scene.query(STOP_FUNCTION)
        scene.query(fault.replace("worker", role.name))
        scene.send(*events)

        # when
        with as_role.headquarters() as worker:
            failure = worker.dies()

        # then
        assert isinstance(failure, DatabaseRefused)
        assert remedy in str(failure)
        assert scene.tables().log == {}
        scene.query(correction.replace("worker", role.name))
        with as_role.headquarters():
            replies = scene.replies(*events)
    assert {reply["outcome"] for reply in replies} == {"SYNCHRONIZED"}
    assert scene.tables().sequences["usrt"]["next"] == 31


STOP_FUNCTION: Final = """
    CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$
"""


def test_exhausted_sequence_holds_further_creates_until_it_is_widened(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str, houston: Store
) -> None:
    """The last number is assigned, further creates are held, edits are synchronized; a wider format resolves it under
    the running worker.
    """
    # given
    scene = set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url, usrt_format="C-#")
    events = [houston.create() for _ in range(12)]

    # when
    scene.send(*events)
    with scene.headquarters():
        replies = scene.replies(*events)
        (edited,) = scene.ask(houston.edit(synchronized_customer(replies), title="Dr."))
        scene.toml.write_text(scene.toml.read_text().replace("C-#", "C-####"))
        scene.apply_settings()
        wait_for(lambda: not scene.query("SELECT event_id FROM held_events"), "the held events to be judged")

    # then
    assert sorted(reply["account_number"] or "" for reply in replies) == ["", "", "", *(f"C-{n}" for n in range(1, 10))]
    reasons = [(reply["outcome"], reason["code"]) for reply in replies for reason in reply["reasons"]]
    assert reasons == [("HELD", "number_sequence_used_up")] * 3
    assert edited["outcome"] == "SYNCHRONIZED"
    log = scene.tables().log
    assert {log[event["event_id"]]["outcome"] for event in events} == {"synchronized"}
    assert sorted(log[event["event_id"]]["judgement"] for event in events) == [1] * 9 + [2] * 3
    numbers = [row["account_number"] for row in scene.tables().customers.values()]
    assert sorted(numbers, key=lambda number: (len(number), number)) == [
        *(f"C-{n}" for n in range(1, 10)),
        "C-0010",
        "C-0011",
        "C-0012",
    ]


@contextmanager
def closing_engine(url: str) -> Iterator[Engine]:
    """An engine that is disposed of."""
    engine = open_database(url)
    try:
        yield engine
    finally:
        engine.dispose()


def synchronized_customer(replies: list[dict[str, str]]) -> str:
    """A customer that has a number."""
    return next(reply["customer_id"] for reply in replies if reply["outcome"] == "SYNCHRONIZED")


def test_lowered_sequence_stops_headquarters(scene: Scene, houston: Store) -> None:
    """A number in use is not assigned again: the worker stops, and the message names the remedy."""
    # given
    with scene.headquarters():
        scene.ask(houston.create(), houston.create())
    scene.query("UPDATE number_sequences SET next = 1")
    late = houston.create()
    scene.send(late)

    # when
    with scene.headquarters() as worker:
        failure = worker.dies()

    # then
    assert isinstance(failure, DatabaseRefused)
    assert "number_sequences" in str(failure)
    scene.query("UPDATE number_sequences SET next = 3")
    with scene.headquarters():
        (reply,) = scene.replies(late)
    assert reply["account_number"] == "C-00000003"


def test_events_are_held_until_the_legal_entity_has_a_number_sequence(scene: Scene, houston: Store) -> None:
    """Its row is missing; the store is told so, and the settings, applied again, resolve it."""
    # given
    scene.query("DELETE FROM number_sequences")
    event = houston.create()

    # when
    with scene.headquarters():
        (held,) = scene.ask(event)
        with closing_engine(scene.url) as engine, engine.begin() as connection:
            status = held_status(connection)
        scene.apply_settings()
        wait_for(lambda: not scene.query("SELECT event_id FROM held_events"), "the held event to be judged")

    # then
    assert (held["outcome"], [reason["code"] for reason in held["reasons"]]) == ("HELD", ["no_number_sequence"])
    assert [(cause.code, cause.subject, cause.events) for cause in status.causes] == [("no_number_sequence", "usrt", 1)]
    assert "tenten settings apply" in (status.problem or "")
    assert scene.tables().customers[event["customer_id"]]["account_number"] == "C-00000001"


def test_lost_database_connections_are_retried(scene: Scene, houston: Store) -> None:
    """Connections are terminated repeatedly while batches are written: nothing is lost, nothing is duplicated."""
    # given
    events = [houston.create() for _ in range(300)]

    # when
    with scene.headquarters():
        scene.ask(houston.create())
        for start in range(0, len(events), 50):
            scene.send(*events[start : start + 50])
            scene.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        scene.replies(*events)

    # then
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []


def test_create_of_a_customer_that_another_worker_is_creating_becomes_an_edit(scene: Scene, houston: Store) -> None:
    """A simple create and an individual one meet the same customers in an open transaction of another worker."""
    # given
    simple, individual = houston.create(title="Dr."), houston.create(title="Dr.")
    edit = houston.edit(individual["customer_id"], tax_number="T1")
    columns = (
        "customer_id, account_number, version, updated_at, legal_entity, customer_type, title, first_name, "
        "middle_name, last_name, organization_name, language, currency, customer_group, receipt_preference, "
        "receipt_email, tax_number, address_books, affiliations, attributes"
    )
    row = "SELECT %s, %s, 1, now(), 'usrt', 'person', '', 'A', '', '', '', '', '', '', 'none', '', '', '[]', '[]', '[]'"

    # The events of a small batch are all individual.
    others = [houston.create() for _ in range(20)]

    # when
    with psycopg.connect(scene.url) as other:
        for number, event in enumerate((simple, individual)):
            statement = f"INSERT INTO customers ({columns}) {row}"  # names from here
            other.execute(statement.encode(), (event["customer_id"], f"C-9000000{number}"))
        scene.send(*others, simple, individual, edit)
        with scene.headquarters():
            wait_for(lambda: _waits_for_a_lock(scene), "the worker to wait for the other transaction")
            other.commit()
            replies = scene.replies(simple, individual, edit)

    # then
    numbers = [reply["account_number"] for reply in replies]
    assert numbers == ["C-90000000", "C-90000001", "C-90000001"]
    assert [reply["version"] for reply in replies] == [2, 2, 3]
    assert scene.tables().sequences["usrt"]["next"] == len(others) + 1


def _waits_for_a_lock(scene: Scene) -> bool:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(scene.query(waiting))


@pytest.mark.parametrize("offsets", ["kept", "deleted"])
def test_database_older_than_the_stream_is_refused(scene: Scene, houston: Store, offsets: str) -> None:
    """A database restored from a backup would assign numbers twice: the worker stops, with advice."""
    # given
    with scene.headquarters():
        scene.ask(houston.create())
    backup = _copy_database(scene.url)
    with scene.headquarters():
        scene.ask(houston.create())
    if offsets == "deleted":
        _delete_offsets(scene)

    # when
    restored = Scene(bootstrap_servers=scene.bootstrap_servers, prefix=scene.prefix, url=backup, toml=scene.toml)
    scene.toml.write_text(scene.toml.read_text().replace(scene.url, backup))
    with restored.headquarters() as worker:
        failure = worker.dies()

    # then
    assert isinstance(failure, DatabaseOlderThanStream)
    assert "older than the stream" in str(failure)
    assert len(restored.tables().customers) == 1
    _drop_database(backup)


def test_database_put_back_under_a_running_worker_is_refused(scene: Scene, houston: Store) -> None:
    """A failover to an older copy: the worker reconnects, and stops before it assigns a number again, although the
    partition of the next event is not the one that has lost records.
    """
    # given
    with scene.headquarters():
        scene.ask(houston.create(), houston.create())
    backup = _copy_database(scene.url)
    late, next_one = (houston.create(customer_id=in_partition(number, houston)) for number in (0, 1))

    # when
    with scene.headquarters() as worker:
        scene.ask(late)
        _replace_database(scene.url, backup)
        scene.send(next_one)
        failure = worker.dies()

    # then
    assert isinstance(failure, DatabaseOlderThanStream)
    assert "older than the stream" in str(failure)
    assert len(scene.tables().customers) == 2
    assert scene.tables().sequences["usrt"]["next"] == 3


def test_worker_waits_for_a_database_that_vanishes_for_a_moment(
    scene: Scene, houston: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Renamed, and given its name back: the worker says so once and goes on; one that starts meanwhile ends at once."""
    # given
    first, second = houston.create(), houston.create()
    name = str(psycopg.conninfo.conninfo_to_dict(scene.url)["dbname"])
    with (
        scene.headquarters() as worker,
        psycopg.connect(scene.url.replace(name, "postgres"), autocommit=True) as connection,
    ):
        scene.ask(first)
        wait_for(lambda: _is_renamed(connection, name, f"{name}_away"), "a moment without connections")

        # when
        scene.send(second)
        with attempts_to_connect() as attempts:
            wait_for(lambda: worker.ended() or attempts.count("worker") >= 3, "the worker to try again and again")
        worker.check()
        logged = capsys.readouterr().out
        with scene.headquarters() as started:
            refused = started.dies()
        assert _is_renamed(connection, f"{name}_away", name)
        (reply,) = scene.replies(second)

    # then
    assert type(refused) is DatabaseRefused
    assert "does not have this database" in str(refused)
    assert reply["account_number"] == "C-00000002"
    assert len(re.findall(r"retry_started .*process=headquarters\n", logged)) == 1


@contextmanager
def attempts_to_connect() -> Iterator[list[str]]:
    """The names of the threads that begin to connect to a database during the block."""
    names: list[str] = []

    def note(*_: object) -> None:
        names.append(current_thread().name)

    event.listen(Engine, "do_connect", note)
    try:
        yield names
    finally:
        event.remove(Engine, "do_connect", note)


def in_partition(partition: int, store: Store) -> str:
    """A GUID whose records go to this partition."""
    return next(guid for guid in iter(store.guid, "") if partition_of(guid, PARTITIONS) == partition)


def _replace_database(url: str, backup: str) -> None:
    """Put the copy in the database's place, and close all connections, as a failover does: the name always exists."""
    name, copy = (str(psycopg.conninfo.conninfo_to_dict(address)["dbname"]) for address in (url, backup))
    with psycopg.connect(url.replace(name, "postgres"), autocommit=True) as connection:
        wait_for(lambda: _are_exchanged(connection, name, copy), "a moment without connections")
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(f"{name}_former")))


def _are_exchanged(connection: psycopg.Connection[Any], name: str, copy: str) -> bool:
    """Close all connections to the database and rename both in one transaction; False if one was opened meanwhile."""
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    with suppress(psycopg.errors.ObjectInUse), connection.transaction():
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        connection.execute(rename.format(sql.Identifier(name), sql.Identifier(f"{name}_former")))
        connection.execute(rename.format(sql.Identifier(copy), sql.Identifier(name)))
        return True
    return False


def _is_renamed(connection: psycopg.Connection[Any], name: str, to: str) -> bool:
    """Close all connections to a database and rename it; False if one was opened meanwhile."""
    with suppress(psycopg.errors.ObjectInUse), connection.transaction():
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(to)))
        return True
    return False


def _delete_offsets(scene: Scene) -> None:
    """Delete the group's offsets, as their expiry does."""
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    group = f"{scene.prefix}headquarters"
    admin.delete_consumer_groups([group])[group].result(20)


def _copy_database(url: str) -> str:
    """Copy the database in its current state; return the copy's address."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    name = str(parts["dbname"])
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with psycopg.connect(url.replace(name, "postgres"), autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(f"{name}_backup"), sql.Identifier(name)))
    return url.replace(name, f"{name}_backup")


def _drop_database(url: str) -> None:
    name = str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
    with psycopg.connect(url.replace(name, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
