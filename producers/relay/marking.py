"""Mark acknowledged rows of the outbox as sent, in the background."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Final, Self

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from tenten.producers.outbox import table
from tenten.producers.till.open_channel import OpenChannel
from tenten.runtime.error_codes import error_code
from tenten.runtime.failpoints import failpoint

_ATTEMPTS: Final = 5
_DEADLOCK: Final = "40P01"


@contextmanager
def autocommit_connection(opened: OpenChannel) -> Generator[Connection]:
    """A connection on which each statement is a transaction."""
    with opened.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


class Marker:
    """Marks the rows of acknowledged batches as sent, one batch at a time, while the caller continues. Use it as a
    context manager.
    """

    def __init__(self, opened: OpenChannel) -> None:
        self._opened = opened
        self._exit = ExitStack()
        self._running: Future[None] | None = None
        self.sequences: Sequence[int] = ()
        """The rows that may not be marked yet."""

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            self._connection = entered.enter_context(autocommit_connection(self._opened))
            self._thread = entered.enter_context(ThreadPoolExecutor(1, "marking"))
            self._exit = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def mark(self, sequences: Sequence[int], topic_ids: Mapping[str, str]) -> None:
        """Wait for the previous batch, then start to mark these rows. Raises: the errors of the previous batch."""
        self.finish()
        if sequences:
            self.sequences = sequences
            self._running = self._thread.submit(self._mark, sequences, topic_ids)

    def finish(self) -> None:
        """Wait until all rows are marked. Raises: the database's errors."""
        running, self._running = self._running, None
        if running is not None:
            running.result()
        self.sequences = ()

    def _mark(self, sequences: Sequence[int], topic_ids: Mapping[str, str]) -> None:
        for attempt in count(1):
            try:
                table.mark_sent(self._connection, sequences, datetime.now(UTC), topic_ids)
                break
            except OperationalError as error:
                # Replies can arrive before the rows are marked sent, and settlement locks the rows in another order.
                if error_code(error) != _DEADLOCK or attempt == _ATTEMPTS:
                    raise
        failpoint("relay.after_mark")
