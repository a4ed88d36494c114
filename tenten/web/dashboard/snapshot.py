"""What the pages show of the state: read once, for all browsers.

A request gets a snapshot that is at most two seconds old. While a browser listens for changes, a thread takes one every
two seconds and compares its parts with those before; the names of the parts that differ are what browsers are told.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError
from structlog import get_logger

from tenten.headquarters_views.registration_times import RegistrationTimes, read_registration_times
from tenten.headquarters_views.transactions import OPEN
from tenten.runtime.error_codes import error_code
from tenten.runtime.errors import DatabaseRefused
from tenten.runtime.settings import Settings
from tenten.schemas.consumer_groups import TRANSACTIONS_GROUP
from tenten.schemas.tables.headquarters import (
    dead_letter_decisions,
    operator_actions,
    positions,
    retail_transactions,
    statements,
    unfinished_commands,
)
from tenten.sql.engine import consistent_view
from tenten.status.databases import HeadquartersRead, read_at_headquarters
from tenten.status.values import Problem
from tenten.status.whole import headquarters_problems
from tenten.web.dashboard.known_channels import read_known_channels
from tenten.web.dashboard.stores import KnownChannel, State, StoreRow, store_rows
from tenten.web.dashboard.watch import KafkaSeen, KafkaWatch, Letter

log = get_logger(__name__)

AGE_SECONDS_MAX: Final = 2.0
_TIMES_SECONDS: Final = 15.0
"""The times of registrations are read this often: they read all events of an hour."""

_LISTENING_SECONDS: Final = 10.0
_NUMBERS_LEFT_MIN: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLetter:
    """A dead letter with the decision about it."""

    letter: Letter
    decision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSeen:
    """What headquarters' database has."""

    read: HeadquartersRead
    channels: Mapping[str, KnownChannel]
    decisions: Mapping[tuple[str, int, int], str]
    """Those about dead letters, by topic with prefix, partition and offset."""
    blocked: int
    """Blocked statements."""
    commands: Sequence[str]
    """Those that were begun and have not ended."""
    newest: Mapping[str, Any]
    """Marks that change when a page's rows may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at one time."""

    taken_at: datetime
    stores: tuple[StoreRow, ...]
    database: DatabaseSeen | None
    """None: it does not answer."""
    kafka: KafkaSeen
    letters: tuple[OpenLetter, ...] | None
    """None until they were read."""
    times: RegistrationTimes | None
    problems: tuple[Problem, ...]
    """Of headquarters; those of a store are in its row."""
    rendered: dict[str, str] = field(default_factory=dict, compare=False)
    """Parts of pages that are the same for every browser of a role."""

    @property
    def open_letters(self) -> tuple[OpenLetter, ...]:
        """The dead letters without a decision."""
        return tuple(found for found in self.letters or () if found.decision == "open")

    def count(self, state: State) -> int:
        """How many stores are in this state."""
        return sum(row.state is state for row in self.stores)


class Snapshots:
    """Takes snapshots, and counts the changes of their parts."""

    def __init__(self, settings: Settings, engine: Engine, watch: KafkaWatch, stop: Event) -> None:
        self._settings = settings
        self._engine = engine
        self._watch = watch
        self._stop = stop
        self._lock = Lock()
        self._latest: Snapshot | None = None
        self._taken_at = 0.0
        self._listened_at = 0.0
        self._times: RegistrationTimes | None = None
        self._times_at = -_TIMES_SECONDS
        self._is_away = False
        self._content: dict[str, Any] = {}
        self._versions: dict[str, int] = {}

    def start(self) -> None:
        """Start the thread that takes snapshots while browsers listen."""
        Thread(target=self._follow, name="snapshots", daemon=True).start()

    def current(self) -> Snapshot:
        """A snapshot that is at most two seconds old; a second request waits for the one that is being taken."""
        with self._lock:
            if self._latest is None or time.monotonic() - self._taken_at > AGE_SECONDS_MAX:
                self._take()
            assert self._latest is not None
            return self._latest

    def expire(self) -> None:
        """Let the next request see a new snapshot: something was done."""
        with self._lock:
            self._taken_at = 0.0

    def listen(self) -> Mapping[str, int]:
        """The number of changes of each part until now. Calling it keeps the thread at work. Does not block."""
        self._listened_at = time.monotonic()
        return self._versions

    def _follow(self) -> None:
        while not self._stop.wait(AGE_SECONDS_MAX / 2):
            if time.monotonic() - self._listened_at > _LISTENING_SECONDS:
                continue
            try:
                self.current()
            except Exception:
                log.exception("snapshot_failed")

    def _take(self) -> None:
        now = datetime.now(UTC)
        seen, database = self._watch.seen(), self._read_database()
        read = database if isinstance(database, Exception) else database.read
        problems = list(headquarters_problems(self._settings, seen.members, read))
        if seen.problem is not None:
            problems.insert(0, Problem(about=("Kafka",), code="no_answer", text=seen.problem))
        found = None if isinstance(database, Exception) else database
        letters = _with_decisions(self._settings, seen.letters, found)
        if found is not None:
            problems += _more_problems(found, letters)
        self._latest = Snapshot(
            taken_at=now,
            stores=store_rows(self._settings.alarms, found.channels if found else None, seen, now),
            database=found,
            kafka=seen,
            letters=letters,
            times=self._times,
            problems=tuple(problems),
        )
        self._taken_at = time.monotonic()
        self._compare(self._latest)

    def _read_database(self) -> DatabaseSeen | Exception:
        """What the database has, or why it cannot be read."""
        try:
            with consistent_view(self._engine) as headquarters:
                if time.monotonic() - self._times_at >= _TIMES_SECONDS:
                    self._times = read_registration_times(headquarters)
                    self._times_at = time.monotonic()
                seen = _read(headquarters, self._settings)
        except (DBAPIError, DatabaseRefused) as error:
            if not self._is_away:
                log.warning("database_unavailable", error=type(error).__name__, code=error_code(error))
            self._is_away = True
            return error
        self._is_away = False
        return seen

    def _compare(self, snapshot: Snapshot) -> None:
        """Count the parts that have changed."""
        content = {name: part for name, part in _parts(snapshot).items() if self._content.get(name) != part}
        self._content.update(content)
        self._versions = {**self._versions, **{name: self._versions.get(name, 0) + 1 for name in content}}


