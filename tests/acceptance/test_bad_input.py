"""What is wrong with the world, row by row: what headquarters does not know, servers that are away, passwords and
privileges that are missing, settings that make no sense, disks that are full.

Whatever waiting can mend is waited for, said once, and heals without a restart, while stores go on creating. Whatever
it cannot mend ends the command at once with one sentence that says what to do.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tenten.local import (
    LocalKafka,
    create_database,
    start_kafka,
    start_postgres,
    stop_kafka,
    stop_postgres,
)
from tenten.local.ports import free_port
from tests.acceptance.cli import ROOT, Ended, Tenten, wait_until
from tests.conftest import NewDatabase
from tests.services import directory_for_server

PROMPT_SECONDS: Final = 30.0
"""At once, on a machine that is busy."""

AWAY_SECONDS: Final = 7.0
"""How long a server stays away: longer than the longest pause between two tries."""

LINES_OF_AN_OUTAGE_MAX: Final = 8
"""What headquarters and the three parts of a channel may say together of one outage."""

PASSWORD: Final = "right"
MECHANISM: Final = "SCRAM-SHA-256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker of these tests' own: it may be stopped, and has a second door with users and privileges."""

    directory: Path
    kafka: LocalKafka
    guarded_port: int

    @property
    def address(self) -> str:
        """Where everybody may do everything."""
        return self.kafka.bootstrap_servers

    def start(self) -> None:
        """Start it at its addresses, unless it runs."""
        again = start_kafka(self.directory, properties=GUARDED, listeners=guarded_door(self.guarded_port))
        assert again.bootstrap_servers == self.kafka.bootstrap_servers, "another program has taken the broker's port"

    def stop(self, grace_seconds: float) -> None:
        """End it; without grace by SIGKILL."""
        assert stop_kafka(self.directory, grace_seconds)

    def toml(self, user: str, password: str = PASSWORD) -> str:
        """`[kafka]` for somebody who comes by the second door."""
        return (
            f'[kafka]\n"bootstrap.servers" = "127.0.0.1:{self.guarded_port}"\n"security.protocol" = "SASL_PLAINTEXT"\n'
            f'"sasl.mechanism" = "{MECHANISM}"\n"sasl.username" = "{user}"\n"sasl.password" = "{password}"\n'
        )

    def make_user(self, name: str) -> None:
        """A user without any privilege."""
        admin = AdminClient({"bootstrap.servers": self.address})
        credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        user = UserScramCredentialUpsertion(name, credentials, PASSWORD.encode())
        for future in admin.alter_user_scram_credentials([user]).values():
            future.result(PROMPT_SECONDS)

    def allow(self, user: str, kind: ResourceType, prefix: str) -> None:
        """Let a user do everything with resources of this kind whose names begin so."""
        binding = AclBinding(
            kind,
            prefix,
            ResourcePatternType.PREFIXED,
            f"User:{user}",
            "*",
            AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        admin = AdminClient({"bootstrap.servers": self.address})
        for future in admin.create_acls([binding]).values():
            future.result(PROMPT_SECONDS)


GUARDED: Final = {
    "listener.name.guarded.sasl.enabled.mechanisms": MECHANISM,
    f"listener.name.guarded.{MECHANISM.lower()}.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
"""A broker with two doors: whoever comes by the first, as the broker itself does, needs no password."""


def guarded_door(port: int) -> dict[str, str]:
    """The second door."""
    return {"GUARDED": f"SASL_PLAINTEXT://127.0.0.1:{port}"}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker of one's own; whoever stops it starts it again."""
    with directory_for_server("guarded") as directory:
        port = free_port()
        try:
            kafka = start_kafka(directory, properties=GUARDED, listeners=guarded_door(port))
            yield Broker(directory=directory, kafka=kafka, guarded_port=port)
        finally:
            stop_kafka(directory, grace_seconds=0)


LEGAL_ENTITY: Final = """
[legal_entities.{name}]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = {{ format = "{name}-########", next = 1, continuous = true }}
"""
CHANNEL: Final = """
[channels.{name}]
legal_entity = "{legal_entity}"
database = "{database}"
"""


def make(
    directory: Path,
    *,
    prefix: str,
    kafka: str,
    headquarters: str | None = None,
    channels: dict[str, str] | None = None,
    database: str = "sqlite:///{name}.db",
) -> Tenten:
    """A directory with a `tenten.toml`. `channels` are legal entities by channel."""
    channels = {"houston": "usrt"} if channels is None else channels
    parts = [f'prefix = "{prefix}"', kafka]
    if headquarters is not None:
        parts.append(f'[headquarters]\ndatabase = "{headquarters}"')
    parts += [LEGAL_ENTITY.format(name=name) for name in sorted(set(channels.values()))]
    parts += [
        CHANNEL.format(name=name, legal_entity=entity, database=database.format(name=name))
        for name, entity in channels.items()
    ]
    directory.mkdir(exist_ok=True)
    (directory / "tenten.toml").write_text("\n".join(parts))
    return Tenten(directory=directory)


def plain(address: str) -> str:
    """`[kafka]` for a broker that asks for nothing."""
    return f'[kafka]\n"bootstrap.servers" = "{address}"\n'


def refuses(ended: Ended, code: int, *words: str) -> None:
    """Fail unless a command has ended with this code, nothing on stdout, one sentence with these words on stderr."""
    said = [line for line in ended.err.splitlines() if not line.startswith("timestamp=")]
    assert ended.code == code, ended
    assert ended.out == "", ended
    assert len(said) == 1, ended
    assert said[0].startswith("tenten: "), ended
    assert [word for word in words if word not in said[0]] == [], said[0]


def status_of(store: Tenten, channel: str, customer_id: str) -> str:
    """How a customer stands there."""
    return str(store.ok("customer", "show", channel, customer_id, "--json").json["status"])


# (a) What headquarters does not know


def test_headquarters_names_what_it_does_not_know(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str
) -> None:
    """A channel, a legal entity, a legal entity that is not the channel's: each is rejected by name, for the clerk to
    see.
    """
    # given stores whose settings are not those of headquarters
    kafka = plain(bootstrap_servers)
    hq = make(
        tmp_path / "hq",
        prefix=prefix,
        kafka=kafka,
        headquarters=headquarters_url,
        channels={"houston": "usrt", "boston": "usrt", "toronto": "cart"},
    )
    stores = make(
        tmp_path / "stores",
        prefix=prefix,
        kafka=kafka,
        channels={"houston": "cart", "boston": "demf", "dallas": "usrt"},
    )
    hq.ok("topics", "apply")
    hq.ok("database", "upgrade", "headquarters")
    stores.ok("database", "upgrade", "all")
    # when
    made = {
        name: stores.ok("customer", "create", name, "--first-name", "Ada", "--json").json["customer_id"]
        for name in ("houston", "boston", "dallas")
    }
    with (
        hq.running("headquarters", "run"),
        stores.running("channel", "run", "houston"),
        stores.running("channel", "run", "boston"),
        stores.running("channel", "run", "dallas"),
    ):
        for name, customer_id in made.items():
            wait_for(lambda: status_of(stores, name, customer_id) == "rejected", f"the answer to {name}")  # noqa: B023
    # then
    expected = {
        "houston": ("legal_entity", "other_legal_entity", "cart"),
        "boston": ("legal_entity", "unknown_legal_entity", "demf"),
        "dallas": ("channel_id", "unknown_channel", "dallas"),
    }
    for name, (field, code, named) in expected.items():
        shown = stores.ok("customer", "show", name, made[name], "--json").json
        assert shown["account_number"] is None
        assert [(reason["field"], reason["code"]) for reason in shown["reasons"]] == [(field, code)]
        assert named in shown["reasons"][0]["text"]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, whatever it refers to now."""
    wait_until(condition, what)


# (b) Servers that are away


@pytest.fixture
def company(tmp_path: Path, broker: Broker, prefix: str, headquarters_url: str) -> Tenten:
    """Headquarters and a store on the broker of these tests' own, with topics and databases."""
    tenten = make(tmp_path / "company", prefix=prefix, kafka=plain(broker.address), headquarters=headquarters_url)
    tenten.ok("topics", "apply")
    tenten.ok("database", "upgrade", "all")
    return tenten


def create(store: Tenten, name: str) -> None:
    """A clerk creates a customer, which takes no longer than it ever does."""
    began = time.monotonic()
    assert store.ok("customer", "create", "houston", "--first-name", name, "--json").json["status"] == "pending"
    assert time.monotonic() - began < PROMPT_SECONDS


def numbered(store: Tenten) -> set[str]:
    """The first names of the customers of houston who have an account number."""
    with closing(sqlite3.connect(store.directory / "houston.db", timeout=30)) as file:
        return {name for (name,) in file.execute("SELECT first_name FROM customers WHERE account_number IS NOT NULL")}


def complaints(tenten: Tenten) -> list[str]:
    """What the processes have said that is more than information."""
    return [line for line in tenten.log.splitlines() if "level=info" not in line]


def pass_by(seconds: float) -> None:
    """Let time pass in which nothing is to happen."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, "time to pass")


def test_broker_that_is_away_is_waited_for(company: Tenten, broker: Broker) -> None:
    """Stopped or killed, for seconds: the store goes on creating, nobody dies or floods the log, and it all arrives."""
    with company.running("headquarters", "run") as hq, company.running("channel", "run", "houston") as houston:
        create(company, "first")
        wait_until(lambda: numbered(company) == {"first"}, "the first number")
        everybody = {"first"}
        for name, grace_seconds in (("stopped", 15.0), ("killed", 0.0)):
            said = len(complaints(company))
            # when
            broker.stop(grace_seconds)
            try:
                create(company, name)
                pass_by(AWAY_SECONDS)
                create(company, f"{name}, still")
                # then
                assert [process.poll() for process in (hq, houston)] == [None, None], company.log
                assert 1 <= len(complaints(company)) - said <= LINES_OF_AN_OUTAGE_MAX, complaints(company)[said:]
            finally:
                broker.start()
            everybody |= {name, f"{name}, still"}
            wait_until(lambda: numbered(company) == everybody, "every number")  # noqa: B023 - called here and now
        assert [process.poll() for process in (hq, houston)] == [None, None], company.log


def test_database_of_headquarters_that_is_away_is_waited_for(tmp_path: Path, broker: Broker, prefix: str) -> None:
    """Stopped at work, and not there yet at the start of headquarters: both are waited for, and nothing is skipped."""
    with directory_for_server("away") as directory:
        try:
            url = create_database(start_postgres(directory, settings={"fsync": "off"}).postgresql, "headquarters")
            company = make(tmp_path / "company", prefix=prefix, kafka=plain(broker.address), headquarters=url)
            company.ok("topics", "apply")
            company.ok("database", "upgrade", "all")
            with company.running("channel", "run", "houston"):
                with company.running("headquarters", "run") as hq:
                    create(company, "first")
                    wait_until(lambda: numbered(company) == {"first"}, "the first number")
                    # when it goes while headquarters is at work
                    stop_postgres(directory)
                    create(company, "second")
                    wait_until(lambda: bool(complaints(company)), "headquarters to say that it waits")
                    pass_by(AWAY_SECONDS)
                    # then
                    assert hq.poll() is None, company.log
                    assert len(complaints(company)) <= LINES_OF_AN_OUTAGE_MAX, complaints(company)
                    start_postgres(directory, settings={"fsync": "off"})
                    wait_until(lambda: numbered(company) == {"first", "second"}, "the second number")
                # when it is not there at the start
                stop_postgres(directory)
                said = len(complaints(company))
                with company.running("headquarters", "run") as hq:
                    create(company, "third")
                    wait_until(lambda: len(complaints(company)) > said, "headquarters to say that it waits")
                    assert hq.poll() is None, company.log
                    start_postgres(directory, settings={"fsync": "off"})
                    # then
                    wait_until(lambda: numbered(company) == {"first", "second", "third"}, "the third number")
                    assert len(complaints(company)) == said + 1, complaints(company)
        finally:
            stop_postgres(directory)


# (c) Passwords, topics, privileges, settings


@pytest.mark.parametrize(
    "words",
    [
        ("topics", "apply"),
        ("headquarters", "run"),
        ("channel", "run", "houston"),
        ("channel", "relay", "houston"),
        ("lag",),
    ],
    ids=" ".join,
)
def test_wrong_password_is_said_at_once(
    tmp_path: Path, broker: Broker, prefix: str, headquarters_url: str, words: tuple[str, ...]
) -> None:
    """No command waits for a broker that has said no."""
    broker.make_user("clerk")
    tenten = make(tmp_path, prefix=prefix, kafka=broker.toml("clerk", "wrong"), headquarters=headquarters_url)
    tenten.ok("database", "upgrade", "all")
    began = time.monotonic()
    refuses(tenten.run(*words), 1, "user or password", "sasl.username", "sasl.password")
    assert time.monotonic() - began < PROMPT_SECONDS


def test_doctor_says_what_the_broker_does_not_like(
    tmp_path: Path, broker: Broker, prefix: str, headquarters_url: str
) -> None:
    """A wrong password, topics that may not be seen, topics that are not there: each is told from the others."""
    broker.make_user("doctor")

    def broken(kafka: str) -> dict[str, str]:
        tenten = make(tmp_path, prefix=prefix, kafka=kafka, headquarters=headquarters_url)
        tenten.ok("database", "upgrade", "all")
        ended = tenten.run("doctor", "--json")
        assert ended.code == 3
        assert "Traceback" not in ended.err
        return {check["what"]: check["text"] for check in ended.json["checks"] if not check["ok"]}

    wrong, foreign, missing = map(broken, (broker.toml("doctor", "no"), broker.toml("doctor"), plain(broker.address)))
    assert wrong.keys() == {"broker"}
    assert "password" in wrong["broker"]
    assert foreign.keys() == {"topics"}
    assert "privilege" in foreign["topics"]
    assert missing.keys() == {"topics"}
    assert "tenten topics apply" in missing["topics"]


@pytest.mark.parametrize("words", [("headquarters", "run"), ("channel", "run", "houston")], ids=" ".join)
def test_missing_topic_is_said_at_once(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str, words: tuple[str, ...]
) -> None:
    """Nobody has applied the topics yet: the command says which one is missing, and what to run."""
    tenten = make(tmp_path, prefix=prefix, kafka=plain(bootstrap_servers), headquarters=headquarters_url)
    tenten.ok("database", "upgrade", "all")
    began = time.monotonic()
    refuses(tenten.run(*words), 1, "tenten topics apply", prefix)
    assert time.monotonic() - began < PROMPT_SECONDS


@pytest.mark.parametrize(
    ("granted", "words", "named"),
    [
        ((), ("topics", "apply"), "async-customers"),
        ((), ("headquarters", "run"), "schemas"),
        ((), ("channel", "run", "houston"), "the topic"),
        ((ResourceType.TOPIC,), ("headquarters", "run"), "transactional id"),
        ((ResourceType.TOPIC, ResourceType.TRANSACTIONAL_ID), ("headquarters", "run"), "consumer group"),
    ],
    ids=["apply", "headquarters", "channel", "transactional id", "group"],
)
def test_missing_privilege_is_said_at_once(
    *,
    tmp_path: Path,
    broker: Broker,
    prefix: str,
    headquarters_url: str,
    granted: tuple[ResourceType, ...],
    words: tuple[str, ...],
    named: str,
) -> None:
    """Whoever is known but not allowed is told what to be granted."""
    owner = make(tmp_path, prefix=prefix, kafka=plain(broker.address), headquarters=headquarters_url)
    if granted:
        owner.ok("topics", "apply")
    owner.ok("database", "upgrade", "all")
    broker.make_user(f"{prefix}clerk")
    for kind in granted:
        broker.allow(f"{prefix}clerk", kind, prefix)
    clerk = make(tmp_path, prefix=prefix, kafka=broker.toml(f"{prefix}clerk"), headquarters=headquarters_url)
    began = time.monotonic()
    refuses(clerk.run(*words), 1, "does not allow", "grant it", named)
    assert time.monotonic() - began < PROMPT_SECONDS


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ('[kafka]\n"sasl.jaas.config" = "x"\n', "write sasl.username and sasl.password"),
        ('[kafka]\n"sasl.mechansim" = "PLAIN"\n', "sasl.mechansim"),
        ('[kafka]\n"acks" = "1"\n', "acks"),
        ("[kafka\n", "tenten.toml is not valid TOML"),
        ("kafka = 1\n", "[kafka]"),
    ],
    ids=["Java only", "misspelt", "breaks a promise", "broken", "no table"],
)
def test_settings_that_make_no_sense_are_said_at_once(tmp_path: Path, line: str, advice: str) -> None:
    """What stands in tenten.toml is told from what is wrong elsewhere, by the exit code too."""
    (tmp_path / "tenten.toml").write_text(line)
    tenten = Tenten(directory=tmp_path, environment={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    refuses(tenten.run("topics", "apply"), 2, advice)


# (d) Disks that are full


FULL_DISK: Final = """
from sqlalchemy import Engine, event
event.listen(Engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = {pages}"))
"""
"""Python runs it at the start of a command: no file of SQLite can grow then, which is what a full disk is to it."""

HOUSTON_ROWS: Final = (
    "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM customer_addresses), (SELECT count(*) FROM outbox)"
)


def test_full_disk_of_a_till_is_refused_loudly_and_heals(tmp_path: Path) -> None:
    """The clerk is told that nothing was written, which is so; once there is room the same command works."""
    # given
    store = make(tmp_path, prefix="", kafka="")
    store.ok("database", "upgrade", "all")
    store.ok("customer", "create", "houston", "--first-name", "Ada")
    with closing(sqlite3.connect(tmp_path / "houston.db")) as file:
        (pages,) = file.execute("PRAGMA page_count").fetchone()
        before = file.execute(HOUSTON_ROWS).fetchone()
    addresses = [word for number in range(30) for word in ("--add-address", f"street={number} {'Long Street ' * 15}")]
    words = ("customer", "create", "houston", "--first-name", "Ben", *addresses)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "sitecustomize.py").write_text(FULL_DISK.format(pages=pages))
    # when
    refused = store.run(*words, PYTHONPATH=f"{tmp_path / 'full'}{os.pathsep}{ROOT}")
    # then
    refuses(refused, 1, "no space is left", "nothing was written")
    with closing(sqlite3.connect(tmp_path / "houston.db")) as file:
        assert file.execute(HOUSTON_ROWS).fetchone() == before == (1, 0, 1)
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # when
    store.ok(*words)
    # then
    with closing(sqlite3.connect(tmp_path / "houston.db")) as file:
        assert file.execute(HOUSTON_ROWS).fetchone() == (2, 30, 2)


def test_full_disk_of_a_store_server_is_refused_loudly_and_heals(tmp_path: Path, new_database: NewDatabase) -> None:
    """The same with PostgreSQL: when the event finds no room, the customer is not there either."""
    # given
    url = new_database()
    store = make(tmp_path, prefix="", kafka="", database=url)
    store.ok("database", "upgrade", "all")
    words = ("customer", "create", "houston", "--first-name", "Ada", "--street", "1 Main Street", "--city", "Houston")
    # when
    with full(url, "outbox"):
        refuses(store.run(*words), 1, "no space is left", "nothing was written")
    # then
    with psycopg.connect(url) as server:
        assert server.execute(HOUSTON_ROWS).fetchone() == (0, 0, 0)
    # when
    store.ok(*words)
    # then
    with psycopg.connect(url) as server:
        assert server.execute(HOUSTON_ROWS).fetchone() == (1, 1, 1)


def test_full_disk_of_headquarters_is_waited_for(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str
) -> None:
    """Nobody is refused for it: headquarters says once that it waits, and gives the number when there is room."""
    company = make(tmp_path, prefix=prefix, kafka=plain(bootstrap_servers), headquarters=headquarters_url)
    company.ok("topics", "apply")
    company.ok("database", "upgrade", "all")
    with company.running("headquarters", "run") as hq, company.running("channel", "run", "houston"):
        # when
        with full(headquarters_url, "synchronization_log"):
            create(company, "Ada")
            wait_until(lambda: bool(complaints(company)), "headquarters to say that it waits")
            pass_by(AWAY_SECONDS / 2)
            # then
            assert hq.poll() is None, company.log
            assert len(complaints(company)) == 1, complaints(company)
            assert numbered(company) == set()
        wait_until(lambda: numbered(company) == {"Ada"}, "the number")


@contextmanager
def full(url: str, table: str) -> Iterator[None]:
    """A PostgreSQL server that says of every row of a table that the disk is full, by its own code for that."""
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        server.execute(f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()".encode())
        try:
            yield
        finally:
            server.execute("DROP FUNCTION full_disk CASCADE")
