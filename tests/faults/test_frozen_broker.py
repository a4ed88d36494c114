"""Scenarios 6 and 30 of the fault plan: a broker that is frozen under load, and ten stores that return at once.

SIGSTOP keeps the broker's connections open: nothing is answered, and nothing fails. In the end everything has settled
without a restart, and no process has ended.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Final

import pytest
from sqlalchemy import func, select

from tenten import local
from tenten.producers import Item, OpenChannel, create_customer, open_channel, record_order, record_sale
from tenten.schemas.tables import channel
from tenten.status import channel_status
from tests.conftest import NewDatabase
from tests.databases import channel_tables
from tests.faults.checker import Setting, violations
from tests.faults.evidence import gather
from tests.faults.settled import wait_until_settled
from tests.faults.soak import soak_rounds
from tests.faults.stand_in_broker import stand_in_broker
from tests.flow_scene import rows
from tests.forked import ForkedProcess, ended_with_block, fork
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, SETTING, Scene, set_scene
from tests.services import directory_for_server
from tests.settings_file import channel as channel_settings
from tests.waiting import wait_for

TEA: Final = Item(sku="TEA", quantity=Decimal(3), price=Decimal("1.115"))
WORKERS: Final = (("headquarters", "run"), ("transactions", "run"))
TEN: Final = [f"store{number}" for number in range(10)]
OFFLINE_CUSTOMERS: Final = 25
SALE_SECONDS: Final = 0.2
"""The pause of a clerk between two customers."""

STAND_IN_SECONDS: Final = 15.0
"""Longer than a request to a broker may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """Headquarters and stores as processes, on a broker that can be frozen."""

    scene: Scene
    broker: local.LocalKafka
    stores: Sequence[str]
    setting: Setting
    processes: dict[str, ForkedProcess]

    def freeze(self, seconds: float) -> None:
        """Stop the broker for this time."""
        os.kill(self.broker.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(self.broker.pid, signal.SIGCONT)
        self.check()

    def check(self) -> None:
        """Fail if a process has ended."""
        ended = {name: process.poll() for name, process in self.processes.items() if process.poll() is not None}
        assert ended == {}, (ended, log_of(self.scene)[-3000:])

    def database(self, store: str) -> str:
        """The address of a store's database."""
        return str(self.scene.settings.channel(store).database)

    @contextmanager
    def opened(self) -> Iterator[list[OpenChannel]]:
        """Every store's till."""
        with ExitStack() as ends:
            yield [ends.enter_context(open_channel(self.scene.settings, store)) for store in self.stores]

    def settle(self, tills: Sequence[OpenChannel]) -> None:
        """Wait until everything has settled at headquarters and in every store; then check all of it."""
        for till in tills:
            wait_for(partial(self._is_settled, till), f"the sales of {till.name} to be settled")
        wait_until_settled(self.scene, "transactions", "headquarters", released=True)
        for till in tills:
            # Another store may have been the last one.
            wait_for(partial(self._is_settled, till), f"every customer in {till.name}")
        channels = {store: self.database(store) for store in self.stores}
        evidence = gather(self.scene.bootstrap_servers, self.scene.prefix, self.scene.url, channels)
        assert violations(evidence, self.scene.journal, self.setting) == []

    def _is_settled(self, till: OpenChannel) -> bool:
        """Whether no change is open, and the store has read every customer."""
        self.check()
        open_rows = (
            select(func.count()).where(channel.transactions.c.status != "synchronized"),
            select(func.count()).where(channel.customers.c.account_number.is_(None)),
            select(func.count()).where(channel.outbox.c.settled_at.is_(None)),
        )
        with till.reading() as connection:
            if any(connection.scalar(query) for query in open_rows):
                return False
        return channel_status(self.scene.settings, till.name).lag == 0


def log_of(scene: Scene) -> str:
    """The log of all processes."""
    return (scene.toml.parent / "processes.log").read_text()


@pytest.fixture(scope="module")
def broker() -> Iterator[local.LocalKafka]:
    """A broker of this module's own."""
    with directory_for_server("frozen") as directory:
        try:
            yield local.start_kafka(directory)
        finally:
            local.stop_kafka(directory, grace_seconds=0)


@contextmanager
def company_of(scene: Scene, broker: local.LocalKafka, stores: Sequence[str], setting: Setting) -> Iterator[Company]:
    """Headquarters' workers and these stores run during the block; each ends with exit code 0."""
    words = {" ".join(worker): worker for worker in WORKERS} | {store: ("channel", "run", store) for store in stores}
    for store in stores:
        channel_tables(str(scene.settings.channel(store).database))
    with ExitStack() as ends:
        processes = {name: ends.enter_context(running(scene, *command)) for name, command in words.items()}
        yield Company(scene=scene, broker=broker, stores=stores, setting=setting, processes=processes)
        for process in processes.values():
            process.terminate()
        assert {name: process.wait(120) for name, process in processes.items()} == dict.fromkeys(processes, 0)


@contextmanager
def running(scene: Scene, *words: str) -> Iterator[ForkedProcess]:
    """A process of the product with the scene's settings."""
    environment = {
        **os.environ,
        "TENTEN_CONFIG": str(scene.toml),
        "TENTEN_HEADQUARTERS_URL": scene.url,
        "KAFKA_BOOTSTRAP_SERVERS": scene.bootstrap_servers,
    }
    directory = scene.toml.parent
    started = fork(words, directory=directory, log=directory / "processes.log", environment=environment)
    with ended_with_block(started) as process:
        yield process


@contextmanager
def three_stores(tmp_path: Path, broker: local.LocalKafka, prefix: str, new_database: NewDatabase) -> Iterator[Company]:
    """Two stores on SQLite and one on PostgreSQL."""
    scene = set_scene(tmp_path, broker.bootstrap_servers, prefix, new_database("headquarters"))
    toml = scene.toml.read_text()
    assert "sqlite:///dallas.db" in toml
    scene.toml.write_text(toml.replace("sqlite:///dallas.db", new_database("channel")))
    with company_of(scene, broker, [*LEGAL_ENTITY_BY_CHANNEL], SETTING) as company:
        yield company


def sell(till: OpenChannel) -> None:
    """A new customer with an order and a sale."""
    ada = create_customer(till, first_name="Ada", last_name="Lee")
    record_order(till, lines=[TEA], customer_id=ada.customer_id)
    record_sale(till, lines=[TEA], customer_id=ada.customer_id)


@contextmanager
def selling(tills: Sequence[OpenChannel]) -> Iterator[None]:
    """Each store sells during the block."""
    ended, failures = Event(), []

    def run(till: OpenChannel) -> None:
        try:
            while not ended.wait(SALE_SECONDS):
                sell(till)
        except Exception as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    clerks = [Thread(target=run, args=(till,)) for till in tills]
    for clerk in clerks:
        clerk.start()
    try:
        yield
    finally:
        ended.set()
        for clerk in clerks:
            clerk.join()
    assert failures == []


def test_broker_frozen_under_load_ends_no_process_and_loses_nothing(
    tmp_path: Path, broker: local.LocalKafka, prefix: str, new_database: NewDatabase
) -> None:
    """For less and for more than the time-outs of sessions and transactions: everything continues by itself."""
    with three_stores(tmp_path, broker, prefix, new_database) as company, company.opened() as tills:
        for till in tills:
            sell(till)
        company.settle(tills)
        with selling(tills):
            for seconds in (5, 20):
                company.freeze(seconds)
                time.sleep(1)
        company.settle(tills)


@pytest.mark.soak
def test_broker_frozen_again_and_again_ends_no_process_and_loses_nothing(
    tmp_path: Path, broker: local.LocalKafka, prefix: str, new_database: NewDatabase
) -> None:
    """Ten times for a minute, and for a tenth of `TENTEN_SOAK_SECONDS` at least."""
    with three_stores(tmp_path, broker, prefix, new_database) as company, company.opened() as tills:
        for number in soak_rounds():
            with selling(tills):
                for _ in range(10 if number == 0 else 1):
                    company.freeze(60)
                    time.sleep(5)
            company.settle(tills)


def test_ten_stores_return_at_once(
    tmp_path: Path, broker: local.LocalKafka, prefix: str, new_database: NewDatabase
) -> None:
    """Ten stores have sold while no broker answered; all are settled when it does, and each has every customer."""
    scene = set_scene(tmp_path, broker.bootstrap_servers, prefix, new_database("headquarters"))
    with scene.toml.open("a") as toml:
        toml.write("\n" + "\n".join(channel_settings(name, of="usrt") for name in TEN))
    scene.apply_settings()
    setting = replace(SETTING, legal_entity_by_channel={**LEGAL_ENTITY_BY_CHANNEL, **dict.fromkeys(TEN, "usrt")})
    with company_of(scene, broker, TEN, setting) as company, company.opened() as tills:
        for till in tills:
            sell(till)
        company.settle(tills)
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            for till in tills:
                for _ in range(OFFLINE_CUSTOMERS):
                    sell(till)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        company.settle(tills)
        assert len(rows(tills[0], channel.customers)) == len(TEN) * (OFFLINE_CUSTOMERS + 1)


def test_no_process_ends_while_a_broker_knows_of_no_broker(
    tmp_path: Path, broker: local.LocalKafka, prefix: str, new_database: NewDatabase
) -> None:
    """Metadata without brokers, as after a freeze, aborts none of the processes, and no command."""
    scene = set_scene(tmp_path, broker.bootstrap_servers, prefix, new_database("headquarters"))
    channel_tables(str(scene.settings.channel("houston").database))
    with stand_in_broker() as stand_in, ExitStack() as ends:
        away = replace(scene, bootstrap_servers=stand_in.address)
        commands = (*WORKERS, ("channel", "run", "houston"))
        processes = [ends.enter_context(running(away, *words)) for words in commands]
        for words in (("status",), ("fleet",), ("lag",), ("doctor",), ("topics", "apply")):
            with running(away, *words) as process:
                assert process.wait(120) in (1, 3), words
        time.sleep(STAND_IN_SECONDS)
        assert stand_in.answers > len(processes)
        assert [process.poll() for process in processes] == [None] * len(processes), log_of(scene)[-3000:]
        for process in processes:
            process.terminate()
        assert [process.wait(120) for process in processes] == [0] * len(processes)
