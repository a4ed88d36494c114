"""The last record per key: the one that compaction keeps and that a resync applies."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from threading import Event

from tenten.kafka.assigned_reader import AssignedReader, Records
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.retry import Stopped


class LastRecords:
    """The offset of the last record of each key of one partition, as far as its keys have been read.

    Uses memory for the keys of one partition. `rows_in` may be called while another thread reads on.
    """

    def __init__(self, partition: int, start: int) -> None:
        self.partition = partition
        self._last: dict[bytes | None, int] = {}
        self._read_to = start

    def read_keys(self, reader: AssignedReader, end: int, stop: Event) -> None:
        """Read the keys up to, not including, this offset. Blocks. Raises: as `read_range`."""
        for records in read_range(reader, self.partition, self._read_to, end, stop):
            self._last.update(zip(records.keys, records.offsets, strict=True))
        self._read_to = max(self._read_to, end)

    def rows_in(self, records: Records) -> list[int]:
        """The rows of those records that are the last of their key."""
        last = self._last.get
        return [
            row
            for row, (key, offset) in enumerate(zip(records.keys, records.offsets, strict=True))
            if last(key) == offset
        ]


def read_range(reader: AssignedReader, partition: int, start: int, end: int, stop: Event) -> Iterator[Records]:
    """The records of one partition from `start` up to, not including, `end`, in batches of at least one.

    Blocks while the broker is unavailable. Raises: `Stopped` when `stop` is set before the end; the errors of
    `AssignedReader.read`.
    """
    if start >= end:
        return
    reader.assign({partition: start})
    limits = BatchLimits()
    next_offset = start
    while next_offset < end:
        if stop.is_set():
            raise Stopped
        records = reader.read(limits)
        next_offset = max(next_offset, records.next_offsets().get(partition, 0), records.ends.get(partition, 0))
        in_range = _before(records, end)
        if in_range.keys:
            yield in_range


def _before(records: Records, end: int) -> Records:
    offsets: Sequence[int] = records.offsets
    if not offsets or offsets[-1] < end:
        return records
    return records.rows(range(bisect_left(offsets, end)))
