"""Records of `customers`, decoded and split by the channel's filter, ready to be applied.

A record that cannot be read is never skipped: the batch ends before it in its partition. Small batches are decoded
record by record, larger ones in columns (snapshot_columns.py) where the column library is installed.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from tenten.avro.small_batch import decode_small_batch
from tenten.avro.wire import Json, Unreadable, WriterSchemas, contract
from tenten.consumers.channel.filter import ChannelFilter
from tenten.consumers.channel.record_decoding import SMALL_BATCH_MAX, column_library_installed, decode_records
from tenten.kafka.assigned_reader import Records
from tenten.rules.limits import is_guid
from tenten.rules.unreadable_reasons import UnreadableReason
from tenten.schemas.messages import Customer, customer_from_avro
from tenten.schemas.topics import RECORD_BYTES_MAX

if TYPE_CHECKING:  # the column library is optional
    from tenten.sql.customer_frames import Dialect, TableFrames


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableSnapshot:
    """A record that cannot be read. `text` continues a sentence that begins with "a snapshot"."""

    partition: int
    offset: int
    reason: UnreadableReason
    text: str


def decode_snapshots(
    records: Records, writers: WriterSchemas, channel_filter: ChannelFilter, dialect: "Dialect"
) -> "SnapshotBatch":
    """The batch of these records. Each partition ends before its first unreadable record.

    Uses no database. May block where a schema is looked up. Raises: the errors of `writers` when schemas cannot be
    reached.
    """
    if len(records.keys) <= SMALL_BATCH_MAX:
        batch = _decode_small_batch(records, writers, channel_filter)
        if batch is not None:
            return batch
    if not column_library_installed():
        return _decode_record_by_record(records, writers, channel_filter)
    from tenten.consumers.channel.snapshot_columns import decode_in_columns

    return decode_in_columns(records, writers, channel_filter, dialect)


def _decode_small_batch(
    records: Records, writers: WriterSchemas, channel_filter: ChannelFilter
) -> "SnapshotBatch | None":
    """The batch; None when one of the records cannot be read."""
    tombstones = _tombstones(records)
    if not all(is_guid(guid) for _, guid in tombstones):
        return None
    values = [(row, value) for row, value in enumerate(records.values) if value is not None]
    keys = [records.keys[row] for row, _ in values]
    decoded = decode_small_batch(contract("Customer"), keys, [value for _, value in values], writers)
    if decoded is None:
        return None
    snapshots = [(row, record) for (row, _), record in zip(values, decoded, strict=True)]
    return _batch_of_values(len(records.keys), snapshots, tombstones, channel_filter)


def _decode_record_by_record(
    records: Records, writers: WriterSchemas, channel_filter: ChannelFilter
) -> "SnapshotBatch":
    """The batch, without the column library."""
    rows = [row for row, value in enumerate(records.values) if value is not None]
    keys, values = [records.keys[row] for row in rows], [records.values[row] for row in rows]
    decoded, bad = decode_records(contract("Customer"), keys, values, writers, 2 * RECORD_BYTES_MAX)
    errors = {rows[row]: error for row, error in bad.items()}
    tombstones = _tombstones(records)
    errors.update((row, INVALID_TOMBSTONE) for row, guid in tombstones if not is_guid(guid))
    readable, unreadable = split_at_unreadable(records, errors)
    snapshots = [(rows[row], record) for row, record in decoded if rows[row] in readable]
    return _batch_of_values(
        len(records.keys),
        snapshots,
        [(row, guid) for row, guid in tombstones if row in readable],
        channel_filter,
        unreadable,
    )


INVALID_TOMBSTONE: Final = Unreadable("key_mismatch", "is a tombstone with an invalid key")


def split_at_unreadable(
    records: Records, errors: Mapping[int, Unreadable]
) -> tuple[set[int], tuple[UnreadableSnapshot, ...]]:
    """The rows before the first unreadable record of their partition; and these first records.

    `errors` has the error of each unreadable row.
    """
    first: dict[int, int] = {}
    for row in sorted(errors, reverse=True):
        first[records.partitions[row]] = row
    readable = {row for row, partition in enumerate(records.partitions) if row < first.get(partition, row + 1)}
    unreadable = tuple(
        UnreadableSnapshot(
            partition=partition, offset=records.offsets[row], reason=errors[row].reason, text=errors[row].text
        )
        for partition, row in sorted(first.items())
    )
    return readable, unreadable


def _tombstones(records: Records) -> list[tuple[int, str]]:
    """Row and key of each tombstone."""
    return [
        (row, (key or b"").decode(errors="replace"))
        for row, (key, value) in enumerate(zip(records.keys, records.values, strict=True))
        if value is None
    ]


def _batch_of_values(
    rows: int,
    snapshots: Sequence[tuple[int, Json]],
    tombstones: Sequence[tuple[int, str]],
    channel_filter: ChannelFilter,
    unreadable: tuple[UnreadableSnapshot, ...] = (),
) -> "SnapshotBatch":
    decoded = [snapshot for _, snapshot in snapshots]
    return SnapshotBatch(
        rows=rows,
        unreadable=unreadable,
        snapshot_rows=[row for row, _ in snapshots],
        ids=[snapshot["customer_id"] for snapshot in decoded],
        versions=[snapshot["version"] for snapshot in decoded],
        accepted=[
            channel_filter.accepts(snapshot["customer"]["legal_entity"], snapshot["customer"]["address_books"])
            for snapshot in decoded
        ],
        tombstones=tombstones,
        content=_CustomerValues(decoded),
    )


class SnapshotContent(Protocol):
    """The content of a batch's snapshots, by their index among the snapshots."""

    def frames(self, indexes: Sequence[int]) -> "TableFrames | None":
        """The table rows of these snapshots, all of them accepted; None where they were decoded record by record."""

    def records(self, indexes: Sequence[int]) -> list[Json]:
        """These snapshots as decoded records; empty where they were decoded in columns."""

    def customers(self, indexes: Sequence[int]) -> list[Customer]:
        """These snapshots as values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotBatch:
    """Decoded records; `changes` cuts slices from them.

    `snapshot_rows`, `ids`, `versions` and `accepted` have one entry a snapshot, in the order of the records.
    """

    rows: int
    """The number of records, the unreadable ones included."""
    unreadable: tuple[UnreadableSnapshot, ...]
    """The first unreadable record of each partition that has one."""
    snapshot_rows: Sequence[int]
    ids: Sequence[str]
    versions: Sequence[int]
    accepted: Sequence[bool]
    """Whether the channel's filter accepts the customer."""
    tombstones: Sequence[tuple[int, str]]
    """Row and customer id of each tombstone."""
    content: SnapshotContent

    def changes(self, first_row: int = 0, end_row: int | None = None) -> "Changes":
        """The changes by the records from `first_row` up to, not including, `end_row` (None: to the end)."""
        end_row = self.rows if end_row is None else end_row
        first, end = bisect_left(self.snapshot_rows, first_row), bisect_left(self.snapshot_rows, end_row)
        erased_at = {guid: row for row, guid in self.tombstones if first_row <= row < end_row}
        chosen: Sequence[int] = range(first, end)
        if erased_at or len(set(self.ids[first:end])) != end - first:
            chosen = self._newest(chosen, erased_at)
        accepted = [index for index in chosen if self.accepted[index]]
        return Changes(
            rows=end_row - first_row,
            ids=[self.ids[index] for index in accepted],
            versions=[self.versions[index] for index in accepted],
            frames=self.content.frames(accepted),
            filtered_out={self.ids[index]: self.versions[index] for index in chosen if not self.accepted[index]},
            erased=tuple(erased_at),
            records=lambda ids: self.content.records([index for index in accepted if self.ids[index] in ids]),
            customers=lambda ids: self.content.customers([index for index in chosen if self.ids[index] in ids]),
        )

    def _newest(self, indexes: Sequence[int], erased_at: Mapping[str, int]) -> list[int]:
        """One index per customer, in order: its highest version, the first of equals; none from before a tombstone."""
        newest: dict[str, int] = {}
        for index in indexes:
            guid = self.ids[index]
            if self.snapshot_rows[index] < erased_at.get(guid, -1):
                continue
            before = newest.get(guid)
            if before is None or self.versions[index] > self.versions[before]:
                newest[guid] = index
        return sorted(newest.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The changes that some records make in a channel, at most one snapshot a customer: its newest.

    Erase first: a customer that the same records erase and then send again is in `erased` and in `ids` or
    `filtered_out`.
    """

    rows: int
    """The number of records."""
    ids: Sequence[str]
    """Customers that the filter accepts."""
    versions: Sequence[int]
    frames: "TableFrames | None"
    """Their table rows, in the order of `ids`; None for a small batch, which has `records`."""
    records: Callable[[Collection[str]], list[Json]]
    """The accepted customers with these ids, as decoded records; none where there are frames."""
    filtered_out: Mapping[str, int]
    """Customers that the filter does not accept, with their versions."""
    erased: Sequence[str]
    customers: Callable[[Collection[str]], list[Customer]]
    """The snapshots of these customers as values, whether accepted or not."""

    def touched(self) -> list[str]:
        """Every customer that the records name."""
        return [*self.ids, *self.filtered_out, *self.erased]


class _CustomerValues:
    """Snapshots that were decoded record by record."""

    def __init__(self, records: Sequence[Json]) -> None:
        self._records = records

    def frames(self, _: Sequence[int]) -> None:
        return None

    def records(self, indexes: Sequence[int]) -> list[Json]:
        return [self._records[index] for index in indexes]

    def customers(self, indexes: Sequence[int]) -> list[Customer]:
        return [customer_from_avro(self._records[index]) for index in indexes]
