"""Headquarters and its database: refusals, numbers that run out, a database that goes away or was put back."""

import random
from pathlib import Path
from typing import Final

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from psycopg import sql

from tenten.runtime.errors import DatabaseOlderThanStream, DatabaseRefused
from tests.faults.checker import Sequence, Setting, violations
from tests.faults.evidence import gather
from tests.faults.traffic import Store
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, Scene, set_scene, wait_for

SETTING: Final = Setting(
    legal_entity_by_channel=LEGAL_ENTITY_BY_CHANNEL,
    sequences={"usrt": Sequence(format="C-########")},
    judge_content=False,
)
REFUSE_TABLES: Final = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.last_name = 'Tables' THEN RAISE EXCEPTION 'no thanks'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION refuse()
"""
CHECK_TABLES: Final = "ALTER TABLE customers ADD CONSTRAINT no_tables CHECK (last_name <> 'Tables')"


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Topics, tables and settings of this test's own."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url)


@pytest.fixture
def houston() -> Store:
    """A store, seeded."""
    return Store(channel_id="houston", legal_entity="usrt", rng=random.Random(1))


@pytest.fixture
def munich() -> Store:
    """A store of the company whose numbers may have gaps, seeded."""
    return Store(channel_id="munich", legal_entity="demf", rng=random.Random(2))


@pytest.mark.parametrize("refusal", [REFUSE_TABLES, CHECK_TABLES], ids=["trigger", "check"])
def test_database_refuses_one_event_of_many(scene: Scene, houston: Store, munich: Store, refusal: str) -> None:
    """The one that the database does not take is rejected, be it new or an edit; all others go through, gap-free."""
    # given
    scene.query(refusal)
    edited = houston.create()
    creates = [store.create() for _ in range(20) for store in (houston, munich)]
    creates[7]["customer"]["last_name"] = creates[29]["customer"]["last_name"] = "Tables"
    edits = [houston.edit(edited["customer_id"], title="Dr."), houston.edit(edited["customer_id"], last_name="Tables")]

    # when
    scene.send(edited, *creates, *edits)
    with scene.headquarters():
        replies = scene.replies(edited, *creates, *edits)

    # then
    rejected = [place for place, reply in enumerate(replies) if reply["outcome"] == "REJECTED"]
    assert rejected == [8, 30, 42]
    assert {reason["code"] for place in rejected for reason in replies[place]["reasons"]} == {"database_refused"}
    assert scene.tables().states[edited["customer_id"]]["title"] == "Dr."
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []
    # Numbers of attempts that came to nothing are used all the same.
    german = sorted(
        int(row["account_number"][1:]) for row in scene.tables().customers.values() if row["legal_entity"] == "demf"
    )
    assert german == list(range(1, len(german) + 1))


def test_numbers_that_run_out_reject_who_comes_too_late(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str, houston: Store
) -> None:
    """The last number is given, the next customer is told that there is none, and others go on."""
    # given
    scene = set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url, usrt_format="C-#")
    events = [houston.create() for _ in range(12)]

    # when
    scene.send(*events)
    with scene.headquarters():
        replies = scene.replies(*events)
        (edited,) = scene.ask(houston.edit(replies_customer(replies), title="Dr."))

    # then
    assert sorted(reply["account_number"] or "" for reply in replies) == ["", "", "", *(f"C-{n}" for n in range(1, 10))]
    reasons = [reason["code"] for reply in replies for reason in reply["reasons"]]
    assert reasons == ["number_sequence_used_up"] * 3
    assert edited["outcome"] == "SYNCHRONIZED"


def replies_customer(replies: list[dict[str, str]]) -> str:
    """A customer that got a number."""
    return next(reply["customer_id"] for reply in replies if reply["outcome"] == "SYNCHRONIZED")


def test_sequence_that_was_put_back_stops_headquarters(scene: Scene, houston: Store) -> None:
    """A number that somebody has is never given again, nor tried for ever: it ends, and says what to do."""
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


def test_legal_entity_without_a_sequence_stops_headquarters(scene: Scene, houston: Store) -> None:
    """A company that was configured after the last upgrade: it ends, and names the command."""
    # given
    scene.query("DELETE FROM number_sequences")
    scene.send(houston.create())

    # when
    with scene.headquarters() as worker:
        failure = worker.dies()

    # then
    assert isinstance(failure, DatabaseRefused)
    assert "tenten database upgrade headquarters" in str(failure)


def test_database_that_goes_away_is_waited_for(scene: Scene, houston: Store) -> None:
    """Its connections are cut again and again while batches go through: nothing is lost, nothing comes twice."""
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


def test_customer_that_another_worker_is_just_creating(scene: Scene, houston: Store) -> None:
    """A create, plain or one of several, that meets the same customer in an open transaction becomes an edit."""
    # given
    plain, twice = houston.create(title="Dr."), houston.create(title="Dr.")
    again = houston.edit(twice["customer_id"], tax_number="T1")
    columns = (
        "customer_id, account_number, version, updated_at, legal_entity, customer_type, title, first_name, "
        "middle_name, last_name, organization_name, language, currency, customer_group, receipt_preference, "
        "receipt_email, tax_number, address_books, affiliations, attributes"
    )
    row = "SELECT %s, %s, 1, now(), 'usrt', 'person', '', 'A', '', '', '', '', '', '', 'none', '', '', '[]', '[]', '[]'"

    # Few events never go as columns.
    others = [houston.create() for _ in range(20)]

    # when
    with psycopg.connect(scene.url) as other:
        for number, event in enumerate((plain, twice)):
            statement = f"INSERT INTO customers ({columns}) {row}"  # names from here
            other.execute(statement.encode(), (event["customer_id"], f"C-9000000{number}"))
        scene.send(*others, plain, twice, again)
        with scene.headquarters():
            wait_for(lambda: _waits_for_a_lock(scene), "the worker to meet the other")
            other.commit()
            replies = scene.replies(plain, twice, again)

    # then
    numbers = [reply["account_number"] for reply in replies]
    assert numbers == ["C-90000000", "C-90000001", "C-90000001"]
    assert [reply["version"] for reply in replies] == [2, 2, 3]
    assert scene.tables().sequences["usrt"]["next"] == len(others) + 1


def _waits_for_a_lock(scene: Scene) -> bool:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(scene.query(waiting))


@pytest.mark.parametrize("offsets", ["kept", "gone"])
def test_database_older_than_the_stream_is_refused(scene: Scene, houston: Store, offsets: str) -> None:
    """A database restored from a backup would give numbers out again: it is not used, and the advice says so."""
    # given
    with scene.headquarters():
        scene.ask(houston.create())
    backup = _copy_database(scene.url)
    with scene.headquarters():
        scene.ask(houston.create())
    if offsets == "gone":
        _forget_offsets(scene)

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


def test_offsets_that_are_gone_cost_nothing_but_repeats(scene: Scene, houston: Store) -> None:
    """A group that begins anew reads everything again, assigns nothing new, and answers as before."""
    # given
    events = [houston.create(), houston.create()]
    erased = houston.erase(events[0]["customer_id"])
    with scene.headquarters():
        scene.ask(*events)
        scene.ask(erased)
    _forget_offsets(scene)

    # when
    with scene.headquarters():
        (reply,) = scene.ask(houston.create())

    # then
    assert reply["account_number"] == "C-00000003"
    assert {row["repeats"] for row in scene.tables().log.values()} == {0, 1}
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url)
    assert violations(evidence, scene.journal, SETTING) == []


def _forget_offsets(scene: Scene) -> None:
    """As when they have expired."""
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    group = f"{scene.prefix}headquarters"
    admin.delete_consumer_groups([group])[group].result(20)


def _copy_database(url: str) -> str:
    """A copy of the database as it is now; its address."""
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
