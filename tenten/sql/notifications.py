"""Wait for another connection's commit, of this or another process (LISTEN/NOTIFY; a watched file for SQLite)."""

import selectors
import time
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from tenten.sql.file_watch import FileWatch, watch
from tenten.sql.postgresql_driver import driver_of
from tenten.sql.sqlite_queue import writer_queue

SETTLED_CHANNEL: Final = "tenten_settled"
"""PostgreSQL channel, notified by every transaction that settles or rejects an event."""

_STOP_SECONDS: Final = 0.25
"""How often a listener checks for `stop`."""

_LOOK_SECONDS: Final = 1.0
"""How often a listener looks without having been woken: the watched file may have been deleted."""

_POLL_SECONDS: Final = 0.005
_QUIET_POLL_SECONDS: Final = 0.02
_QUIET_SECONDS: Final = 10.0
"""Poll intervals for a SQLite database whose files cannot be watched (a few microseconds each); the longer one after
this time without a change.
"""


class CommitListener:
    """Listens on an autocommit connection that serves nothing else meanwhile. Close it."""

    def __init__(self, connection: Connection, *channels: str) -> None:
        self._driver = driver_of(connection)
        self._is_postgresql = connection.dialect.name == "postgresql"
        self._changed_at = self._looked_at = time.monotonic()
        self._watch: FileWatch | None = None
        self._selector = selectors.DefaultSelector()
        # Before the caller reads anything, so that no commit is missed.
        if self._is_postgresql:
            for channel in channels:
                connection.execute(text(f"LISTEN {channel}"))
            self._selector.register(self._driver.fileno(), selectors.EVENT_READ)
        else:
            queue = writer_queue(str(connection.engine.url.database))
            self._watch = watch(queue.file) if queue.has_file() else None
            if self._watch is not None:
                self._selector.register(self._watch.descriptor, selectors.EVENT_READ)
            self._seen = self._data_version()

    def wait(self, seconds_max: float, stop: Event | None = None) -> bool:
        """Return as soon as something was committed since the last call, `seconds_max` passed or `stop` was set; True
        in the first case.

        Raises: errors of the database's driver.
        """
        stop = stop or Event()
        give_up_at = time.monotonic() + seconds_max
        has_news = True
        while not (has_news and self._has_committed()):
            left_seconds = give_up_at - time.monotonic()
            if left_seconds <= 0 or stop.is_set():
                return False
            has_news = self._wait_for_news(left_seconds, stop)
        return True

    def _wait_for_news(self, seconds_max: float, stop: Event) -> bool:
        """Wait a little; whether it is time to look for a commit."""
        if self._is_postgresql or self._watch is not None:
            has_news = bool(self._selector.select(min(_STOP_SECONDS, seconds_max)))
            return has_news or time.monotonic() - self._looked_at > _LOOK_SECONDS
        is_quiet = time.monotonic() - self._changed_at > _QUIET_SECONDS
        stop.wait(min(_QUIET_POLL_SECONDS if is_quiet else _POLL_SECONDS, seconds_max))
        return True

    def _has_committed(self) -> bool:
        """Whether something was committed since the last call. Does not block."""
        self._looked_at = time.monotonic()
        if self._is_postgresql:
            return bool(list(self._driver.notifies(timeout=0)))
        if self._watch is not None:
            self._watch.clear()
        seen, self._seen = self._seen, self._data_version()
        if seen == self._seen:
            return False
        self._changed_at = time.monotonic()
        return True

    def _data_version(self) -> Any:
        """Changes with every commit of another connection, of this or another process."""
        return self._driver.execute("PRAGMA data_version").fetchone()

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._selector.close()
        if self._watch is not None:
            self._watch.close()

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
            try:
                yield wake
                wake.forget()
            finally:
                wake.close()
        except BaseException:
            connection.invalidate()
            raise
