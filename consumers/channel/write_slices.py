"""How many records go into one transaction.

PostgreSQL locks rows, so there a batch is one transaction, or few. SQLite has one writer: whoever holds its place keeps
the clerk waiting, so there a batch is cut into slices that hold it for a few milliseconds each.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

SLICE_SECONDS: Final = 0.02
"""How long a slice is to hold SQLite's one place for a writer. A clerk who comes at its start waits for so long."""

_SQLITE_ROWS_MIN: Final = 20
_SQLITE_ROWS_MAX: Final = 1_000


class Slices:
    """Cuts batches: on PostgreSQL by a number of rows, on SQLite by how long the slices before took."""

    def __init__(self, dialect: str, postgresql_rows: int) -> None:
        self._adapts = dialect == "sqlite"
        self._rows = 200 if self._adapts else max(1, postgresql_rows)

    def cut(self, rows: int) -> Iterator[tuple[int, int]]:
        """First and end row of each slice."""
        first = 0
        while first < rows:
            end = min(rows, first + self._rows)
            yield first, end
            first = end

    @contextmanager
    def timed(self, rows: int) -> Generator[None]:
        """Put around what a slice does in its transaction, so that the next ones have the right size."""
        began = monotonic()
        yield
        if self._adapts and 2 * rows >= self._rows:
            # Half-way to the number that would have taken the right time: one slow commit is no rule.
            right = rows * SLICE_SECONDS / max(monotonic() - began, 0.0001)
            self._rows = max(_SQLITE_ROWS_MIN, min(_SQLITE_ROWS_MAX, int((self._rows + right) / 2)))
