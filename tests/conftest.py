"""Fixtures for every test: real servers once a session; topics, groups and databases of its own for each test."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from operations.local import create_database
from tests.services import kafka_for_tests, postgresql_for_tests

_DIRECTORIES = ("unit", "integration", "acceptance", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its directory, so that `-m faults` and the like select by it."""
    here = Path(__file__).parent
    for item in items:
        directory = item.path.relative_to(here).parts[0]
        if directory in _DIRECTORIES:
            item.add_marker(directory)


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """A real broker, shared by all tests; `prefix` keeps them apart."""
    with kafka_for_tests() as servers:
        yield servers


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A real PostgreSQL server, shared by all tests; `new_database` keeps them apart."""
    with postgresql_for_tests() as url:
        yield url


@pytest.fixture
def prefix() -> str:
    """What this test puts before its topics, groups and transactional ids; no other test's begins with it."""
    return f"t{secrets.token_hex(4)}-"


@pytest.fixture
def new_database(postgresql: str) -> Iterator[Callable[[], str]]:
    """Makes an empty PostgreSQL database at each call and gives its address; all are dropped when the test is over."""
    names: list[str] = []

    def create() -> str:
        names.append(f"t{secrets.token_hex(6)}")
        return create_database(postgresql, names[-1])

    yield create
    with psycopg.connect(postgresql, autocommit=True) as connection:
        for name in names:
            # By force: a process that the test killed may not have been missed by the server yet.
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def headquarters_url(new_database: Callable[[], str]) -> str:
    """An empty PostgreSQL database for headquarters."""
    return new_database()
