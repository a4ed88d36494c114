"""Which record of each customer is the last one: the only one that compaction will leave, and that a resync applies."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from threading import Event

from tenten.kafka.assigned_reader import AssignedReader, Records
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.retry import Stopped


class Survivors:
    """The offset of the last record of each key of one partition, as far as its keys have been read.

    Takes memory for the keys of one partition. `of` may be called while another thread reads on.
    """

    def __init__(self, partition: int, start: int) -> None:
        self.partition = partition
        self._last: dict[bytes | None, int] = {}
        self._known_to = start

    def read_on(self, reader: AssignedReader, end: int, stop: Event) -> None:
        """Know the keys up to this offset. Raises: `Stopped`, and what reading raises."""
        for records in read_range(reader, self.partition, self._known_to, end, stop):
            self._last.update(zip(records.keys, records.offsets, strict=True))
        self._known_to = max(self._known_to, end)

    def of(self, records: Records) -> list[int]:
        """The rows of those of the records after which no other of their key is known."""
        last = self._last.get
        return [
            row
            for row, (key, offset) in enumerate(zip(records.keys, records.offsets, strict=True))
            if last(key) == offset
        ]


def read_range(reader: AssignedReader, partition: int, start: int, end: int, stop: Event) -> Iterator[Records]:
    """The records of one partition from `start` to before `end`, never none, waiting for a broker that is away.

    Raises: `Stopped` when `stop` is set before the end, and what reading raises.
    """
    if start >= end:
        return
    reader.assign({partition: start})
    limits = BatchLimits()
    at = start
    while at < end:
        if stop.is_set():
            raise Stopped
        records = reader.read(limits)
        at = max(at, records.next_offsets().get(partition, 0), records.ends.get(partition, 0))
        before = _before(records, end)
        if before.keys:
            yield before


def _before(records: Records, end: int) -> Records:
    offsets: Sequence[int] = records.offsets
    if not offsets or offsets[-1] < end:
        return records
    return records.rows(range(bisect_left(offsets, end)))
