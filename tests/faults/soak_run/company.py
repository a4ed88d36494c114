"""The company of a soak run: headquarters with five workers, four stores, and what the run has learnt about them."""

import os
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Final

from tenten.local import create_database
from tenten.producers import OpenChannel, open_channel
from tests.acceptance.cli import Tenten
from tests.channel_scene import make_topics
from tests.databases import channel_tables
from tests.faults.checker import Setting
from tests.faults.evidence import Record
from tests.faults.soak_run.program import Program
from tests.faults.soak_run.servers import Servers
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, SETTING, Scene, set_scene
from tests.settings_file import channel as channel_settings
from tests.threads import Worker
from tests.waiting import wait_for

STORES: Final[Mapping[str, str]] = {**LEGAL_ENTITY_BY_CHANNEL, "vienna": "demf"}
"""The legal entity of each store: two stores of each, one on PostgreSQL and one on SQLite."""

ON_POSTGRESQL: Final = ("dallas", "vienna")
PARTITIONS: Final = 6
"""Two for each customers worker."""

CUSTOMERS_WORKERS: Final = 3
TRANSACTIONS_WORKERS: Final = 2
SPARED: Final = ("headquarters-0", "transactions-0", "houston", "dallas")
"""Never killed: a worker of each group, and a store on each kind of database."""

RESEND_SECONDS: Final = 30
"""A store sends an event without a reply again after this time; a user's does after an hour."""

_LOOK_SECONDS: Final = 0.1
_SAMPLE_SECONDS: Final = 5.0
_END_SECONDS: Final = 180.0

_STORE: Final = f"""
from tenten.cli.main import main
from tenten.producers.outbox import retention

retention.REPLY_SECONDS_MAX = {RESEND_SECONDS}
main()
"""


@dataclass(slots=True, kw_only=True)
class Company:
    """Everything of a run."""

    scene: Scene
    """With the journal of what was seen in the stores."""
    servers: Servers
    setting: Setting
    programs: Mapping[str, Program]
    tills: Mapping[str, OpenChannel]
    earlier: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    """By topic without prefix: the committed records of the topics of this name that were deleted."""
    lost_numbers: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By legal entity: the account numbers that only a database had that was put back to an older copy."""
    holes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By legal entity: the account numbers of which `recover` has said that no customer has them."""
    faults: Counter[str] = field(default_factory=Counter)
    """What was done to the company, and how often."""

    def workers(self, group: str | None = None) -> Sequence[Program]:
        """The workers of this group at headquarters; by default of both."""
        groups = ("headquarters", "transactions") if group is None else (group,)
        return [program for program in self.programs.values() if program.words[0] in groups]

    def command(self, *words: str) -> Tenten:
        """`tenten` as headquarters types it."""
        return Tenten(directory=self.scene.toml.parent, environment=_environment(self.scene, self.servers.inside))

    def stop(self, programs: Sequence[Program]) -> None:
        """Kill these programs; they are not started again before `start`."""
        for program in programs:
            program.is_wanted = False
            program.kill()
        for program in programs:
            wait_for(lambda program=program: not program.is_running(), f"the end of {program.name}")  # type: ignore[misc]

    def start(self, programs: Sequence[Program]) -> None:
        """Let these programs be started again."""
        for program in programs:
            program.is_wanted = True

    def ends(self) -> list[str]:
        """The ends of processes that nobody has killed."""
        return [end for program in self.programs.values() for end in program.ends]

    def database(self, store: str) -> str:
        """The address of a store's database."""
        return str(self.scene.settings.channel(store).database)


@contextmanager
def company_working(servers: Servers, directory: Path) -> Iterator[Company]:
    """All processes run during the block, and are started again when they end. In the end each exits with 0."""
    scene = _scene(servers, directory)
    for store in STORES:
        channel_tables(str(scene.settings.channel(store).database))
    with ExitStack() as ends:
        company = Company(
            scene=scene,
            servers=servers,
            setting=replace(SETTING, legal_entity_by_channel=STORES),
            programs=_programs(scene, servers),
            tills={store: ends.enter_context(open_channel(scene.settings, store)) for store in STORES},
        )
        supervisor = Worker(partial(_supervise, company))
        try:
            yield company
        finally:
            supervisor.stop()
            codes = _end(company)
        supervisor.check()
        assert codes == dict.fromkeys(codes, 0), codes


def _scene(servers: Servers, directory: Path) -> Scene:
    """Topics, databases and settings; each second store has its database on PostgreSQL."""
    prefix = f"s{secrets.token_hex(3)}-"
    url = create_database(servers.postgresql, "headquarters")
    scene = set_scene(directory, servers.inside, prefix, url, partitions=PARTITIONS)
    toml = scene.toml.read_text() + "\n" + channel_settings("vienna", of="demf")
    for store in ON_POSTGRESQL:
        written = f"sqlite:///{store}.db"
        assert written in toml
        toml = toml.replace(written, create_database(servers.postgresql, store))
    scene.toml.write_text(toml)
    scene.apply_settings()
    make_topics(scene.settings)
    return scene


def _programs(scene: Scene, servers: Servers) -> dict[str, Program]:
    inside, outside = (_environment(scene, address) for address in (servers.inside, servers.outside))
    directory = scene.toml.parent
    counts = {"headquarters": CUSTOMERS_WORKERS, "transactions": TRANSACTIONS_WORKERS}
    found = [
        Program(name=f"{group}-{number}", words=(group, "run"), directory=directory, environment=inside)
        for group, count in counts.items()
        for number in range(count)
    ]
    found += [
        Program(name=store, words=("channel", "run", store), directory=directory, environment=outside, code=_STORE)
        for store in STORES
    ]
    for program in found:
        program.is_spared = program.name in SPARED
    return {program.name: program for program in found}


def _environment(scene: Scene, bootstrap_servers: str) -> dict[str, str]:
    environment = {
        **os.environ,
        "TENTEN_CONFIG": str(scene.toml),
        "TENTEN_HEADQUARTERS_URL": scene.url,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "TENTEN_LOG_FORMAT": "logfmt",
    }
    environment.pop("TENTEN_FAILPOINT", None)
    return environment


def _supervise(company: Company, stop: Event) -> None:
    """Start each program that has ended, and sample the memory of all."""
    looks = 0
    while not stop.wait(_LOOK_SECONDS):
        for program in company.programs.values():
            program.look_after()
        looks += 1
        if looks % round(_SAMPLE_SECONDS / _LOOK_SECONDS) == 0:
            for program in company.programs.values():
                program.sample_memory()


def _end(company: Company) -> dict[str, int]:
    """Stop all programs; the exit code of each. One that does not end in time is killed."""
    deadline = time.monotonic() + _END_SECONDS
    for program in company.programs.values():
        program.thaw()
        program.terminate()
    return {name: program.wait_for_end(deadline) for name, program in company.programs.items()}
