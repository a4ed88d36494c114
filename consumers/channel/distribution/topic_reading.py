"""Reading a topic up to given offsets, all partitions at once."""

from collections.abc import Iterator, Mapping
from threading import Event
from typing import Final

from tenten.kafka.assigned_reader import AssignedReader, Records
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.retry import Stopped

_LINGER_SECONDS: Final = 0.05
"""How long a small batch waits for more records: columns pay only for large ones."""

RECORDS_MAX: Final = 5_000
"""Of a batch: larger ones are hardly faster, and need more memory."""


def read_up_to(
    reader: AssignedReader, start: Mapping[int, int], target: Mapping[int, int], stop: Event
) -> Iterator[tuple[Records, dict[int, int]]]:
    """The records of each partition from `start` up to, not including, `target`, mixed as they are fetched.

    Each with the offsets up to which the partitions have been read with them, at most the targets: these pass control
    markers and records that compaction has removed. Blocks while the broker is unavailable. Raises: `Stopped` when
    `stop` is set before the end; the errors of `AssignedReader.read`.
    """
    open_partitions = {partition: start[partition] for partition, end in target.items() if start[partition] < end}
    if not open_partitions:
        return
    reader.assign(open_partitions)
    limits = BatchLimits(records_max=RECORDS_MAX)
    while open_partitions:
        if stop.is_set():
            raise Stopped
        records = reader.read(limits, linger_seconds=_LINGER_SECONDS)
        reached = records.next_offsets() | dict(records.ends)
        read_to = {
            partition: min(offset, target[partition])
            for partition, offset in reached.items()
            if partition in open_partitions and offset > open_partitions[partition]
        }
        open_partitions |= read_to
        rows = [
            row
            for row, (partition, offset) in enumerate(zip(records.partitions, records.offsets, strict=True))
            if partition in target and offset < target[partition]
        ]
        if read_to:
            yield records if len(rows) == len(records.keys) else records.rows(rows), read_to
        open_partitions = {
            partition: offset for partition, offset in open_partitions.items() if offset < target[partition]
        }


def last_of_each_key(records: Records) -> Records:
    """Those of the records that are the last with their key among them, in the order of the keys.

    In this order a database writes neighbouring rows of its indexes together.
    """
    last = {key or b"": row for row, key in enumerate(records.keys)}
    return records.rows([last[key] for key in sorted(last)])
