"""Wait for another connection's commit, of this or another process (LISTEN/NOTIFY; `PRAGMA data_version` on SQLite)."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

SETTLED_CHANNEL: Final = "tenten_settled"
"""PostgreSQL channel, notified by every transaction that settles or rejects an event."""

_LISTEN_SECONDS: Final = 0.2
"""How often a listener checks for `stop`."""

_POLL_SECONDS: Final = 0.005
_QUIET_POLL_SECONDS: Final = 0.02
_QUIET_SECONDS: Final = 10.0
"""Poll intervals for a SQLite database (a few microseconds each); the longer one after this time without a change."""


class CommitListener:
    """Listens on an autocommit connection that serves nothing else meanwhile."""

    def __init__(self, connection: Connection, *channels: str) -> None:
        self._driver: Any = connection.connection.driver_connection
        self._is_postgresql = connection.dialect.name == "postgresql"
        self._changed_at = time.monotonic()
        # Before the caller reads anything, so that no commit is missed.
        if self._is_postgresql:
            for channel in channels:
                connection.execute(text(f"LISTEN {channel}"))
        else:
            self._seen = self._data_version()

    def wait(self, seconds_max: float, stop: Event | None = None) -> None:
        """Return as soon as something was committed since the last call, `seconds_max` passed or `stop` was set.

        Raises: errors of the database's driver.
        """
        stop = stop or Event()
        give_up_at = time.monotonic() + seconds_max
        while not stop.is_set() and (left_seconds := give_up_at - time.monotonic()) > 0:
            if self._is_postgresql:
                if list(self._driver.notifies(timeout=min(_LISTEN_SECONDS, left_seconds), stop_after=1)):
                    return
            elif self._seen != (seen := self._data_version()):
                self._seen, self._changed_at = seen, time.monotonic()
                return
            else:
                is_quiet = time.monotonic() - self._changed_at > _QUIET_SECONDS
                stop.wait(min(_QUIET_POLL_SECONDS if is_quiet else _POLL_SECONDS, left_seconds))

    def _data_version(self) -> Any:
        """Changes with every commit of another connection, of this or another process."""
        return self._driver.execute("PRAGMA data_version").fetchone()

    def forget(self) -> None:
        """Stop listening, so that the connection can be reused."""
        if self._is_postgresql:
            self._driver.execute("UNLISTEN *")
            list(self._driver.notifies(timeout=0))


@contextmanager
def listening(engine: Engine, *channels: str) -> Generator[CommitListener]:
    """A `CommitListener` on a connection of its own; a broken connection is discarded."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            wake = CommitListener(connection, *channels)
            yield wake
            wake.forget()
        except BaseException:
            connection.invalidate()
            raise
