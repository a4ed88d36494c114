"""Records outside the partition of their key: two workers would own their customer, so they become dead letters."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from tenten.avro.batches import DecodedBatch, UnreadableRow
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.kafka.partitioner import partitions_of
from tenten.schemas.messages import ROW

_TEXT: Final = "is not in the partition that the partitioner murmur2_random chooses for its key"


def any_misplaced(keys: Sequence[bytes | None], positions: RecordPositions, partitions: int) -> bool:
    """Whether one of these records is outside the partition of its key; each has one."""
    return partitions_of([key or b"" for key in keys], partitions) != positions.partitions


def without_misplaced(
    decoded: DecodedBatch, keys: Sequence[bytes | None], positions: RecordPositions, partitions: int
) -> DecodedBatch:
    """The batch with such records as unreadable ones; `keys` are those of all its records."""
    rows = decoded.frame[ROW].to_list()
    expected = partitions_of([keys[row] or b"" for row in rows], partitions)
    misplaced = [row for row, partition in zip(rows, expected, strict=True) if positions.partitions[row] != partition]
    if not misplaced:
        return decoded
    unreadable = [UnreadableRow(row=row, reason="wrong_partition", text=_TEXT) for row in misplaced]
    return DecodedBatch(
        frame=decoded.frame.filter(~pl.col(ROW).is_in(misplaced)),
        unreadable=tuple(sorted((*decoded.unreadable, *unreadable), key=lambda bad: bad.row)),
    )
