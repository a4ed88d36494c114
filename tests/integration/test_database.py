"""Opening, upgrading and locking real databases of both kinds."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, insert, inspect, make_url, select, text
from sqlalchemy.exc import OperationalError

from tenten import schemas
from tenten.runtime.error_codes import is_transient
from tenten.runtime.errors import DatabaseRefused, LockHeld
from tenten.runtime.settings import LegalEntity
from tenten.schemas.tables import channel, headquarters
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.locks import DatabaseLock, apply_lock, relay_lock, resync_lock
from tenten.sql.migrations import check_version, upgrade_channel, upgrade_headquarters
from tests.conftest import NewDatabase
from tests.scenes import wait_for

_DEADLINE_SECONDS = 20.0

_HOLD_LOCK = """
import sys, time
from tenten.sql.locks import apply_lock, relay_lock, resync_lock
from tenten.sql.engine import open_database
lock = {"apply": apply_lock, "relay": relay_lock, "resync": resync_lock}[sys.argv[1]]
with lock(open_database(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


def _legal_entity(number_format: str, next_number: int, continuous: bool) -> LegalEntity:
    return LegalEntity.model_validate(
        {
            "country": "US",
            "currency": "USD",
            "language": "en-US",
            "account_numbers": {"format": number_format, "next": next_number, "continuous": continuous},
        }
    )


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture(params=["postgresql", "sqlite"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives the address of an empty database at each call, once with PostgreSQL and once with SQLite."""
    if request.param == "postgresql":
        create: Callable[[], str] = request.getfixturevalue("new_database")
        return create
    files = iter(tmp_path / f"{number}.db" for number in range(10))
    return lambda: f"sqlite:///{next(files)}"


@pytest.fixture
def store(new_url: Callable[[], str]) -> Iterator[Engine]:
    """A channel's database of this release."""
    with _opened(new_url()) as engine:
        upgrade_channel(engine)
        yield engine


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'store.db'}"


def _add_topic(connection: Connection, name: str) -> None:
    connection.execute(insert(channel.topics).values(topic=name, topic_id="id", partitions=12))


def _topics(connection: Connection) -> list[str]:
    return list(connection.scalars(select(channel.topics.c.topic).order_by(channel.topics.c.topic)))


# Migrations


def _catalogue(connection: Connection) -> list[tuple[str, ...]]:
    """Everything that the database itself says of its tables, indexes and views, but not of the version's own table."""
    if connection.dialect.name == "sqlite":
        tables = "SELECT name, tbl_name, sql FROM sqlite_master WHERE tbl_name NOT LIKE '%_version' ORDER BY name"
        return [
            (str(name), str(table), " ".join(str(sql).split())) for name, table, sql in connection.execute(text(tables))
        ]
    columns = """
        SELECT table_name, column_name, ordinal_position::text, udt_name, is_nullable, column_default,
               is_identity, col_description(('public.' || quote_ident(table_name))::regclass, ordinal_position)
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '%\\_version'
        ORDER BY 1, 3"""
    indexes = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%version%'"
    )
    constraints = """
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT LIKE '%\\_version' ORDER BY 1"""
    views = "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1"
    storage = """
        SELECT attrelid::regclass::text, attname, attstorage FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT LIKE '%\\_version' AND attnum > 0
        ORDER BY 1, 2"""
    queries = (columns, storage, indexes + " ORDER BY 1", constraints, views)
    return [tuple(str(value) for value in row) for query in queries for row in connection.execute(text(query))]


def _assert_equal_to_metadata(upgraded: Engine, made: Engine, metadata: MetaData, version_table: str) -> None:
    metadata.create_all(made)
    with upgraded.begin() as one, made.begin() as other:
        options = {"compare_type": True, "compare_server_default": True, "version_table": version_table}
        assert compare_metadata(MigrationContext.configure(one, opts=options), metadata) == []
        assert _catalogue(one) == _catalogue(other)


def test_headquarters_migrations_make_the_declared_tables(new_database: NewDatabase) -> None:
    """The history of headquarters' tables ends at what `schemas/tables/headquarters.py` declares, to the last index."""
    with _opened(new_database()) as upgraded, _opened(new_database()) as made:
        # when
        upgrade_headquarters(upgraded, {})

        # then
        _assert_equal_to_metadata(upgraded, made, headquarters.metadata, "headquarters_version")


def test_channel_migrations_make_the_declared_tables(new_url: Callable[[], str]) -> None:
    """The history of a channel's tables ends at what `schemas/tables/channel.py` declares, in both kinds of
    database.
    """
    with _opened(new_url()) as upgraded, _opened(new_url()) as made:
        # when
        upgrade_channel(upgraded)

        # then
        _assert_equal_to_metadata(upgraded, made, channel.metadata, "channel_version")


def _upgrade_to(engine: Engine, revision: str) -> None:
    """Bring an empty database to what headquarters' was in an earlier release."""
    migrations = Path(schemas.__file__).parent / "migrations"
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection, "version_table": "headquarters_version"})
        config.set_main_option("script_location", str(migrations))
        config.set_main_option("version_locations", str(migrations / "headquarters" / "versions"))
        config.set_main_option("path_separator", "newline")
        command.upgrade(config, revision)


