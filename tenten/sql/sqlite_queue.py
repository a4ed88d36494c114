"""The queue of writers of a SQLite database, and the sign that they give after a commit.

SQLite lets waiters sleep up to 100 ms between two attempts, so a process that writes one transaction after the other
would always be faster: a till would wait for seconds, or fail. Hence writers queue for the right to wait for SQLite's
write lock: in a process in the order of their coming, between processes by a lock on a file next to the database, which
each process keeps open.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import Final
from weakref import WeakValueDictionary, finalize

from tenten.runtime.private_files import FILE_MODE

BUSY_SECONDS: Final = 10
"""How long a transaction waits for SQLite's write lock before that counts as busy."""

_POLL_SECONDS: Final = 0.001

_give_up_at: Final[ContextVar[float]] = ContextVar("give_up_at", default=float("inf"))


@contextmanager
def giving_up_at(moment: float) -> Generator[None]:
    """No writer of the block waits longer than until this moment (`time.monotonic`), neither for its turn nor for the
    lock.
    """
    before = _give_up_at.set(moment)
    try:
        yield
    finally:
        _give_up_at.reset(before)


def busy_at() -> float:
    """When a writer that begins to wait now counts as busy (`time.monotonic`)."""
    return min(time.monotonic() + BUSY_SECONDS, _give_up_at.get())


class WriterQueue:
    """The queue of writers of one database, in this process and others. Thread-safe.

    Where its file cannot be opened or locked, writers of other processes do not queue: SQLite's own lock decides.
    """

    def __init__(self, database: str) -> None:
        self.file = Path(f"{database}.turn.lock")
        """Locked by the writer whose turn it is; its times change after each commit."""
        self._mutex = Lock()
        self._is_taken = False
        self._waiting: deque[Lock] = deque()
        self._descriptor: int | None = None
        self._process = 0

    @contextmanager
    def turn(self) -> Generator[None]:
        """Wait for this writer's turn, which lasts until the end of the block. When it is `busy_at` it begins all the
        same.
        """
        deadline = busy_at()
        is_first = self._wait_for_threads(max(0.0, deadline - time.monotonic()))
        descriptor = self._open() if is_first else None
        is_locked = descriptor is not None and _lock(descriptor, deadline)
        try:
            yield
        finally:
            if is_locked and descriptor is not None:
                _unlock(descriptor)
            if is_first:
                self._next_thread()

    def has_file(self) -> bool:
        """Whether the file exists, which is created now if it does not; then `committed` can be seen there."""
        return self._open() is not None

    def committed(self) -> None:
        """Change the times of the file, for those who watch it."""
        descriptor = self._open()
        if descriptor is not None:
            with suppress(OSError):
                os.utime(descriptor)

    def _wait_for_threads(self, seconds_max: float) -> bool:
        """Wait until no other thread of this process has the turn; False after this time."""
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return True
            own = Lock()
            own.acquire()
            self._waiting.append(own)
        if own.acquire(timeout=seconds_max):
            return True
        with self._mutex:
            if own in self._waiting:
                self._waiting.remove(own)
                return False
        return True

    def _next_thread(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False

    def _open(self) -> int | None:
        """The descriptor of the file, opened at its first use in this process; None if that is impossible."""
        if self._descriptor is None or self._process != os.getpid():
            with suppress(OSError):
                descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
                self._descriptor, self._process = descriptor, os.getpid()
                finalize(self, os.close, descriptor)
        return self._descriptor


def _lock(descriptor: int, deadline: float) -> bool:
    """Lock the file against other processes; False if that is impossible, or not possible in time."""
    with suppress(OSError, ImportError):
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True
    return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _try_lock(descriptor: int) -> bool:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


_queues: Final[WeakValueDictionary[str, WriterQueue]] = WeakValueDictionary()
_queues_mutex: Final = Lock()


def writer_queue(database: str) -> WriterQueue:
    """The queue of this database: one in a process."""
    with _queues_mutex:
        queue = _queues.get(database)
        if queue is None:
            path = os.path.realpath(database)
            queue = _queues[database] = _queues.get(path) or _queues.setdefault(path, WriterQueue(path))
        return queue