def _read(headquarters: Connection, settings: Settings) -> DatabaseSeen:
    read = read_at_headquarters(headquarters, settings)
    open_statements = select(statements.c.statement_id, statements.c.status, statements.c.reasons).where(
        statements.c.status.in_(OPEN)
    )
    of_statements = headquarters.execute(open_statements).all()
    sold = retail_transactions.c
    # Each change of a waiting or blocked one counts its answers up; others come with the records that were read.
    unsettled = select(func.count(), func.sum(sold.answer)).where(sold.status.in_(OPEN))
    read_up_to = select(func.sum(positions.c.next_offset)).where(
        positions.c.consumer_group == settings.group(TRANSACTIONS_GROUP)
    )
    newest_action = select(operator_actions.c.action_id, operator_actions.c.outcome)
    return DatabaseSeen(
        read=read,
        channels=read_known_channels(headquarters),
        decisions={
            (row.topic, row.partition, row.offset): row.decision
            for row in headquarters.execute(select(dead_letter_decisions))
        },
        blocked=sum(row.status == "blocked" for row in of_statements),
        commands=list(headquarters.scalars(select(unfinished_commands.c.command))),
        newest={
            "actions": headquarters.execute(newest_action.order_by(operator_actions.c.action_id.desc()).limit(1)).all(),
            "statements": sorted((row.statement_id, row.status, str(row.reasons)) for row in of_statements),
            "transactions": (*headquarters.execute(unsettled).one(), headquarters.scalar(read_up_to)),
        },
    )


def _with_decisions(
    settings: Settings, letters: Sequence[Letter] | None, database: DatabaseSeen | None
) -> tuple[OpenLetter, ...] | None:
    if letters is None or database is None:
        return None
    return tuple(
        OpenLetter(
            letter=letter,
            decision=database.decisions.get((settings.topic(letter.topic), letter.partition, letter.offset), "open"),
        )
        for letter in letters
    )


def _more_problems(database: DatabaseSeen, letters: Sequence[OpenLetter] | None) -> list[Problem]:
    """What `tenten status` does not count as unhealthy, but an operator should see."""
    found = []
    for legal_entity, numbers in database.read.status.number_sequences.items():
        if numbers.left < _NUMBERS_LEFT_MIN:
            text = (
                f"{legal_entity} has {numbers.left:,} account numbers left: give them a longer format "
                "(`tenten settings apply FILE`)"
            )
            found.append(Problem(about=("headquarters",), code="numbers_run_out", text=text))
    opened = sum(letter.decision == "open" for letter in letters or ())
    if opened:
        text = f"{opened:,} dead letters are open: look at each, replay it when its cause is gone, or discard it"
        found.append(Problem(about=("headquarters",), code="dead_letters", text=text))
    for command in database.commands:
        text = f"`tenten headquarters {command}` was begun and has not ended: run it again to its end"
        found.append(Problem(about=("headquarters",), code="unfinished_command", text=text))
    last = database.read.status.verification
    if last is not None and (last.missing or last.surplus or last.different):
        text = (
            f"the last verification found {last.missing + last.surplus + last.different:,} customers that differ "
            "between database and topic: run `tenten headquarters verify`"
        )
        found.append(Problem(about=("headquarters",), code="verification_differs", text=text))
    return found


def _parts(snapshot: Snapshot) -> dict[str, Any]:
    """What browsers are told of by name; equal while only time passes."""
    database, kafka = snapshot.database, snapshot.kafka
    status = None if database is None else database.read.status
    transactions = None if database is None else database.read.transactions
    return {
        "stores": [row.content() for row in snapshot.stores],
        "problems": [problem.code for problem in snapshot.problems],
        "workers": (sorted(kafka.members.items()), sorted(kafka.lags.items())),
        "numbers": None if status is None else sorted((name, at.next) for name, at in status.number_sequences.items()),
        "times": snapshot.times,
        "changes": None
        if database is None or status is None or status.held is None
        else (
            sorted((row.channel_id, row.held, row.rejected) for row in database.channels.values()),
            [(cause.code, cause.subject, cause.events) for cause in status.held.causes],
        ),
        "transactions": None
        if database is None or transactions is None
        else (
            transactions.waiting,
            transactions.blocked,
            transactions.rejected,
            database.newest["statements"],
            database.newest["transactions"],
        ),
        "letters": None
        if snapshot.letters is None
        else [(found.letter.position, found.decision) for found in snapshot.letters],
        "channels": None
        if database is None
        else sorted((row.channel_id, row.suspended_reason or "") for row in database.channels.values()),
        "checks": None if database is None or status is None else (status.verification, database.commands),
        "actions": None if database is None else str(database.newest["actions"]),
    }
