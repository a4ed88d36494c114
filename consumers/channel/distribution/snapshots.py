"""Records of `customers` as columns: what can be read, split into what the channel wants and what it does not.

A record that cannot be read is never passed over: it ends what is taken of its partition.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from tenten.avro.batches import UnreadableRow, decode_batch
from tenten.avro.small_batch import FEW_RECORDS, decode_few, is_guid
from tenten.avro.wire import WriterSchemas, contract
from tenten.kafka.assigned_reader import Records
from tenten.runtime.settings import Channel
from tenten.schemas.messages import ROW, Customer, customer_from_avro
from tenten.schemas.topics import RECORD_BYTES_MAX
from tenten.sql.customer_frames import Dialect, TableFrames, channel_frames

_SNAPSHOT: Final = ("customer_id", "account_number", "version", "updated_at", "customer")


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


def take_in(records: Records, writers: WriterSchemas, within: Filter, dialect: Dialect) -> "Batch":
    """Decode records, and make rows of the channel's tables of them. A partition ends before what cannot be read.

    Touches no database. May block where a schema is looked up; raises what `writers` raises when it cannot be reached.
    """
    few = _few(records, writers) if len(records.keys) <= FEW_RECORDS else None
    if few is not None:
        snapshots, tombstones = few
        return Batch(
            rows=len(records.keys),
            unread=(),
            row_of=[row for row, _ in snapshots],
            ids=[one.customer_id for _, one in snapshots],
            versions=[one.version for _, one in snapshots],
            passes=[within.passes(one.customer.legal_entity, one.customer.address_books) for _, one in snapshots],
            tombstones=tombstones,
            content=_Values([one for _, one in snapshots]),
        )
    frame, tombstone_frame, unread = _decode(records, writers)
    passes = frame.select(within.columns()).to_series()
    return Batch(
        rows=len(records.keys),
        unread=unread,
        row_of=frame[ROW].to_list(),
        ids=frame["customer_id"].to_list(),
        versions=frame["version"].to_list(),
        passes=passes.to_list(),
        tombstones=list(tombstone_frame.select(ROW, "customer_id").iter_rows()),
        content=_Columns(frame, passes, dialect),
    )


def _few(records: Records, writers: WriterSchemas) -> tuple[list[tuple[int, Customer]], list[tuple[int, str]]] | None:
    """Snapshots and tombstones with their rows, or None when one of them is not what it should be."""
    tombstones = [
        (row, (key or b"").decode(errors="replace"))
        for row, (key, value) in enumerate(zip(records.keys, records.values, strict=True))
        if value is None
    ]
    values = [(row, value) for row, value in enumerate(records.values) if value is not None]
    if not all(is_guid(guid) for _, guid in tombstones):
        return None
    decoded = decode_few(
        contract("Customer"), [records.keys[row] for row, _ in values], [value for _, value in values], writers
    )
    if decoded is None:
        return None
    snapshots = [(row, customer_from_avro(one)) for (row, _), one in zip(values, decoded, strict=True)]
    return snapshots, tombstones


def _decode(records: Records, writers: WriterSchemas) -> tuple[pl.DataFrame, pl.DataFrame, tuple[Unread, ...]]:
    """Snapshots as decoded, with `row`; tombstones, as `customer_id` and `row`; where partitions cannot be read on."""
    keys, values = records.keys, records.values
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
    if not bad:
        return snapshots, tombstones, ()
    readable, unread = _before(records, bad)
    return snapshots.filter(readable), tombstones.filter(readable), unread


def _tombstones(records: Records) -> tuple[pl.DataFrame, list[UnreadableRow]]:
    rows = [row for row, value in enumerate(records.values) if value is None]
    frame = pl.DataFrame(
        {"customer_id": [records.keys[row] for row in rows], ROW: rows},
        schema={"customer_id": pl.Binary, ROW: pl.Int64},
    ).with_columns(pl.col("customer_id").cast(pl.String, strict=False))
    guids = pl.Series([guid is not None and is_guid(guid) for guid in frame["customer_id"]], dtype=pl.Boolean)
    bad = [
        UnreadableRow(row=row, reason="key_mismatch", text="is a tombstone whose key is no GUID")
        for row in frame.filter(~guids)[ROW]
    ]
    return frame.filter(guids), bad


def _before(records: Records, bad: Sequence[UnreadableRow]) -> tuple[pl.Expr, tuple[Unread, ...]]:
    """The condition that a row stands before the first unreadable record of its partition; and those records."""
    first: dict[int, UnreadableRow] = {}
    for one in sorted(bad, key=lambda one: one.row, reverse=True):
        first[records.partitions[one.row]] = one
    rows_end = [first[partition].row if partition in first else len(records.keys) for partition in records.partitions]
    kept = pl.Series([row for row, end in enumerate(rows_end) if row < end], dtype=pl.Int64)
    unread = tuple(
        Unread(partition=partition, offset=records.offsets[one.row], reason=one.reason, text=one.text)
        for partition, one in sorted(first.items())
    )
    return pl.col(ROW).is_in(kept.implode()), unread


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records that were read, ready for the tables; `changes` cuts from them.

    `row_of`, `ids`, `versions` and `passes` are of the same length, one entry a snapshot, in order.
    """

    rows: int
    """How many records there were."""
    unread: tuple[Unread, ...]
    row_of: Sequence[int]
    ids: Sequence[str]
    versions: Sequence[int]
    passes: Sequence[bool]
    """Whether the channel has that customer, by its filter."""
    tombstones: Sequence[tuple[int, str]]
    content: "_Columns | _Values"

    def changes(self, first_row: int = 0, end_row: int | None = None) -> "Changes":
        """What the records from `first_row` up to `end_row` (None: to the end) ask of the channel."""
        end_row = self.rows if end_row is None else end_row
        first, end = bisect_left(self.row_of, first_row), bisect_left(self.row_of, end_row)
        erased_at = {guid: row for row, guid in self.tombstones if first_row <= row < end_row}
        chosen: Sequence[int] = range(first, end)
        if erased_at or len(set(self.ids[first:end])) != end - first:
            chosen = self._newest(chosen, erased_at)
        wanted = [at for at in chosen if self.passes[at]]
        return Changes(
            ids=[self.ids[at] for at in wanted],
            versions=[self.versions[at] for at in wanted],
            frames=self.content.rows(wanted),
            unwanted={self.ids[at]: self.versions[at] for at in chosen if not self.passes[at]},
            erased=tuple(erased_at),
            snapshots=lambda ids: self.content.snapshots([at for at in chosen if self.ids[at] in ids]),
        )

    def _newest(self, among: Sequence[int], erased_at: Mapping[str, int]) -> list[int]:
        """One place per customer, in order: its highest version, the first of two; not what a tombstone took away."""
        newest: dict[str, int] = {}
        for at in among:
            guid = self.ids[at]
            before = newest.get(guid)
            if self.row_of[at] < erased_at.get(guid, -1):
                continue
            if before is None or self.versions[at] > self.versions[before]:
                newest[guid] = at
        return sorted(newest.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What some records ask of a channel. A customer stands once in `ids` or `unwanted`, the newest snapshot of it.

    Erase first: where the same records erase a customer and bring it again, it stands in `erased` as well.
    """

    ids: Sequence[str]
    """Customers that the channel has."""
    versions: Sequence[int]
    frames: TableFrames | None
    """Their rows, in that order; None where there are so few that they go one by one."""
    unwanted: Mapping[str, int]
    """Customers that do not pass the filter, with their versions."""
    erased: Sequence[str]
    snapshots: Callable[[Collection[str]], list[Customer]]
    """Those of these customers, as values."""

    def rows_of(self, ids: Collection[str]) -> TableFrames:
        """The rows of those of the wanted customers."""
        assert self.frames is not None  # a few customers have no rows
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


class _Values:
    """The snapshots of a batch as values."""

    def __init__(self, customers: Sequence[Customer]) -> None:
        self._customers = customers

    def rows(self, _: Sequence[int]) -> None:
        """There are none: they go one by one."""

    def snapshots(self, places: Sequence[int]) -> list[Customer]:
        """The snapshots at these places."""
        return [self._customers[at] for at in places]


class _Columns:
    """The snapshots of a batch in columns, and the rows of those that the channel has."""

    def __init__(self, snapshots: pl.DataFrame, passes: pl.Series, dialect: Dialect) -> None:
        wanted = snapshots if passes.all() else snapshots.filter(passes)
        self._snapshots = snapshots
        self._place = (passes.cast(pl.Int64).cum_sum() - 1).to_list()
        self._frames = channel_frames(wanted.select(_SNAPSHOT), dialect)
        self._address_ends = _ends(wanted, "addresses")
        self._contact_ends = _ends(wanted, "contacts")

    def snapshots(self, places: Sequence[int]) -> list[Customer]:
        """The snapshots at these places."""
        chosen = self._snapshots[list(places)].select(_SNAPSHOT)
        return [customer_from_avro(row) for row in chosen.iter_rows(named=True)]

    def rows(self, wanted: Sequence[int]) -> TableFrames:
        """The rows of the snapshots at these places, all of which the channel has."""
        places = [self._place[at] for at in wanted]
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
            customers=self._frames.customers[places],
            addresses=self._frames.addresses[_children(self._address_ends, places)],
            contacts=self._frames.contacts[_children(self._contact_ends, places)],
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
