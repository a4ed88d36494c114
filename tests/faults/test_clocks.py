"""Scenario 16 of the fault plan: clocks of headquarters and of a store that are an hour off, and then corrected."""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from sqlalchemy import make_url

from tenten.local import create_database, delete_postgres, start_postgres
from tenten.status import channel_status
from tests.clocks import Computer, computer
from tests.databases import channel_tables
from tests.faults.checker import violations
from tests.faults.evidence import gather
from tests.faults.settled import wait_until_settled
from tests.forked import ForkedProcess, ended_with_block, fork
from tests.scenes import DEADLINE_SECONDS, SETTING, Scene, set_scene
from tests.services import directory_for_server
from tests.waiting import wait_for

HOUR_SECONDS: Final = 3_700
"""A little more: Kafka refuses records whose time, if it is the writer's, is more than an hour ahead."""

CLOCKS: Final = ((HOUR_SECONDS, -HOUR_SECONDS), (-HOUR_SECONDS, HOUR_SECONDS), (0, 0))
"""How far ahead the clocks of houston and of headquarters are, one after the other."""

DAY: Final = "2026-03-02"

_SHOWN: Final = """
    SELECT middle_name, (SELECT count(*) FROM outbox WHERE aggregateid = customer_id AND settled_at IS NULL)
    FROM customers WHERE customer_id = ?
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Headquarters, or a store."""

    name: str
    computer: Computer | None
    """None: the clock is right."""
    scene: Scene
    names: Iterator[int] = field(default_factory=count)

    @contextmanager
    def running(self, *words: str) -> Iterator[None]:
        """Run `tenten` with these words during the block; it must end with exit code 0."""
        log = self.scene.toml.parent / "processes.log"
        with ended_with_block(self._start(words, log)) as process:
            yield
            assert process.poll() is None, log.read_text()[-3000:]
            process.terminate()
            assert process.wait(DEADLINE_SECONDS) == 0

    def call(self, noun: str, verb: str, *words: str) -> Any:
        """The JSON that a command about this store prints."""
        log = self.scene.toml.parent / f"{self.name}-{next(self.names)}.log"
        process = self._start((noun, verb, self.name, *words, "--json"), log)
        assert process.wait(DEADLINE_SECONDS) == 0, (noun, verb, words, log.read_text())
        return json.loads(next(line for line in log.read_text().splitlines() if line[:1] in ("{", "[")))

    def shows(self, customer_id: str, middle_name: str) -> bool:
        """Whether the store shows the customer under this middle name, and every change of it is settled."""
        database = str(make_url(str(self.scene.settings.channel(self.name).database)).database)
        with closing(sqlite3.connect(database)) as file:
            return bool(file.execute(_SHOWN, (customer_id,)).fetchone() == (middle_name, 0))

    def _start(self, words: Sequence[str], log: Path) -> ForkedProcess:
        environment = {
            **os.environ,
            "TENTEN_CONFIG": str(self.scene.toml),
            "TENTEN_HEADQUARTERS_URL": self.scene.url,
            "KAFKA_BOOTSTRAP_SERVERS": self.scene.bootstrap_servers,
        }
        if self.computer is None:
            return fork(words, directory=log.parent, log=log, environment=environment)
        return self.computer.start(words, log, environment)


@contextmanager
def database_on(hq: Computer) -> Iterator[str]:
    """An empty database of headquarters, whose server has the clock of that computer."""
    with directory_for_server("clock") as directory:
        with hq.for_servers():
            server = start_postgres(directory / "server", settings={"fsync": "off"})
        try:
            yield create_database(server.postgresql, "headquarters")
        finally:
            delete_postgres(directory / "server")


