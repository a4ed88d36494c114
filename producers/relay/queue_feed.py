"""Reads the outbox queue; of a backlog, the next rows in a thread, where it also deletes the entries of sent rows.

SQLite works in the calling process. There a thread would only compete for the interpreter, row by row.
"""

import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from tenten.producers.outbox.queue import OutboxQueue, QueuedRows
from tenten.runtime.failpoints import failpoint

DELETE_SECONDS: Final = 0.05
"""Entries of rows that were sent one at a time are deleted together, this long after the first."""


class QueueFeed:
    """Use it as a context manager; the entries that can be deleted are deleted at its end."""

    def __init__(
        self, queue: OutboxQueue, *, rows_max: int, bytes_max: int, deleted_max: int, reads_ahead: bool
    ) -> None:
        self._queue = queue
        self._reads_ahead = reads_ahead
        self._limits = (rows_max, bytes_max)
        self._deleted_max = deleted_max
        # Its thread starts when a backlog is read for the first time.
        self._thread = ThreadPoolExecutor(1, "reading-outbox")
        self._ahead: Future[QueuedRows] | None = None
        self._finished: list[int] = []
        self._delete_at = float("inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self._delete(self._take_finished())

    def read(self) -> QueuedRows:
        """The next rows. When there are more, the rows after them may be read ahead from now on."""
        self.delete_when_due()
        ahead, self._ahead = self._ahead, None
        queued = self._queue.read(*self._limits) if ahead is None else ahead.result()
        self.finish(queued.obsolete)
        if queued.has_more and self._reads_ahead:
            self._ahead = self._thread.submit(self._delete_and_read, self._take_finished())
        if queued.rows:
            failpoint("relay.after_select")
        return queued

    def finish(self, sequences: Collection[int]) -> None:
        """The entries of these rows can be deleted."""
        if sequences and not self._finished:
            self._delete_at = time.monotonic() + DELETE_SECONDS
        self._finished += sequences

    def delete_when_due(self) -> float:
        """Delete entries if it is time; in how many seconds it will be."""
        if self._ahead is None and time.monotonic() >= self._delete_at:
            self._delete(self._take_finished())
        return max(0.0, self._delete_at - time.monotonic())

    def delete_finished(self) -> None:
        """Delete the entries of all finished rows now: one that is queued again after that is a new entry. Waits for
        the rows that are being read ahead.
        """
        if self._ahead is not None:
            self._ahead.result()
        self._delete(self._take_finished())

    def _take_finished(self) -> list[int]:
        finished, self._finished = self._finished, []
        self._delete_at = float("inf")
        return finished

    def _delete_and_read(self, finished: Sequence[int]) -> QueuedRows:
        self._delete(finished)
        return self._queue.read(*self._limits)

    def _delete(self, finished: Sequence[int]) -> None:
        for start in range(0, len(finished), self._deleted_max):
            self._queue.delete(finished[start : start + self._deleted_max])
            failpoint("relay.after_mark")