def test_upgrade_keeps_the_answers_that_are_due(new_database: NewDatabase) -> None:
    """Answers that an earlier release has left, a row each, are due afterwards, in their order; those too that are just
    being written.
    """
    ids = [f"00000000-0000-7000-8000-{number:012}" for number in range(10_001)]
    random.Random(1).shuffle(ids)
    due = text("INSERT INTO replies_due (channel_id, transaction_id, payload) VALUES (:channel, :id, :payload)")
    rows = [{"channel": f"c{one[-1]}", "id": one, "payload": one.encode()} for one in ids]
    with _opened(new_database()) as engine, ThreadPoolExecutor(1) as beside:
        # given
        _upgrade_to(engine, "0003")
        with engine.begin() as connection:
            connection.execute(due, rows[:-1])

        # when
        with engine.begin() as writing:
            writing.execute(due, rows[-1:])
            upgrading = beside.submit(upgrade_headquarters, engine, {})
            waits = text(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'replies_due'::regclass)"
            )
            wait_for(lambda: bool(writing.scalar(waits)), "the upgrade to wait")
        upgrading.result(_DEADLINE_SECONDS)

        # then
        with engine.begin() as connection:
            found = connection.execute(select(headquarters.replies_due).order_by(text("sequence"))).all()
        assert [one.answer_count for one in found] == [10_000, 1]
        told = [told for one in found for told in zip(one.channel_ids, one.transaction_ids, one.payloads, strict=True)]
        assert told == [(f"c{one[-1]}", one, one.encode()) for one in ids]


def test_second_upgrade_keeps_what_is_there(store: Engine) -> None:
    """An upgrade of a database of this release changes nothing, so it may be run at every start."""
    # given
    with store.begin() as connection:
        _add_topic(connection, "customers")

    # when
    upgrade_channel(store)

    # then
    check_version(store, "channel")
    with store.begin() as connection:
        assert _topics(connection) == ["customers"]


def test_failed_upgrade_leaves_nothing_behind(new_url: Callable[[], str]) -> None:
    """A migration is one transaction: where its last table cannot be made, none is."""
    with _opened(new_url()) as engine:
        # given
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE resync_keys (in_the_way INTEGER)"))

        # when
        with pytest.raises(Exception, match="resync_keys"):
            upgrade_channel(engine)

        # then
        with engine.begin() as connection:
            assert inspect(connection).get_table_names() == ["resync_keys"]


def test_several_upgrades_at_once_make_the_tables_once(new_url: Callable[[], str]) -> None:
    """Processes that start together upgrade one after the other, and all of them find the tables afterwards."""
    # given
    url = new_url()
    failures: list[BaseException] = []
    barrier = threading.Barrier(4)

    def upgrade() -> None:
        with _opened(url) as engine:
            barrier.wait()
            try:
                upgrade_channel(engine)
                check_version(engine, "channel")
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
                failures.append(error)

    # when
    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    assert failures == []


def test_upgrade_makes_the_directory_of_a_sqlite_file(tmp_path: Path) -> None:
    """A new till needs no preparation but its address."""
    with _opened(f"sqlite:///{tmp_path}/tills/3.db") as engine:
        # when
        upgrade_channel(engine)

        # then
        check_version(engine, "channel")


