"""A PostgreSQL server and its replicas behind one address, which moves to the replica that takes over."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from tenten import local
from tenten.local import processes
from tenten.local.directories import create_directory
from tenten.local.postgres import LocalPostgres, find_programs
from tests.services import directory_for_server
from tests.waiting import wait_for

_SETTINGS: Final = {"fsync": "off"}


class ReplicatedServer:
    """The server that has the address, and the replica that would take over."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._address = directory / "address"
        self._count = 0
        self._replica: Path | None = None
        self._primary = local.start_postgres(self._next_directory(), settings=_SETTINGS)
        self._take_address()

    def url(self, database: str) -> str:
        """The address of a database, whichever server has it. The database is created if it is missing."""
        local.create_database(self._primary.postgresql, database)
        return f"postgresql://postgres@/{database}?host={self._address}"

    def add_replica(self) -> None:
        """Copy the primary; the copy follows it from now on."""
        directory = self._next_directory()
        copy = [str(find_programs() / "pg_basebackup"), "--checkpoint=fast", "--write-recovery-conf", "--no-sync"]
        target = directory / "data"
        subprocess.run(
            [*copy, f"--pgdata={target}", f"--dbname={self._primary.postgresql}"], check=True, capture_output=True
        )
        # Of the primary's socket.
        (target / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        if os.geteuid() == 0:
            # A server that root starts runs as another user.
            owner = self._data.stat()
            for path in (target, *target.rglob("*")):
                os.lchown(path, owner.st_uid, owner.st_gid)
        self._replica = directory
        self.connect_replica()

    @property
    def _data(self) -> Path:
        return self._address.resolve()

    def connect_replica(self) -> None:
        """Start the replica."""
        assert self._replica is not None
        local.start_postgres(self._replica, settings=_SETTINGS)

    def disconnect_replica(self) -> None:
        """Stop the replica: from now on it lacks what the primary writes."""
        assert self._replica is not None
        assert local.stop_postgres(self._replica)

    def wait_for_replica(self) -> None:
        """Wait until the replica has everything that the primary has written."""
        assert self._replica is not None
        replica = local.start_postgres(self._replica, settings=_SETTINGS)
        with (
            psycopg.connect(self._primary.postgresql) as primary,
            psycopg.connect(replica.postgresql, autocommit=True) as behind,
        ):
            row = primary.execute("SELECT pg_current_wal_lsn()::text").fetchone()
            has_all = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            wait_for(lambda: behind.execute(has_all, row).fetchone() == (True,), "the replica")

    def fail_over(self) -> None:
        """The primary crashes for good; the replica takes over with what it has, and gets the address."""
        assert self._replica is not None
        _crash(self._primary)
        self._primary = local.start_postgres(self._replica, settings=_SETTINGS)
        with psycopg.connect(self._primary.postgresql, autocommit=True) as replica:
            assert replica.execute("SELECT pg_promote()").fetchone() == (True,)
        self._replica = None
        self._take_address()

    def end(self) -> None:
        """Stop all servers."""
        for directory in self._directory.glob("server*"):
            local.delete_postgres(directory)

    def _next_directory(self) -> Path:
        self._count += 1
        return create_directory(self._directory / f"server{self._count}")

    def _take_address(self) -> None:
        """Let the address lead to the primary's socket."""
        new = self._address.with_name("new")
        new.symlink_to(str(psycopg.conninfo.conninfo_to_dict(self._primary.postgresql)["host"]))
        new.replace(self._address)


def _crash(server: LocalPostgres) -> None:
    os.kill(server.pid, signal.SIGQUIT)
    wait_for(lambda: not processes.exists(server.pid), "the end of the server")


@contextmanager
def replicated_server() -> Iterator[ReplicatedServer]:
    """A server without replica."""
    with directory_for_server("replicas") as directory:
        server = ReplicatedServer(directory)
        try:
            yield server
        finally:
            server.end()
            shutil.rmtree(directory, ignore_errors=True)
