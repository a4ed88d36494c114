"""Waiting until another connection, of this or another process, has committed something: as soon as it has.

PostgreSQL tells by notifications; SQLite is asked, a few microseconds each time, whether its file has changed.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event
from typing import Any, Final

from psycopg import Connection as PostgresConnection
from sqlalchemy import Connection, Engine, text

SETTLED_CHANNEL: Final = "tenten_settled"
"""PostgreSQL: notified in every transaction that settles or rejects, for those who wait for an account number."""

_LISTEN_SECONDS: Final = 0.2
"""How often a listener looks whether it is to end."""

_LOOK_SECONDS: Final = 0.005
_QUIET_LOOK_SECONDS: Final = 0.02
_QUIET_SECONDS: Final = 10.0
"""How often a SQLite database is asked whether somebody has written; less often after so long without a change."""


class CommitListener:
    """Waits on a connection for it alone, on which each statement is a transaction."""

    def __init__(self, connection: Connection, *channels: str) -> None:
        self._driver: Any = connection.connection.driver_connection
        self._is_postgresql = isinstance(self._driver, PostgresConnection)
        self._changed_at = time.monotonic()
        # Before the caller reads anything, so that nothing falls between.
        if self._is_postgresql:
            for channel in channels:
                connection.execute(text(f"LISTEN {channel}"))
        else:
            self._seen = self._data_version()

    def wait(self, seconds_max: float, stop: Event | None = None) -> None:
        """Return at once when something was committed since the last time, else as soon as it is; at the latest after
        that time, or when `stop` is set.

        Raises: what the database's driver raises.
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
                stop.wait(min(_QUIET_LOOK_SECONDS if is_quiet else _LOOK_SECONDS, left_seconds))

    def _data_version(self) -> Any:
        """Changes with every commit of another connection, of this or another process."""
        return self._driver.execute("PRAGMA data_version").fetchone()

    def forget(self) -> None:
        """Listen no longer, so that the connection can serve others."""
        if self._is_postgresql:
            self._driver.execute("UNLISTEN *")
            list(self._driver.notifies(timeout=0))


@contextmanager
def listening(engine: Engine, *channels: str) -> Generator[CommitListener]:
    """A `CommitListener` on a connection of its own for as long as the block; a broken connection is thrown away."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            wake = CommitListener(connection, *channels)
            yield wake
            wake.forget()
        except BaseException:
            connection.invalidate()
            raise
