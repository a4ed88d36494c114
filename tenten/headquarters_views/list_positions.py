"""Positions in lists that are sorted by time and id: where the next page begins."""

from datetime import datetime
from typing import Any, NamedTuple, Self

from sqlalchemy import ColumnElement, Tuple, literal, tuple_

from tenten.rules.limits import is_guid


class ListPosition(NamedTuple):
    """The row after which a page begins."""

    at: datetime
    row_id: str

    def __str__(self) -> str:
        return f"{self.at.isoformat()}~{self.row_id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The position of a text. Raises: `ValueError`.

        >>> str(ListPosition.parse("2026-03-02T12:00:00+00:00~0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"))
        '2026-03-02T12:00:00+00:00~0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f'
        """
        time, _, row_id = text.partition("~")
        at = datetime.fromisoformat(time)
        if at.tzinfo is None or not is_guid(row_id):
            raise ValueError(text)
        return cls(at, row_id)

    def is_after(self, at: ColumnElement[Any], row_id: ColumnElement[Any]) -> ColumnElement[bool]:
        """Whether this position is later than that of a row, by its columns: the rows behind it, the newest first."""
        return tuple_(at, row_id) < self._as(at, row_id)

    def is_before(self, at: ColumnElement[Any], row_id: ColumnElement[Any]) -> ColumnElement[bool]:
        """Whether this position is earlier than that of a row: the rows behind it, the oldest first."""
        return tuple_(at, row_id) > self._as(at, row_id)

    def _as(self, at: ColumnElement[Any], row_id: ColumnElement[Any]) -> Tuple:
        """The position, in the types of these columns."""
        return tuple_(literal(self.at, at.type), literal(self.row_id, row_id.type))
