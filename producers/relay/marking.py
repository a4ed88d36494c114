"""Take acknowledged rows off the outbox queue, in the background."""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Self

from sqlalchemy import Connection

from tenten.producers.outbox import table
from tenten.producers.till.open_channel import OpenChannel
from tenten.runtime.failpoints import failpoint


@contextmanager
def autocommit_connection(opened: OpenChannel) -> Generator[Connection]:
    """A connection on which each statement is a transaction."""
    with opened.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


class Marker:
    """Takes acknowledged batches off the queue, one batch at a time, while the caller continues. Use it as a context
    manager.
    """

    def __init__(self, opened: OpenChannel) -> None:
        self._opened = opened
        self._exit = ExitStack()
        self._running: Future[None] | None = None
        self.sequences: Sequence[int] = ()
        """The rows that may still be in the queue."""

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            self._connection = entered.enter_context(autocommit_connection(self._opened))
            self._thread = entered.enter_context(ThreadPoolExecutor(1, "marking"))
            self._exit = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def mark(self, sequences: Sequence[int]) -> None:
        """Wait for the previous batch, then start to take these rows off. Raises: the errors of the previous batch."""
        self.finish()
        if sequences:
            self.sequences = sequences
            self._running = self._thread.submit(self._mark, sequences)

    def finish(self) -> None:
        """Wait until all rows are off the queue. Raises: the database's errors."""
        running, self._running = self._running, None
        if running is not None:
            running.result()
        self.sequences = ()

    def _mark(self, sequences: Sequence[int]) -> None:
        table.dequeue(self._connection, sequences)
        failpoint("relay.after_mark")
