"""Records with an identifier that is too long, or has control characters: no output could contain it, so they become
dead letters.
"""

from collections.abc import Iterable
from typing import Any, Final

import polars as pl

from tenten.avro.batches import DecodedBatch, UnreadableRow
from tenten.avro.wire import Json
from tenten.rules.identifiers import IDENTIFIER_CHARACTERS_MAX, is_identifier
from tenten.schemas.messages import ROW

_TEXT: Final = (
    f"has an identifier with more than {IDENTIFIER_CHARACTERS_MAX} characters or with control characters: its channel, "
    "its legal entity or an event that it supersedes"
)


def has_identifiers(event: Json) -> bool:
    """Whether the identifiers of a decoded customer event are well-formed. Its GUIDs are checked elsewhere."""
    customer: Any = event["customer"]
    return (
        is_identifier(event["channel_id"])
        and (customer is None or is_identifier(customer["legal_entity"]))
        and all(is_identifier(superseded["event_id"]) for superseded in event["supersedes"])
    )


def events_with_identifiers(decoded: DecodedBatch) -> DecodedBatch:
    """The batch of customer events with the others as unreadable rows."""
    frame = decoded.frame
    names = (frame["channel_id"], frame["customer"].struct.field("legal_entity"))
    superseding = frame.filter(pl.col("supersedes").list.len() > 0).select(ROW, "supersedes").explode("supersedes")
    superseded = superseding.select(ROW, pl.col("supersedes").struct.field("event_id"))
    return _without(decoded, {*_bad_rows(frame, names), *_bad_rows(superseded, (superseded["event_id"],))})


def transactions_with_identifiers(decoded: DecodedBatch) -> DecodedBatch:
    """The batch of transactions with the others as unreadable rows. Rules check the ids that no output repeats."""
    frame = decoded.frame
    return _without(decoded, set(_bad_rows(frame, (frame["channel_id"], frame["legal_entity"]))))


def _bad_rows(frame: pl.DataFrame, columns: Iterable[pl.Series]) -> Iterable[int]:
    """The rows of the batch with a bad identifier in one of these columns, which have few distinct values."""
    for column in columns:
        bad = [text for text in column.unique().drop_nulls() if not is_identifier(text)]
        if bad:
            yield from frame.filter(column.is_in(bad))[ROW]


def _without(decoded: DecodedBatch, rows: set[int]) -> DecodedBatch:
    if not rows:
        return decoded
    unreadable = [UnreadableRow(row=row, reason="malformed", text=_TEXT) for row in rows]
    return DecodedBatch(
        frame=decoded.frame.filter(~pl.col(ROW).is_in(list(rows))),
        unreadable=tuple(sorted((*decoded.unreadable, *unreadable), key=lambda bad: bad.row)),
    )
