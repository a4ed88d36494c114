"""The columnar path of `snapshots.py`: records decoded into polars frames, and these into the rows of the tables."""

from collections.abc import Collection, Sequence
from typing import Final

import polars as pl

from tenten.avro.batches import decode_batch
from tenten.avro.wire import Json, Unreadable, WriterSchemas, contract
from tenten.consumers.channel.filter import ChannelFilter
from tenten.consumers.channel.snapshots import (
    INVALID_TOMBSTONE,
    Changes,
    SnapshotBatch,
    UnreadableSnapshot,
    split_at_unreadable,
)
from tenten.kafka.assigned_reader import Records
from tenten.rules.limits import is_guid
from tenten.schemas.messages import ROW, Customer, customer_from_avro
from tenten.schemas.topics import RECORD_BYTES_MAX
from tenten.sql.customer_frames import Dialect, TableFrames, channel_frames

_SNAPSHOT: Final = ("customer_id", "account_number", "version", "updated_at", "customer")


def decode_in_columns(
    records: Records, writers: WriterSchemas, channel_filter: ChannelFilter, dialect: Dialect
) -> SnapshotBatch:
    """See `snapshots.decode_snapshots`."""
    snapshots, tombstones, unreadable = _decode(records, writers)
    accepted = snapshots.select(accepted_by(channel_filter)).to_series()
    return SnapshotBatch(
        rows=len(records.keys),
        unreadable=unreadable,
        snapshot_rows=snapshots[ROW].to_list(),
        ids=snapshots["customer_id"].to_list(),
        versions=snapshots["version"].to_list(),
        accepted=accepted.to_list(),
        tombstones=list(tombstones.select(ROW, "customer_id").iter_rows()),
        content=_CustomerColumns(snapshots, accepted, dialect),
    )


def accepted_by(channel_filter: ChannelFilter) -> pl.Expr:
    """`ChannelFilter.accepts` over the column `customer` of a decoded frame."""
    state = pl.col("customer").struct
    accepted = state.field("legal_entity") == channel_filter.legal_entity
    if channel_filter.offline_customers == "none":
        return accepted & False
    if channel_filter.address_books or channel_filter.offline_customers == "own":
        books, own = state.field("address_books"), pl.lit(list(channel_filter.address_books), dtype=pl.List(pl.String))
        common = books.list.set_intersection(own).list.len() > 0
        accepted &= common if channel_filter.offline_customers == "own" else (books.list.len() == 0) | common
    return accepted


def select_frames(changes: Changes, ids: Collection[str]) -> TableFrames:
    """The table rows of these customers, all of them in `changes.ids`. `changes` must have frames."""
    frames = changes.frames
    assert frames is not None
    if len(ids) == len(changes.ids):
        return frames
    customers = frames.customers.filter(pl.Series([guid in ids for guid in changes.ids], dtype=pl.Boolean))
    chosen = customers.select("customer_id")
    return TableFrames(
        customers=customers,
        addresses=frames.addresses.join(chosen, on="customer_id", how="semi", maintain_order="left"),
        contacts=frames.contacts.join(chosen, on="customer_id", how="semi", maintain_order="left"),
    )


def _decode(
    records: Records, writers: WriterSchemas
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[UnreadableSnapshot, ...]]:
    """Decoded snapshots with `row`; tombstones as `customer_id` and `row`; the first unreadable record a partition."""
    keys, values = records.keys, records.values
    rows = [row for row, value in enumerate(values) if value is not None]
    decoded = decode_batch(
        contract("Customer"), [keys[row] for row in rows], [values[row] for row in rows], writers, 2 * RECORD_BYTES_MAX
    )
    snapshots = decoded.frame
    if len(rows) != len(values):
        of_record = pl.DataFrame({ROW: range(len(rows)), "_row": rows}, schema={ROW: pl.Int64, "_row": pl.Int64})
        snapshots = snapshots.join(of_record, on=ROW, maintain_order="left").drop(ROW).rename({"_row": ROW})
    tombstones, errors = _tombstones(records)
    for row in decoded.unreadable:
        errors[rows[row.row]] = Unreadable(row.reason, row.text)
    if not errors:
        return snapshots, tombstones, ()
    readable, unreadable = split_at_unreadable(records, errors)
    is_readable = pl.col(ROW).is_in(pl.Series(sorted(readable), dtype=pl.Int64).implode())
    return snapshots.filter(is_readable), tombstones.filter(is_readable), unreadable


def _tombstones(records: Records) -> tuple[pl.DataFrame, dict[int, Unreadable]]:
    """The tombstones with a valid key; the error of each other one, by row."""
    rows = [row for row, value in enumerate(records.values) if value is None]
    frame = pl.DataFrame(
        {"customer_id": [records.keys[row] for row in rows], ROW: rows},
        schema={"customer_id": pl.Binary, ROW: pl.Int64},
    ).with_columns(pl.col("customer_id").cast(pl.String, strict=False))
    guids = pl.Series([guid is not None and is_guid(guid) for guid in frame["customer_id"]], dtype=pl.Boolean)
    return frame.filter(guids), dict.fromkeys(frame.filter(~guids)[ROW].to_list(), INVALID_TOMBSTONE)


class _CustomerColumns:
    """The snapshots of a batch in columns, and the table rows of the accepted ones."""

    def __init__(self, snapshots: pl.DataFrame, accepted: pl.Series, dialect: Dialect) -> None:
        accepted_snapshots = snapshots if accepted.all() else snapshots.filter(accepted)
        self._snapshots = snapshots
        self._frame_rows = (accepted.cast(pl.Int64).cum_sum() - 1).to_list()
        self._frames = channel_frames(accepted_snapshots.select(_SNAPSHOT), dialect)
        self._address_ends = _ends(accepted_snapshots, "addresses")
        self._contact_ends = _ends(accepted_snapshots, "contacts")

    def records(self, _: Sequence[int]) -> list[Json]:
        return []

    def customers(self, indexes: Sequence[int]) -> list[Customer]:
        chosen = self._snapshots[list(indexes)].select(_SNAPSHOT)
        return [customer_from_avro(row) for row in chosen.iter_rows(named=True)]

    def frames(self, indexes: Sequence[int]) -> TableFrames:
        rows = [self._frame_rows[index] for index in indexes]
        if len(rows) == self._frames.customers.height:
            return self._frames
        if rows and rows[-1] - rows[0] + 1 == len(rows):
            first, last = rows[0], rows[-1]
            return TableFrames(
                customers=self._frames.customers.slice(first, len(rows)),
                addresses=_between(self._frames.addresses, self._address_ends, first, last),
                contacts=_between(self._frames.contacts, self._contact_ends, first, last),
            )
        return TableFrames(
            customers=self._frames.customers[rows],
            addresses=self._frames.addresses[_children(self._address_ends, rows)],
            contacts=self._frames.contacts[_children(self._contact_ends, rows)],
        )


def _ends(snapshots: pl.DataFrame, children: str) -> list[int]:
    """For each snapshot, the number of children of it and of those before it."""
    counts = snapshots.select(pl.col("customer").struct.field(children).list.len().cast(pl.Int64).cum_sum())
    return counts.to_series().to_list()


def _between(children: pl.DataFrame, ends: Sequence[int], first: int, last: int) -> pl.DataFrame:
    start = ends[first - 1] if first else 0
    return children.slice(start, ends[last] - start)


def _children(ends: Sequence[int], rows: Sequence[int]) -> list[int]:
    return [child for row in rows for child in range(ends[row - 1] if row else 0, ends[row])]
