"""How many records go into one transaction.

PostgreSQL locks rows, so there a batch is one transaction, or few. SQLite has one writer: whoever holds its place keeps the clerk
waiting, so there a batch is cut into slices that take a few milliseconds each, with the work between them outside any transaction.
"""

from collections.abc import Iterator
from time import monotonic
from typing import Final

_SLICE_SECONDS: Final = 0.015
_SQLITE_ROWS_MIN: Final = 20
_SQLITE_ROWS_MAX: Final = 1_000


class Slices:
    """Cuts batches: on PostgreSQL by a number of rows, on SQLite by how long the slices before took."""

    def __init__(self, dialect: str, postgresql_rows: int) -> None:
        self._adapts = dialect == "sqlite"
        self._rows = 200 if self._adapts else max(1, postgresql_rows)

    def cut(self, rows: int) -> Iterator[tuple[int, int]]:
        """First and end row of each slice; the time until the next is asked for counts as that slice's."""
        first = 0
        while first < rows:
            end = min(rows, first + self._rows)
            began = monotonic()
            yield first, end
            if self._adapts:
                self._adapt(end - first, monotonic() - began)
            first = end

    def _adapt(self, rows: int, seconds: float) -> None:
        """Half-way to the number that would have taken the right time."""
        right = rows * _SLICE_SECONDS / max(seconds, 0.0001)
        self._rows = max(_SQLITE_ROWS_MIN, min(_SQLITE_ROWS_MAX, int((self._rows + right) / 2)))
