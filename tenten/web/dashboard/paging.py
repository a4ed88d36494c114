"""Pages of long lists: each begins behind a row of the page before, so that new rows move nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Request

from tenten.web.dashboard.failures import NotFound
from tenten.web.dashboard.site import BEHIND

ROWS_MAX: Final = 100
"""Of a page."""

Row = TypeVar("Row")
Position = TypeVar("Position")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paged(Generic[Row]):
    """A page of a list, with the addresses of others."""

    rows: Sequence[Row]
    first_url: str
    """Of the first page; empty on that page."""
    next_url: str
    """Of the page behind this one; empty on the last page."""


def page_of(
    request: Request,
    path: str,
    *,
    parse: Callable[[str], Position],
    read: Callable[[Position | None, int], Sequence[Row]],
    position: Callable[[Row], Position],
) -> Paged[Row]:
    """The page that the request asks for, of the list at this path.

    `read` takes the position behind which rows are wanted, and how many; `parse` raises `ValueError` for a text that is
    not a position. Raises: `NotFound` for such a text.
    """
    asked = {name: value for name, value in request.query_params.items() if name != BEHIND}
    text = request.query_params.get(BEHIND)
    try:
        behind = None if text is None else parse(text)
    except ValueError:
        raise NotFound("This list has no such page: begin with the first one.") from None
    rows = read(behind, ROWS_MAX + 1)
    has_more = len(rows) > ROWS_MAX
    rows = rows[:ROWS_MAX]
    return Paged(
        rows=rows,
        first_url="" if text is None else _url(path, asked),
        next_url=_url(path, {**asked, BEHIND: str(position(rows[-1]))}) if has_more else "",
    )


def _url(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
