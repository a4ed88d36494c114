"""Records of `customers` as columns: what can be read, split into what the channel wants and what it does not.

A record that cannot be read is never passed over: it ends what is taken of its partition.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from commerce.bulk import Dialect, TableFrames, channel_frames
from commerce.settings import Channel
from consumers.reading import Records
from schemas.batches import ROW, UnreadableRow, decode_batch
from schemas.records import Customer, customer_from_avro
from schemas.topics import RECORD_BYTES_MAX
from schemas.wire import WriterSchemas, contract

_SNAPSHOT: Final = ("customer_id", "account_number", "version", "updated_at", "customer")
_GUID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which customers a channel has: those of its legal entity, in one of its address books.

    A channel without address books has all of its legal entity; a customer without any is everywhere.
    """

    legal_entity: str
    address_books: tuple[str, ...]

    @classmethod
    def of(cls, channel: Channel) -> "Filter":
        """The filter of a channel, as configured."""
        return cls(legal_entity=channel.legal_entity, address_books=channel.address_books)

    def columns(self) -> pl.Expr:
        """True for the customers that pass, over the column `customer` of a decoded frame."""
        state = pl.col("customer").struct
        passes = state.field("legal_entity") == self.legal_entity
        if self.address_books:
            books = state.field("address_books")
            common = books.list.set_intersection(pl.lit(list(self.address_books))).list.len() > 0
            passes &= (books.list.len() == 0) | common
        return passes

    def passes(self, legal_entity: str, address_books: Sequence[str]) -> bool:
        """Whether one customer passes."""
        if legal_entity != self.legal_entity:
            return False
        return not self.address_books or not address_books or not set(self.address_books).isdisjoint(address_books)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A record that cannot be read: the rest of its partition waits for it."""

    partition: int
    offset: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """A batch as it was read: the decoded snapshots and the tombstones, in order, up to the first record of each
    partition that cannot be read.
    """

    snapshots: pl.DataFrame
    """As decoded, with `row`."""
    tombstones: pl.DataFrame
    """`customer_id` and `row`."""
    rows: int
    unread: tuple[Unread, ...]


def decode(records: Records, writers: WriterSchemas) -> Readable:
    """Decode a batch. Pure but for the look-up of unknown schemas, which may block and raise."""
    values, keys = records.values, records.keys
    rows = [row for row, value in enumerate(values) if value is not None]
    decoded = decode_batch(
        contract("Customer"), [keys[row] for row in rows], [values[row] for row in rows], writers, 2 * RECORD_BYTES_MAX
    )
    snapshots = decoded.frame
    if len(rows) != len(values):
        place = pl.DataFrame({ROW: range(len(rows)), "_row": rows}, schema={ROW: pl.Int64, "_row": pl.Int64})
        snapshots = snapshots.join(place, on=ROW, maintain_order="left").drop(ROW).rename({"_row": ROW})
    tombstones, bad = _tombstones(records)
    bad += [UnreadableRow(row=rows[one.row], reason=one.reason, text=one.text) for one in decoded.unreadable]
    readable = Readable(snapshots=snapshots, tombstones=tombstones, rows=len(values), unread=())
    return _before(records, readable, bad) if bad else readable


def _tombstones(records: Records) -> tuple[pl.DataFrame, list[UnreadableRow]]:
    rows = [row for row, value in enumerate(records.values) if value is None]
    frame = pl.DataFrame(
        {"customer_id": [records.keys[row] for row in rows], ROW: rows},
        schema={"customer_id": pl.Binary, ROW: pl.Int64},
    ).with_columns(pl.col("customer_id").cast(pl.String, strict=False))
    is_guid = pl.col("customer_id").str.contains(_GUID).fill_null(False)
    bad = [
        UnreadableRow(row=row, reason="key_mismatch", text="is a tombstone whose key is no GUID")
        for row in frame.filter(~is_guid)[ROW]
    ]
    return frame.filter(is_guid), bad


def _before(records: Records, readable: Readable, bad: Sequence[UnreadableRow]) -> Readable:
    """What stands before the first unreadable record of its partition."""
    first: dict[int, UnreadableRow] = {}
    for one in sorted(bad, key=lambda one: one.row, reverse=True):
        first[records.partitions[one.row]] = one
    rows_end = [first[partition].row if partition in first else len(records.keys) for partition in records.partitions]
    kept = pl.Series([row for row, end in enumerate(rows_end) if row < end], dtype=pl.Int64)
    return Readable(
        snapshots=readable.snapshots.filter(pl.col(ROW).is_in(kept.implode())),
        tombstones=readable.tombstones.filter(pl.col(ROW).is_in(kept.implode())),
        rows=readable.rows,
        unread=tuple(
            Unread(partition=partition, offset=records.offsets[one.row], reason=one.reason, text=one.text)
            for partition, one in sorted(first.items())
        ),
    )


class Batch:
    """A readable batch, filtered and made into rows of the channel's tables; `changes` cuts from it.

    What is in front of the tables is done here, outside any transaction: for whole batches, in columns.
    """

    def __init__(self, readable: Readable, within: Filter, dialect: Dialect) -> None:
        self.rows = readable.rows
        self.unread = readable.unread
        self._snapshots = readable.snapshots
        self._row_of = self._snapshots[ROW].to_list()
        self._ids = self._snapshots["customer_id"].to_list()
        self._versions = self._snapshots["version"].to_list()
        self._tombstones = list(readable.tombstones.select(ROW, "customer_id").iter_rows())
        passes = self._snapshots.select(within.columns()).to_series()
        wanted = self._snapshots if passes.all() else self._snapshots.filter(passes)
        self._passes = passes.to_list()
        self._place = (passes.cast(pl.Int64).cum_sum() - 1).to_list()
        self._frames = channel_frames(wanted.select(_SNAPSHOT), dialect)
        self._address_ends = _ends(wanted, "addresses")
        self._contact_ends = _ends(wanted, "contacts")

    def changes(self, first_row: int = 0, end_row: int | None = None) -> "Changes":
        """What the records from `first_row` up to `end_row` (None: to the end) ask of the channel."""
        end_row = self.rows if end_row is None else end_row
        first, end = bisect_left(self._row_of, first_row), bisect_left(self._row_of, end_row)
        erased_at = {guid: row for row, guid in self._tombstones if first_row <= row < end_row}
        ids = self._ids[first:end]
        chosen: Sequence[int] = range(first, end)
        if erased_at or len(set(ids)) != len(ids):
            chosen = self._newest(chosen, erased_at)
        wanted = [at for at in chosen if self._passes[at]]
        return Changes(
            ids=[self._ids[at] for at in wanted],
            versions=[self._versions[at] for at in wanted],
            frames=self._cut([self._place[at] for at in wanted]),
            unwanted={self._ids[at]: self._versions[at] for at in chosen if not self._passes[at]},
            erased=tuple(erased_at),
            decoded=lambda: self._snapshots[list(chosen)],
        )

    def _newest(self, among: Sequence[int], erased_at: Mapping[str, int]) -> list[int]:
        """One place per customer, in order: its highest version, the first of two; not what a tombstone took away."""
        newest: dict[str, int] = {}
        for at in among:
            guid = self._ids[at]
            before = newest.get(guid)
            if self._row_of[at] < erased_at.get(guid, -1):
                continue
            if before is None or self._versions[at] > self._versions[before]:
                newest[guid] = at
        return sorted(newest.values())

    def _cut(self, places: Sequence[int]) -> TableFrames:
        """The rows of these wanted snapshots."""
        if len(places) == self._frames.customers.height:
            return self._frames
        if places and places[-1] - places[0] + 1 == len(places):
            first, last = places[0], places[-1]
            return TableFrames(
                customers=self._frames.customers.slice(first, len(places)),
                addresses=_between(self._frames.addresses, self._address_ends, first, last),
                contacts=_between(self._frames.contacts, self._contact_ends, first, last),
            )
        return TableFrames(
            customers=self._frames.customers[list(places)],
            addresses=self._frames.addresses[_children(self._address_ends, places)],
            contacts=self._frames.contacts[_children(self._contact_ends, places)],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What some records ask of a channel. A customer stands once in `ids` or `unwanted`, the newest snapshot of it.

    Erase first: where the same records erase a customer and bring it again, it stands in `erased` as well.
    """

    ids: Sequence[str]
    """Customers that the channel has, in the order of `frames.customers`."""
    versions: Sequence[int]
    frames: TableFrames
    unwanted: Mapping[str, int]
    """Customers that do not pass the filter, with their versions."""
    erased: Sequence[str]
    decoded: Callable[[], pl.DataFrame]
    """The snapshots of `ids` and `unwanted`, as decoded."""

    def snapshots(self, ids: Collection[str]) -> list[Customer]:
        """The snapshots of these customers, as values."""
        chosen = self.decoded().filter(pl.col("customer_id").is_in(list(ids)))
        return [customer_from_avro(row) for row in chosen.select(_SNAPSHOT).iter_rows(named=True)]

    def rows_of(self, ids: Collection[str]) -> TableFrames:
        """The rows of those of the wanted customers."""
        if len(ids) == len(self.ids):
            return self.frames
        mask = pl.Series([guid in ids for guid in self.ids], dtype=pl.Boolean)
        customers = self.frames.customers.filter(mask)
        mine = customers.select("customer_id")
        return TableFrames(
            customers=customers,
            addresses=self.frames.addresses.join(mine, on="customer_id", how="semi", maintain_order="left"),
            contacts=self.frames.contacts.join(mine, on="customer_id", how="semi", maintain_order="left"),
        )


def _ends(snapshots: pl.DataFrame, children: str) -> list[int]:
    """For each snapshot, how many children it and those before it have."""
    counts = snapshots.select(pl.col("customer").struct.field(children).list.len().cast(pl.Int64).cum_sum())
    return counts.to_series().to_list()


def _between(children: pl.DataFrame, ends: Sequence[int], first: int, last: int) -> pl.DataFrame:
    start = ends[first - 1] if first else 0
    return children.slice(start, ends[last] - start)


def _children(ends: Sequence[int], places: Sequence[int]) -> list[int]:
    return [row for place in places for row in range(ends[place - 1] if place else 0, ends[place])]
