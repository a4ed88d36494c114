"""The files of a SQLite store can be read by their owner only."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from tenten.schemas.tables import channel
from tenten.sql.engine import open_database
from tenten.sql.locks import apply_lock
from tenten.sql.migrations import upgrade_channel


@pytest.fixture(autouse=True)
def _permissive_umask() -> Iterator[None]:
    """A umask that would make new files readable for everybody."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_of_a_sqlite_store_are_private(tmp_path: Path) -> None:
    """Database, WAL, shared memory and lock files have mode 0600, directories created for them 0700."""
    # given
    tmp_path.chmod(0o755)
    directory = tmp_path / "till" / "data"
    engine = open_database(f"sqlite:///{directory / 'store.db'}")

    # when
    upgrade_channel(engine)
    with apply_lock(engine), engine.begin() as connection:
        connection.execute(insert(channel.topics).values(topic="customers", topic_id="id", partitions=12))
        modes = {path.name: _mode(path) for path in directory.iterdir()}
    engine.dispose()

    # then
    assert {"store.db", "store.db-wal", "store.db-shm", "store.db.apply.lock", "store.db.turn.lock"} == modes.keys()
    assert set(modes.values()) == {0o600}
    assert (_mode(directory), _mode(directory.parent), _mode(tmp_path)) == (0o700, 0o700, 0o755)


def test_permissions_of_existing_files_are_unchanged(tmp_path: Path) -> None:
    """A database and a directory that exist keep the permissions that their owner gave them."""
    # given
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o750)
    database = directory / "store.db"
    database.touch()
    database.chmod(0o640)
    engine = open_database(f"sqlite:///{database}")

    # when
    upgrade_channel(engine)
    engine.dispose()

    # then
    assert (_mode(database), _mode(directory)) == (0o640, 0o750)