def test_number_sequences_follow_the_settings_but_never_go_back(headquarters_url: str) -> None:
    """A new legal entity gets its sequence; a known one takes format and continuity, and keeps its next number."""
    with _opened(headquarters_url) as engine:
        # given
        upgrade_headquarters(engine, {"usrt": _legal_entity("C-####", 1, continuous=True)})
        with engine.begin() as connection:
            connection.execute(text("UPDATE number_sequences SET next = 42"))

        # when
        upgrade_headquarters(
            engine,
            {
                "usrt": _legal_entity("US-########", 7, continuous=False),
                "demf": _legal_entity("DE-######", 1000, continuous=True),
            },
        )

        # then
        with engine.begin() as connection:
            sequences = connection.execute(
                text("SELECT legal_entity, format, next, continuous FROM number_sequences ORDER BY legal_entity")
            ).all()
        assert [tuple(sequence) for sequence in sequences] == [
            ("demf", "DE-######", 1000, True),
            ("usrt", "US-########", 42, False),
        ]


def test_database_that_was_not_upgraded_is_refused(new_url: Callable[[], str]) -> None:
    """A process that starts too early is told the command to run, and leaves no empty file behind."""
    # given
    url = new_url()
    with _opened(url) as engine:
        # when
        with pytest.raises(DatabaseRefused) as refused:
            check_version(engine, "channel")

        # then
        assert "run `tenten database upgrade channel NAME`" in str(refused.value)
        assert engine.dialect.name == "postgresql" or not Path(str(engine.url.database)).exists()


def test_database_of_a_newer_release_is_refused(store: Engine) -> None:
    """An older program neither works on tables that it does not know nor upgrades them."""
    # given
    with store.begin() as connection:
        connection.execute(text("UPDATE channel_version SET version_num = '9999'"))

    # when
    with pytest.raises(DatabaseRefused) as at_start:
        check_version(store, "channel")
    with pytest.raises(DatabaseRefused) as at_upgrade:
        upgrade_channel(store)

    # then
    assert "newer tenten" in str(at_start.value)
    assert "newer tenten" in str(at_upgrade.value)


def test_database_of_the_other_kind_is_refused(headquarters_url: str) -> None:
    """A channel whose address is headquarters' database, by mistake, does not touch it."""
    with _opened(headquarters_url) as engine:
        # given
        upgrade_headquarters(engine, {})

        # when
        with pytest.raises(DatabaseRefused) as at_upgrade:
            upgrade_channel(engine)
        with pytest.raises(DatabaseRefused) as at_start:
            check_version(engine, "channel")

        # then
        assert "is a headquarters database: channel needs its own" in str(at_upgrade.value)
        assert "is a headquarters database" in str(at_start.value)


# Opening


def test_postgresql_that_does_not_let_us_in_is_refused_with_advice(postgresql: str) -> None:
    """A database or user that is not there stops at once, with its address and without its password."""
    # given
    nowhere = make_url(postgresql).set(database="nowhere", password="secret")

    # when
    with _opened(nowhere.render_as_string(hide_password=False)) as engine, pytest.raises(DatabaseRefused) as refused:
        engine.connect()

    # then
    assert "does not have this database: create it, or correct the address" in str(refused.value)
    assert "/nowhere" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_postgresql_that_is_away_is_transient(tmp_path: Path) -> None:
    """A server that does not answer may come back: the error says so."""
    # when
    with _opened(f"postgresql://postgres@/store?host={tmp_path}") as engine, pytest.raises(OperationalError) as away:
        engine.connect()

    # then
    assert is_transient(away.value)


def test_broken_postgresql_connection_is_replaced(headquarters_url: str) -> None:
    """After the server has ended a pooled connection, the next transaction works."""
    with _opened(headquarters_url) as engine, _opened(headquarters_url) as other:
        # given
        with engine.begin() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
        with other.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

        # when
        with engine.begin() as connection:
            answer = connection.scalar(text("SELECT 1"))

        # then
        assert answer == 1


