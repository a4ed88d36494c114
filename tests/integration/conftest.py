"""Fixtures of several files; a file whose channel or headquarters differs defines its own."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenten.consumers.channel.distribution import snapshot_stream
from tenten.kafka import assigned_reader
from tests.faults.traffic import Store as SeededStore
from tests.producer_scene import Store, set_store
from tests.scenes import Scene, set_scene


@pytest.fixture(autouse=True, scope="session")
def quick_readers() -> Iterator[None]:
    """Readers in this process that end within a tenth of a second, and get every snapshot at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assigned_reader, "POLL_SECONDS", 0.1)
        patch.setattr(snapshot_stream, "FETCH_BYTES_MIN", 1)
        yield


@pytest.fixture(params=["postgresql", "sqlite"])
def channel_url(request: pytest.FixtureRequest) -> str:
    """The URL of the database of the channel houston: with tables on PostgreSQL, a missing file on SQLite."""
    if request.param == "sqlite":
        return "sqlite:///houston.db"
    url: str = request.getfixturevalue("new_database")("channel")
    return url


@pytest.fixture
def store(channel_url: str, tmp_path: Path) -> Iterator[Store]:
    """A channel on each of the two databases."""
    with set_store(tmp_path, channel_url) as opened:
        yield opened


@pytest.fixture
def scene(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Scene:
    """Headquarters with its own topics, tables and settings."""
    return set_scene(tmp_path, bootstrap_servers, prefix, headquarters_url)


@pytest.fixture
def houston() -> SeededStore:
    """The events of a store, seeded."""
    return SeededStore(channel_id="houston", legal_entity="usrt", rng=random.Random(1))
