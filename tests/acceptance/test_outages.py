"""Broker and databases that are away: workers wait, log it once and continue, while stores create customers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tenten.local import create_database, start_postgres, stop_postgres
from tests.acceptance.cli import Tenten, wait_until
from tests.acceptance.faulty import Broker, complaints, create, make, numbered, own_broker, pass_by, plain
from tests.forked import ended_with_block, fork_program
from tests.services import directory_for_server

AWAY_SECONDS: Final = 7.0
"""How long a server stays away: longer than the longest pause between two retries."""

LINES_OF_AN_OUTAGE_MAX: Final = 8
"""Log lines that headquarters and the three parts of a channel may write together about an outage."""


ASK: Final = """
import time
from confluent_kafka import KafkaException
from tenten.runtime.settings import load_settings
from tenten.status.kafka_state import read_workers

while True:
    try:
        print(read_workers(load_settings()).members, flush=True)
    except KafkaException as error:
        print(error, flush=True)
    time.sleep(0.5)
"""
"""A program that asks for the running workers of headquarters, for ever."""


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker for this module; a test that stops it starts it again."""
    with own_broker() as broker:
        yield broker


@pytest.fixture
def company(tmp_path: Path, broker: Broker, prefix: str, headquarters_url: str) -> Tenten:
    """Headquarters and a store on this module's broker, with topics and databases."""
    tenten = make(tmp_path / "company", prefix=prefix, kafka=plain(broker.address), headquarters=headquarters_url)
    tenten.ok("topics", "apply")
    tenten.ok("database", "upgrade", "all")
    return tenten


def test_broker_that_is_away_is_waited_for(company: Tenten, broker: Broker) -> None:
    """Stopped or killed for seconds: the store creates customers, no process dies or floods the log, and all arrive.
    Neither does a process die that asks about the workers all the time, as the dashboard does.
    """
    log = company.directory / "asking.log"
    asks = fork_program(ASK, directory=company.directory, log=log, environment=company.environment_with({}))
    with (
        ended_with_block(asks),
        company.running("headquarters", "run") as hq,
        company.running("channel", "run", "houston") as houston,
    ):
        create(company, "first")
        wait_until(lambda: numbered(company) == {"first"}, "the first number")
        expected = {"first"}
        for name, grace_seconds in (("stopped", 15.0), ("killed", 0.0)):
            lines = len(complaints(company))
            # when
            broker.stop(grace_seconds)
            try:
                create(company, name)
                pass_by(AWAY_SECONDS)
                create(company, f"{name}, still")
                # then
                assert [process.poll() for process in (hq, houston)] == [None, None], company.log
                assert 1 <= len(complaints(company)) - lines <= LINES_OF_AN_OUTAGE_MAX, complaints(company)[lines:]
            finally:
                broker.start()
            expected |= {name, f"{name}, still"}
            wait_until(lambda: numbered(company) == expected, "every number")  # noqa: B023 - called here and now
        assert [process.poll() for process in (hq, houston)] == [None, None], company.log
        lines = len(log.read_text().splitlines())
        answer = "{'headquarters': 1, 'transactions': 0}"
        wait_until(
            lambda: asks.poll() is not None or answer in log.read_text().splitlines()[lines:], "an answer of Kafka"
        )
        assert asks.poll() is None, log.read_text()


def test_database_of_headquarters_that_is_away_is_waited_for(tmp_path: Path, broker: Broker, prefix: str) -> None:
    """Stopped during work, and not started when headquarters starts: headquarters waits, and skips nothing."""
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
                    # when it stops while headquarters works
                    stop_postgres(directory)
                    create(company, "second")
                    wait_until(lambda: bool(complaints(company)), "headquarters' warning")
                    pass_by(AWAY_SECONDS)
                    # then
                    assert hq.poll() is None, company.log
                    assert len(complaints(company)) <= LINES_OF_AN_OUTAGE_MAX, complaints(company)
                    start_postgres(directory, settings={"fsync": "off"})
                    wait_until(lambda: numbered(company) == {"first", "second"}, "the second number")
                # when it is not running at the start
                stop_postgres(directory)
                lines = len(complaints(company))
                with company.running("headquarters", "run") as hq:
                    create(company, "third")
                    wait_until(lambda: len(complaints(company)) > lines, "headquarters' warning")
                    assert hq.poll() is None, company.log
                    start_postgres(directory, settings={"fsync": "off"})
                    # then
                    wait_until(lambda: numbered(company) == {"first", "second", "third"}, "the third number")
                    assert len(complaints(company)) == lines + 1, complaints(company)
        finally:
            stop_postgres(directory)