def test_options_in_the_address_are_added_to_ours(headquarters_url: str) -> None:
    """Who sets a search path or a time zone of his own does not lose the plans and time-outs that are ours."""
    theirs = quote("-c timezone=Europe/Berlin -c search_path=public")
    with _opened(f"{headquarters_url}&options={theirs}") as engine, engine.begin() as connection:
        # when
        names = ("timezone", "search_path", "plan_cache_mode", "idle_in_transaction_session_timeout")
        found = [connection.scalar(text(f"SHOW {name}")) for name in names]

        # then
        assert found == ["Europe/Berlin", "public", "force_custom_plan", "30s"]


def test_postgresql_connection_ends_with_its_process_or_its_line(headquarters_url: str) -> None:
    """A frozen process and a cut line do not hold locks for ever; what the address itself says, wins."""
    with _opened(headquarters_url) as engine, _opened(f"{headquarters_url}&application_name=till-3") as named:
        # when
        with engine.begin() as connection:
            ours = {
                name: connection.scalar(text(f"SHOW {name}"))
                for name in ("application_name", "timezone", "idle_in_transaction_session_timeout")
            }
        with named.begin() as connection:
            name = connection.scalar(text("SHOW application_name"))

        # then
        assert ours == {"application_name": "tenten", "timezone": "UTC", "idle_in_transaction_session_timeout": "30s"}
        assert name == "till-3"


@pytest.mark.parametrize(
    ("content", "advice"),
    [(b"no database " * 100, "is not a SQLite database: correct the address"), (None, "its directory must exist")],
)
def test_sqlite_that_cannot_be_opened_is_refused_with_advice(
    tmp_path: Path, content: bytes | None, advice: str
) -> None:
    """A file that is something else, or a directory that is not there, stops at once with the path."""
    # given
    file = tmp_path / ("file" if content else "nowhere/file")
    if content:
        file.write_bytes(content)

    # when
    with _opened(f"sqlite:///{file}") as engine, pytest.raises(DatabaseRefused) as refused:
        engine.connect()

    # then
    assert f"{file} " in str(refused.value)
    assert advice in str(refused.value)


def test_sqlite_commits_are_on_disk_and_do_not_stop_readers(sqlite_url: str) -> None:
    """A till that loses power keeps what it has committed: WAL with full synchronization, on every connection."""
    with _opened(sqlite_url) as engine, engine.begin() as connection, engine.connect() as second:
        # when
        modes = [
            (one.exec_driver_sql("PRAGMA journal_mode").scalar(), one.exec_driver_sql("PRAGMA synchronous").scalar())
            for one in (connection, second.execution_options(isolation_level="AUTOCOMMIT"))
        ]

        # then
        assert modes == [("wal", 2), ("wal", 2)]


def test_eight_sqlite_writers_lose_nothing(sqlite_url: str) -> None:
    """Transactions that read first and write then wait for each other; none overwrites another or fails."""
    # given
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)
    with _opened(sqlite_url) as engine, engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter (value INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))

    def count() -> None:
        with _opened(sqlite_url) as engine:
            barrier.wait()
            try:
                for _ in range(10):
                    with engine.begin() as connection:
                        value = connection.scalar(text("SELECT value FROM counter"))
                        connection.execute(text("UPDATE counter SET value = :next"), {"next": (value or 0) + 1})
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
                failures.append(error)

    # when
    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    assert failures == []
    with _opened(sqlite_url) as engine, engine.begin() as connection:
        assert connection.scalar(text("SELECT value FROM counter")) == 80


def test_writer_that_never_pauses_keeps_nobody_from_writing(sqlite_url: str) -> None:
    """While two processes write one transaction after the other, a clerk's own still get in, each within a moment."""
    # given
    stop = threading.Event()

    def write_on_and_on() -> None:
        with _opened(sqlite_url) as engine:
            while not stop.is_set():
                with engine.begin() as connection:
                    connection.execute(text("INSERT INTO sale (store) VALUES (1)"))
                    stop.wait(0.02)

    with _opened(sqlite_url) as engine, engine.begin() as connection:
        connection.execute(text("CREATE TABLE sale (store integer)"))
    busy = [threading.Thread(target=write_on_and_on) for _ in range(2)]
    for thread in busy:
        thread.start()
    # when
    waited_seconds = []
    try:
        with _opened(sqlite_url) as engine:
            for _ in range(20):
                began = time.monotonic()
                with engine.begin() as connection:
                    connection.execute(text("INSERT INTO sale (store) VALUES (2)"))
                waited_seconds.append(time.monotonic() - began)
                stop.wait(0.05)
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    # then
    assert max(waited_seconds) < 2


