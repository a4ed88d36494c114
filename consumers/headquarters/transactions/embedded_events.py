"""Customer events inside orders and sales: read and checked before headquarters forwards them.

The event of a transaction is of the same channel and customer, and has the id that the transaction names. Headquarters
forwards it under its own identity, so it vouches for that.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl

from tenten.avro.batches import LARGE_BYTES, DecodedBatch, UnreadableRow, decode_batch
from tenten.avro.primitives import leading_texts
from tenten.avro.small_batch import decode_small_batch
from tenten.avro.wire import Unreadable, WriterSchemas, contract, header_bytes
from tenten.consumers.headquarters.identifiers import events_with_identifiers, has_identifiers
from tenten.schemas.messages import ROW, Reason, TransactionKind
from tenten.schemas.topics import EVENT_BYTES_MAX

SMALL_BATCH: Final = 100
"""Up to this many events are decoded one by one: less than columns cost."""

_MISMATCH: Final = Reason(
    field="customer_event",
    code="event_mismatch",
    text="The customer event inside is of another channel, customer or id.",
)


class _Origin(NamedTuple):
    """What an event must have in common with its transaction."""

    channel_id: str
    customer_id: str | None
    event_id: str | None


def check_embedded_events(
    decoded: DecodedBatch, writers: WriterSchemas
) -> tuple[DecodedBatch, Mapping[int, tuple[Reason, ...]]]:
    """The batch with the transactions whose event cannot be read as unreadable ones; and by row, the reasons to reject
    those whose event is not theirs.

    May block while a schema is looked up; raises what `writers` raises when that fails.
    """
    carrying = decoded.frame.filter(
        (pl.col("kind") != TransactionKind.END_OF_DAY) & pl.col("customer_event").is_not_null()
    )
    if carrying.is_empty():
        return decoded, {}
    values: list[bytes] = carrying["customer_event"].to_list()
    rows: list[int] = carrying[ROW].to_list()
    origins, bad = _origins(values, writers)
    expected = carrying.select("channel_id", "customer_id", "customer_event_id").iter_rows()
    mismatches = {
        row: (_MISMATCH,)
        for number, (row, names) in enumerate(zip(rows, expected, strict=True))
        if number in origins and origins[number] != _Origin(*names)
    }
    unreadable = [
        UnreadableRow(row=rows[event.row], reason=event.reason, text=f"contains a customer event that {event.text}")
        for event in bad
    ]
    if not unreadable:
        return decoded, mismatches
    readable = decoded.frame.filter(~pl.col(ROW).is_in([event.row for event in unreadable]))
    all_unreadable = sorted((*decoded.unreadable, *unreadable), key=lambda event: event.row)
    return DecodedBatch(frame=readable, unreadable=tuple(all_unreadable)), mismatches


def _origins(values: Sequence[bytes], writers: WriterSchemas) -> tuple[Mapping[int, _Origin], Sequence[UnreadableRow]]:
    """The origin of each readable event, by its number; and the events that cannot be read."""
    keys = [_key(value) for value in values]
    if len(values) <= SMALL_BATCH and max(map(len, values)) <= LARGE_BYTES:
        events = decode_small_batch(contract("CustomerEvent"), keys, values, writers)
        if events is not None and all(map(has_identifiers, events)):
            return {
                number: _Origin(event["channel_id"], event["customer_id"], event["event_id"])
                for number, event in enumerate(events)
            }, ()
    batch = events_with_identifiers(
        decode_batch(contract("CustomerEvent"), keys, values, writers, EVENT_BYTES_MAX, only_columns_above=LARGE_BYTES)
    )
    rows = batch.frame.select(ROW, "channel_id", "customer_id", "event_id").iter_rows()
    return {row: _Origin(*names) for row, *names in rows}, batch.unreadable


def _key(value: bytes) -> bytes | None:
    """The customer that an event is of, which is the key of its record once it is forwarded."""
    try:
        texts = leading_texts(value[header_bytes(value) :], 1)
    except Unreadable:
        return None
    return texts[0].encode() if texts else None
