"""Accidents at headquarters, while everything works, and the ways out that docs/how-to names.

A database is put back to an older copy; topics are deleted and created again. What cannot be the same afterwards is
noted before, from outside, so that the checker allows this and nothing else.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from tenten.schemas.topics import CHANNEL_REPLIES, CUSTOMERS, TRANSACTION_REPLIES, Topic
from tests.faults.avro import decode
from tests.faults.evidence import read_topic
from tests.faults.soak_run.company import Company
from tests.faults.soak_run.program import Program
from tests.restores import back_up, recreate, restore
from tests.waiting import wait_for

NOTICED_SECONDS_MAX: Final = 240.0
"""Three times as long as a worker with nothing to do needs to notice a change."""

_SETTLING_SECONDS: Final = 1.0
"""After the workers were frozen: what they had sent has arrived then."""

Step = Callable[[Company], None]


def accidents(rng: random.Random) -> list[Step]:
    """The steps of all accidents, in a random order; a backup and its restoration follow each other."""
    database = _Database()
    ways: list[list[Step]] = [
        [database.back_up, database.restore],
        [_recreate_customers],
        [_recreate_replies],
    ]
    rng.shuffle(ways)
    return [step for steps in ways for step in steps]


class _Database:
    """Headquarters' database, copied in one step and put back in the next."""

    def __init__(self) -> None:
        self._copy = ""
        self._told: dict[str, int] = {}

    def back_up(self, company: Company) -> None:
        """Copy the database, while the workers of headquarters are stopped."""
        with _stopped(company, company.workers()):
            _close_connections(company)
            self._told = _told(company)
            self._copy = back_up(company.scene.url)
        company.faults["database copied"] += 1

    def restore(self, company: Company) -> None:
        """Put the copy in its place under running workers; then what docs/how-to/restored-database.md says."""
        workers = company.workers()
        # A database that lacks nothing that headquarters has told its channels is none the worse for it.
        wait_for(
            lambda: all(count > self._told[name] for name, count in _told(company).items()),
            "headquarters to tell its channels something new",
        )
        with _refusing(workers, "tenten headquarters recover"), _frozen(workers):
            _note_lost_numbers(company)
            restore(company.scene.url, self._copy)
        with _stopped(company, workers):
            tenten = company.command()
            tenten.ok("database", "upgrade", "headquarters")
            recovered = tenten.ok("headquarters", "recover", "--json").json
        assert recovered["conflicts"] == [], recovered
        assert (recovered["expired"], recovered["orders_without_record"]) == (0, 0), recovered
        for hole in recovered["holes"]:
            company.holes[hole["legal_entity"]] |= _numbers_of(company, hole)
        company.faults["database restored"] += 1


def _told(company: Company) -> dict[str, int]:
    """By topic: the records that prove what headquarters has told its channels."""
    scene = company.scene
    topics = (CUSTOMERS.name, TRANSACTION_REPLIES.name)
    return {name: len(read_topic(scene.bootstrap_servers, scene.prefix, name)) for name in topics}


def _recreate_customers(company: Company) -> None:
    """Delete and create `customers` under running workers; then what docs/how-to/recreated-topic.md says."""
    workers = company.workers("headquarters")
    with _refusing(workers, "tenten headquarters republish"):
        _recreate(company, CUSTOMERS, workers)
    with _stopped(company, workers):
        tenten = company.command()
        tenten.ok("topics", "apply")
        tenten.ok("headquarters", "republish")
    _forbid_refusals(company)
    company.faults["customers recreated"] += 1


def _recreate_replies(company: Company) -> None:
    """Delete and create `channel-replies` under running workers: stores send again whatever has no answer."""
    _recreate(company, CHANNEL_REPLIES, company.workers("headquarters"))
    time.sleep(_SETTLING_SECONDS)
    _forbid_refusals(company)
    company.faults["channel-replies recreated"] += 1


def _recreate(company: Company, topic: Topic, writers: Sequence[Program]) -> None:
    """The same, with its committed records kept for the checker. Programs that need it then may end and say so."""
    scene = company.scene
    with _frozen(writers):
        company.earlier[topic.name] += read_topic(scene.bootstrap_servers, scene.prefix, topic.name)
        for program in company.programs.values():
            program.may_refuse += ("tenten topics apply",)
        recreate(scene.settings, topic)


def _forbid_refusals(company: Company) -> None:
    for program in company.programs.values():
        program.look_after()
        program.may_refuse = ()


@contextmanager
def _frozen(programs: Sequence[Program]) -> Iterator[None]:
    """The programs neither read nor write during the block, and do not know of it."""
    for program in programs:
        program.freeze()
    try:
        time.sleep(_SETTLING_SECONDS)
        yield
    finally:
        for program in programs:
            program.thaw()


@contextmanager
def _stopped(company: Company, programs: Sequence[Program]) -> Iterator[None]:
    """The programs do not run during the block."""
    company.stop(programs)
    try:
        yield
    finally:
        company.start(programs)


@contextmanager
def _refusing(programs: Sequence[Program], command: str) -> Iterator[None]:
    """After the block, wait until each of these has refused to go on and named this command."""
    read_to = {program.name: program.log.stat().st_size if program.log.exists() else 0 for program in programs}
    for program in programs:
        program.may_refuse = (command, *program.may_refuse)
    yield
    for program in programs:

        def has_refused(program: Program = program) -> bool:
            return command in program.log.read_bytes()[read_to[program.name] :].decode(errors="replace")

        wait_for(has_refused, f"{program.name} to name `{command}`", NOTICED_SECONDS_MAX)
    # Stopped next; `may_refuse` ends with that.
    for program in programs:
        program.is_wanted = False
    for program in programs:
        wait_for(lambda program=program: not program.is_running(), f"{program.name} to end", NOTICED_SECONDS_MAX)  # type: ignore[misc]
        program.look_after()
        program.may_refuse = ()


def _close_connections(company: Company) -> None:
    """Close connections of killed workers to headquarters' database that the server still keeps."""
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'headquarters'"
    count = "SELECT 1 FROM pg_stat_activity WHERE datname = 'headquarters'"
    with psycopg.connect(company.servers.postgresql, autocommit=True) as connection:
        connection.execute(others)
        wait_for(lambda: connection.execute(count).fetchone() is None, "the end of all connections")


def _note_lost_numbers(company: Company) -> None:
    """Note the account numbers that are in the database and on no topic: the restored one does not know of them."""
    scene = company.scene
    records = read_topic(scene.bootstrap_servers, scene.prefix, "customers")
    snapshots = [decode("Customer", record.value) for record in records if record.value is not None]
    told = {(row["customer"]["legal_entity"], row["account_number"]) for row in snapshots}
    with psycopg.connect(scene.url, row_factory=dict_row) as connection:
        rows = connection.execute("SELECT legal_entity, account_number FROM customers").fetchall()
    for row in rows:
        entity, number = row["legal_entity"], row["account_number"]
        if number is not None and (entity, number) not in told:
            company.lost_numbers[entity].add(company.setting.sequences[entity].number(number))


def _numbers_of(company: Company, hole: dict[str, Any]) -> set[int]:
    """The numbers of a hole."""
    sequence = company.setting.sequences[hole["legal_entity"]]
    first, last = (sequence.number(hole[name]) for name in ("first", "last"))
    assert last - first + 1 == hole["numbers"], hole
    return {*range(first, last + 1)}
