"""Databases of both kinds, opened for a test; import the fixtures that it uses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, insert, select

from tenten.schemas.tables import channel
from tenten.sql.engine import open_database
from tenten.sql.migrations import upgrade_channel

DEADLINE_SECONDS = 20.0


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """The database at this address, for the duration of the block."""
    engine = open_database(url)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture(params=["postgresql", "sqlite"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Returns the address of an empty database at each call; PostgreSQL, then SQLite."""
    if request.param == "postgresql":
        create: Callable[[], str] = request.getfixturevalue("new_database")
        return create
    files = iter(tmp_path / f"{number}.db" for number in range(10))
    return lambda: f"sqlite:///{next(files)}"


@pytest.fixture
def store(new_url: Callable[[], str]) -> Iterator[Engine]:
    """A channel's database of this release."""
    with opened(new_url()) as engine:
        upgrade_channel(engine)
        yield engine


def add_topic(connection: Connection, name: str) -> None:
    """Write a row of a channel's database."""
    connection.execute(insert(channel.topics).values(topic=name, topic_id="id", partitions=12))


def topics(connection: Connection) -> list[str]:
    """The names that `add_topic` wrote, sorted."""
    return list(connection.scalars(select(channel.topics.c.topic).order_by(channel.topics.c.topic)))
