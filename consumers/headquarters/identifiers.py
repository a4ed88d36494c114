"""Records that headquarters reads and that no store writes: they become dead letters.

Of an identifier that is too long, or has control characters, no output could be made. A list of many thousands of
members takes seconds to check, while it may be compressed to a few hundred bytes: some such records would keep
headquarters from everything else.
"""

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any, Final

import polars as pl

from tenten.avro.batches import DecodedBatch, UnreadableRow
from tenten.avro.wire import Json
from tenten.rules.identifiers import IDENTIFIER_CHARACTERS_MAX, is_identifier
from tenten.rules.limits import COUNTS_MAX, MEMBERS_READ_MAX, PATHS_READ_MAX, SUPERSEDED_MAX
from tenten.rules.transaction_rules import LINES_MAX, LISTED_MAX
from tenten.schemas.messages import ROW

_TEXT: Final = (
    f"has an identifier with more than {IDENTIFIER_CHARACTERS_MAX} characters or with control characters: its channel, "
    "its legal entity or an event that it supersedes"
)
_TOO_MANY: Final = "has a list with many times more members than are allowed"

_OF_TRANSACTION: Final[Mapping[str, int]] = {
    **dict.fromkeys(("lines", "charges", "taxes", "payments", "control_totals"), 5 * LINES_MAX),
    "listed": 5 * LISTED_MAX,
}
"""The most members of each list of a transaction that headquarters reads."""


def has_identifiers(event: Json) -> bool:
    """Whether a decoded customer event is well-formed: its lists, and its identifiers but the GUIDs."""
    customer: Any = event["customer"]
    superseded: list[Json] = event["supersedes"]
    return (
        len(superseded) <= SUPERSEDED_MAX
        and len(event["changed"]) + sum(len(earlier["changed"]) for earlier in superseded) <= PATHS_READ_MAX
        and (customer is None or all(len(customer[name]) <= MEMBERS_READ_MAX for name in COUNTS_MAX))
        and is_identifier(event["channel_id"])
        and (customer is None or is_identifier(customer["legal_entity"]))
        and all(is_identifier(earlier["event_id"]) for earlier in superseded)
    )


def events_with_identifiers(decoded: DecodedBatch) -> DecodedBatch:
    """The batch of customer events with the others as unreadable rows."""
    customer = pl.col("customer").struct
    superseded = pl.col("supersedes").list
    paths = pl.col("changed").list.len() + superseded.eval(pl.element().struct.field("changed").list.len()).list.sum()
    too_many = (
        superseded.len() > SUPERSEDED_MAX,
        paths > PATHS_READ_MAX,
        *(customer.field(name).list.len() > MEMBERS_READ_MAX for name in COUNTS_MAX),
    )
    decoded = _without_many(decoded, too_many)
    frame = decoded.frame
    names = (frame["channel_id"], frame["customer"].struct.field("legal_entity"))
    superseding = frame.filter(superseded.len() > 0).select(ROW, "supersedes").explode("supersedes")
    ids = superseding.select(ROW, pl.col("supersedes").struct.field("event_id"))
    return _without(decoded, {*_bad_rows(frame, names), *_bad_rows(ids, (ids["event_id"],))}, _TEXT)


def transactions_with_identifiers(decoded: DecodedBatch) -> DecodedBatch:
    """The batch of transactions with the others as unreadable rows. Rules check the ids that no output repeats."""
    decoded = _without_many(decoded, [pl.col(name).list.len() > most for name, most in _OF_TRANSACTION.items()])
    frame = decoded.frame
    return _without(decoded, set(_bad_rows(frame, (frame["channel_id"], frame["legal_entity"]))), _TEXT)


def _without_many(decoded: DecodedBatch, too_many: Iterable[pl.Expr]) -> DecodedBatch:
    """The batch with the records that have one of these lists with too many members as unreadable rows."""
    is_too_many = reduce(or_, (condition.fill_null(False) for condition in too_many))
    return _without(decoded, set(decoded.frame.filter(is_too_many)[ROW]), _TOO_MANY)


def _bad_rows(frame: pl.DataFrame, columns: Iterable[pl.Series]) -> Iterable[int]:
    """The rows of the batch with a bad identifier in one of these columns, which have few distinct values."""
    for column in columns:
        bad = [text for text in column.unique().drop_nulls() if not is_identifier(text)]
        if bad:
            yield from frame.filter(column.is_in(bad))[ROW]


def _without(decoded: DecodedBatch, rows: set[int], text: str) -> DecodedBatch:
    if not rows:
        return decoded
    unreadable = [UnreadableRow(row=row, reason="malformed", text=text) for row in rows]
    return DecodedBatch(
        frame=decoded.frame.filter(~pl.col(ROW).is_in(list(rows))),
        unreadable=tuple(sorted((*decoded.unreadable, *unreadable), key=lambda bad: bad.row)),
    )
