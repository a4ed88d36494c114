"""The number of records per transaction.

PostgreSQL locks rows, so there a batch is one transaction, or few. SQLite has a single writer, and a clerk waits while
another transaction writes, so there a batch is cut into slices that take a few milliseconds each.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

SLICE_SECONDS: Final = 0.02
"""The intended duration of a slice in SQLite: the longest that a clerk waits for one."""

_ROWS_MIN: Final = {"sqlite": 20, "postgresql": 250}
_ROWS_MAX: Final = 1_000


class Slices:
    """Cuts batches: on PostgreSQL by a number of rows, on SQLite by the duration of earlier slices.

    With `adapts` also on PostgreSQL by duration, from that number of rows on: for changes of rows that clerks change.
    """

    def __init__(self, dialect: str, postgresql_rows: int, *, adapts: bool = False) -> None:
        self._adapts = adapts or dialect == "sqlite"
        self._rows_min = _ROWS_MIN[dialect]
        self._rows = 200 if dialect == "sqlite" else max(1, postgresql_rows)

    @property
    def rows(self) -> int:
        """The rows of the next slice."""
        return self._rows

    def cut(self, rows: int) -> Iterator[tuple[int, int]]:
        """First and end row of each slice."""
        first = 0
        while first < rows:
            end = min(rows, first + self._rows)
            yield first, end
            first = end

    @contextmanager
    def timed(self, rows: int) -> Generator[None]:
        """Measure the transaction of a slice, to adapt the size of later ones."""
        started = monotonic()
        yield
        self.took(rows, monotonic() - started)

    def took(self, rows: int, seconds: float) -> None:
        """Adapt the size of later slices to the duration of a transaction."""
        if self._adapts and 2 * rows >= self._rows:
            # Half-way to the size that would have taken the intended time, so that one slow commit weighs little.
            intended = rows * SLICE_SECONDS / max(seconds, 0.0001)
            self._rows = max(self._rows_min, min(_ROWS_MAX, int((self._rows + intended) / 2)))