def test_wrong_clocks_lose_no_edit_and_no_sale(tmp_path: Path, bootstrap_servers: str, prefix: str) -> None:
    """A store's clock is an hour ahead and headquarters' behind, then the other way round, then both are right, under
    running processes: the last edit stands, versions grow, and statements have each sale once.
    """
    with computer() as at_hq, computer() as at_houston, database_on(at_hq) as url:
        scene = set_scene(tmp_path, bootstrap_servers, prefix, url)
        hq = Place(name="headquarters", computer=at_hq, scene=scene)
        houston = Place(name="houston", computer=at_houston, scene=scene)
        dallas = Place(name="dallas", computer=None, scene=scene)
        databases = {store.name: str(scene.settings.channel(store.name).database) for store in (houston, dallas)}
        for database in databases.values():
            channel_tables(database)
        set_clocks(houston, hq, CLOCKS[0])
        with ExitStack() as processes:
            for place, words in ((hq, "headquarters run"), (hq, "transactions run"), (dallas, "channel run dallas")):
                processes.enter_context(place.running(*words.split()))
            # when
            with houston.running("channel", "run", "houston"):
                ada = houston.call("customer", "create", "--first-name", "Ada", "--sync", "60")["customer_id"]
                wait_for(partial(dallas.shows, ada, ""), "the customer in dallas")
                for round_number, clocks in enumerate(CLOCKS[:2]):
                    set_clocks(houston, hq, clocks)
                    trade(round_number, ada, houston, dallas)
            set_clocks(houston, hq, CLOCKS[2])
            with houston.running("channel", "run", "houston"):
                trade(2, ada, houston, dallas)
                # then
                for store in (houston, dallas):
                    wait_for(partial(is_settled, store), f"every change of {store.name} to be settled")
                wait_until_settled(scene, "transactions", "headquarters", released=True)
        evidence = gather(bootstrap_servers, prefix, url, databases)
        assert violations(evidence, scene.journal, SETTING) == []
        assert evidence.headquarters.customers[ada]["middle_name"] == "Dallas 2"
        assert sorted(row["account_number"] for row in evidence.headquarters.customers.values()) == [
            f"C-0000000{number}" for number in range(1, 5)
        ]
        statements = scene.query("SELECT status, totals, control_totals FROM statements ORDER BY number")
        assert [(row["status"], row["totals"]["transactions"]) for row in statements] == [("posted", 2), ("posted", 1)]
        taken = [[Decimal(total["amount"]) for total in row["control_totals"]] for row in statements]
        assert taken == [[Decimal("13.50")], [Decimal("13.50")]]


def set_clocks(houston: Place, hq: Place, ahead: tuple[int, int]) -> None:
    """Set the clocks of both; wait until headquarters' server has its own."""
    for place, seconds in zip((houston, hq), ahead, strict=True):
        assert place.computer is not None
        place.computer.set_clock(seconds)
    wait_for(partial(is_ahead, hq.scene, ahead[1]), "the clock of headquarters' server")


def is_ahead(scene: Scene, seconds: int) -> bool:
    """Whether the clock of headquarters' server is about so far ahead."""
    (row,) = scene.query("SELECT clock_timestamp() AS now")
    now: datetime = row["now"]
    return abs(now - datetime.now(UTC) - timedelta(seconds=seconds)) < timedelta(minutes=10)


def trade(round_number: int, customer_id: str, houston: Place, dallas: Place) -> None:
    """Both stores edit the same field, each after it has seen the other's edit; houston sells, and closes the day."""
    for store, other in ((houston, dallas), (dallas, houston)):
        middle_name = f"{store.name.title()} {round_number}"
        store.call("customer", "edit", customer_id, "--set", f"middle_name={middle_name}")
        assert store.call("customer", "show", customer_id)["middle_name"] == middle_name
        wait_for(partial(other.shows, customer_id, middle_name), f"{middle_name} in {other.name}")
    ben = houston.call("customer", "create", "--first-name", f"Ben {round_number}", "--sync", "0")["customer_id"]
    houston.call("order", "create", "--line", "TEA:1:9", "--customer", ben)
    houston.call("sale", "create", "--line", f"CUP:{round_number + 1}:4.50", "--date", DAY, "--customer", customer_id)
    if round_number:
        houston.call("day", "close", "--date", DAY)


def is_settled(store: Place) -> bool:
    """Whether headquarters has settled every change of the store, and the store has read every customer."""
    status = channel_status(store.scene.settings, store.name)
    return (status.pending, status.unsettled, status.lag) == (0, 0, 0)
