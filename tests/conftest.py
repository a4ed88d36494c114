"""Fixtures for every test: real servers once a session; topics, groups and databases of its own for each test."""

import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tenten.local import create_database
from tests.databases import RUN, Kind, create_from_template, drop_database
from tests.examples import register_profiles
from tests.java_cache import use_java_cache
from tests.services import delete_topics, end_run, kafka_for_tests, postgresql_for_tests

register_profiles()

LONG_FILES = (
    "test_outages",
    "test_readme",
    "test_wrong_configuration",
    "test_frozen_broker",
    "test_benchmarks",
    "test_resync",
    "test_transaction_session",
    "test_settlement",
    "test_joining",
    "test_schema_exchange",
    "test_cli_status",
    "test_accidents",
    "test_ways_out",
    "test_transactions",
    "test_transactions_killed_in_release",
    "test_distribution",
    "test_refusals",
    "test_cli_up",
    "test_headquarters_killed_in_small_batches",
    "test_cli_processes",
    "test_transactions_killed_with_kafka",
    "test_authenticity",
    "test_headquarters_killed_with_kafka",
    "test_headquarters_database",
    "test_killed_at_random_times",
    "test_secure_kafka",
    "test_headquarters_killed_before_kafka",
    "test_headquarters_guard",
    "test_transactions_killed_before_kafka",
    "test_local_services",
    "test_producers_relay",
    "test_till_api_connected",
    "test_channel_settings",
    "test_metrics",
    "test_channel_loop",
    "test_till_api_generated",
    "test_headquarters",
    "test_failover",
    "test_everything_stopped",
    "test_clocks",
    "test_store_upgraded_later",
    "test_definitions",
    "test_adventureworks",
    "test_full_disks",
    "test_connection_lost",
    "test_without_columns",
    "test_erase",
    "test_headquarters_workers",
    "test_dead_letters",
    "test_creation_modes",
    "test_attacks",
    "test_checker",
    "test_cli_dead_letters",
    "test_poison",
    "test_wheel",
)
"""The files that take longest begin first, so that no worker process is left alone with one of them at the end."""

_DIRECTORIES = ("unit", "integration", "acceptance", "faults", "hostile", "upgrade", "browser")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests of the pages to `make browser`: they need a browser."""
    is_browser = collection_path == Path(__file__).parent / "browser"
    return True if is_browser and not any("browser" in argument for argument in config.args) else None


def pytest_configure(config: pytest.Config) -> None:
    """Name this run; its worker processes inherit the name."""
    if not _is_worker(config):
        os.environ[RUN] = secrets.token_hex(4)
        use_java_cache()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers that the run has started."""
    if not _is_worker(config):
        end_run()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the seconds by directory, summed over the worker processes: what a change of the tests costs is seen."""
    tests: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                directory = Path(report.nodeid).parts[1]
                tests[directory] += report.when == "call"
                seconds[directory] += report.duration
    if seconds:
        terminalreporter.section("seconds by directory")
    for directory, duration in sorted(seconds.items()):
        terminalreporter.write_line(f"{duration:7.0f} s  {tests[directory]:5} tests  {directory}")


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is one of several processes that run tests side by side (pytest-xdist)."""
    return hasattr(config, "workerinput")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its directory, so that `-m faults` and the like select by it; long files first."""
    here = Path(__file__).parent
    for item in items:
        directory = item.path.relative_to(here).parts[0]
        if directory in _DIRECTORIES:
            item.add_marker(directory)
    items.sort(key=lambda item: LONG_FILES.index(item.path.stem) if item.path.stem in LONG_FILES else len(LONG_FILES))


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """A real broker, shared by all tests and worker processes; `prefix` keeps tests apart."""
    with kafka_for_tests() as servers:
        yield servers


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A real PostgreSQL server, shared likewise; `new_database` keeps tests apart."""
    with postgresql_for_tests() as url:
        yield url


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """What this test puts before its topics, groups and transactional ids; no other test's begins with it."""
    is_shared = "bootstrap_servers" in request.fixturenames
    servers: str | None = request.getfixturevalue("bootstrap_servers") if is_shared else None
    text = f"t{secrets.token_hex(4)}-"
    yield text
    if servers is not None:
        delete_topics(servers, text)


class NewDatabase(Protocol):
    """Creates a PostgreSQL database, empty or with the tables of this kind. Returns its address."""

    def __call__(self, kind: Kind | None = None) -> str: ...


@pytest.fixture
def new_database(postgresql: str) -> Iterator[NewDatabase]:
    """Creates a PostgreSQL database at each call; all are dropped when the test is over."""
    names: list[str] = []

    def create(kind: Kind | None = None) -> str:
        names.append(f"t{secrets.token_hex(6)}")
        if kind is None:
            return create_database(postgresql, names[-1])
        return create_from_template(postgresql, names[-1], kind)

    yield create
    for name in names:
        drop_database(postgresql, name)


@pytest.fixture
def headquarters_url(new_database: NewDatabase) -> str:
    """A PostgreSQL database with the tables of headquarters."""
    return new_database("headquarters")