def test_new_sqlite_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """Switching a new file to WAL does not make the others fail that open it at the same moment."""
    # given
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def open_each() -> None:
        for number in range(15):
            barrier.wait()
            try:
                with _opened(f"sqlite:///{tmp_path / str(number)}.db") as engine, engine.begin() as connection:
                    connection.execute(text("CREATE TABLE IF NOT EXISTS customers (id INTEGER)"))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
                failures.append(error)

    # when
    threads = [threading.Thread(target=open_each) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    assert failures == []


def test_view_stays_the_same_while_others_write(store: Engine) -> None:
    """Two questions in one view get answers of the same moment, and the writer in between does not wait."""
    # given
    with store.begin() as connection:
        _add_topic(connection, "before")

    # when
    with consistent_view(store) as view:
        first = _topics(view)
        with store.begin() as writer:
            _add_topic(writer, "while")
        second = _topics(view)
    with consistent_view(store) as view:
        third = _topics(view)

    # then
    assert first == second == ["before"]
    assert third == ["before", "while"]


def test_failed_transaction_leaves_nothing(store: Engine) -> None:
    """What a transaction wrote before it failed was never there."""
    # when
    with suppress(ZeroDivisionError), store.begin() as connection:
        _add_topic(connection, "customers")
        raise ZeroDivisionError

    # then
    with store.begin() as connection:
        assert _topics(connection) == []


# Locks


@contextmanager
def _another_process_holds(name: str, engine: Engine) -> Iterator["subprocess.Popen[str]"]:
    url = engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD_LOCK, name, url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


@pytest.mark.parametrize(("name", "lock"), [("apply", apply_lock), ("relay", relay_lock), ("resync", resync_lock)])
def test_lock_of_another_process_is_respected_until_it_is_killed(
    name: str, lock: Callable[[Engine, float], AbstractContextManager[DatabaseLock]], store: Engine
) -> None:
    """While another process lives its lock is refused; killed without a word, it leaves none behind."""
    with _another_process_holds(name, store) as holder:
        # when
        with pytest.raises(LockHeld) as refused, lock(store, 0):
            pass
        holder.send_signal(signal.SIGKILL)

        # then
        assert "is already running" in str(refused.value)
        with lock(store, _DEADLINE_SECONDS) as held:
            assert held.is_held()


def test_the_locks_of_a_channel_are_independent(store: Engine) -> None:
    """Relaying, applying and resyncing go on side by side, in one process or in several."""
    # when
    with relay_lock(store, 0) as relaying, apply_lock(store, 0) as applying, resync_lock(store, 0) as resyncing:
        # then
        assert relaying.is_held()
        assert applying.is_held()
        assert resyncing.is_held()


def test_lock_is_free_again_afterwards(store: Engine) -> None:
    """A lock ends with its block, also when the block fails."""
    # given
    with pytest.raises(ZeroDivisionError), apply_lock(store):
        raise ZeroDivisionError

    # when
    with apply_lock(store, 0) as held:
        # then
        assert held.is_held()


def test_apply_lock_waits_for_its_turn(store: Engine) -> None:
    """Who comes second waits without being told to come again, and gets the lock when the first is done."""
    # given
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with apply_lock(store):
            order.append("second")

    # when
    thread = threading.Thread(target=second)
    with apply_lock(store):
        thread.start()
        waiting.wait(_DEADLINE_SECONDS)
        order.append("first")
    thread.join(_DEADLINE_SECONDS)

    # then
    assert order == ["first", "second"]


def test_postgresql_lock_is_lost_with_its_connection(headquarters_url: str) -> None:
    """A holder whose connection broke learns that the lock is gone, and leaving it harms nobody."""
    # given
    end_holder = text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with _opened(headquarters_url) as engine, _opened(headquarters_url) as other, relay_lock(engine) as held:
        before = held.is_held()

        # when
        with other.begin() as connection:
            connection.execute(end_holder)
        after = [held.is_held(), held.is_held()]

        # then
        assert before
        assert after == [False, False]
        with relay_lock(other, 0) as taken_over:
            assert taken_over.is_held()
