"""The queue of writers of a SQLite database."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from filelock import FileLock, Timeout
from sqlalchemy import URL

from tenten.runtime.private_files import FILE_MODE

BUSY_SECONDS: Final = 10
"""How long a transaction waits for SQLite's write lock before that counts as busy."""

_POLL_SECONDS: Final = 0.002


@contextmanager
def write_turn(address: URL) -> Generator[None]:
    """Queue for SQLite's write lock fairly: the body is to acquire it.

    SQLite lets waiters sleep up to 100 ms between two attempts, so a process that writes one transaction after the
    other would always be faster: a till would wait for seconds, or fail. Falls back to SQLite's own busy handler when
    the queue lock is unavailable.
    """
    queue = FileLock(f"{address.database}.turn.lock", mode=FILE_MODE)
    with suppress(OSError, Timeout):
        queue.acquire(timeout=BUSY_SECONDS, poll_interval=_POLL_SECONDS)
    try:
        yield
    finally:
        queue.release()
