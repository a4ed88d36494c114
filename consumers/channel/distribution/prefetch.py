"""Reads and decodes batches of `customers`, in the thread that reads ahead.

A partition with an unreadable record is paused before it and retried every few seconds: its schema may become known,
and compaction removes the record once there is a newer one of its customer.
"""

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from structlog import get_logger

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.snapshots import SnapshotBatch, UnreadableSnapshot, decode_snapshots
from tenten.kafka.assigned_reader import AssignedReader, Records
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.failpoints import failpoint
from tenten.runtime.retry import Retry

if TYPE_CHECKING:  # the column library is optional
    from tenten.sql.customer_frames import Dialect

log = get_logger(__name__)

RETRY_SECONDS: Final = 10.0
"""The time after which a stopped partition is retried."""

LINGER_SECONDS: Final = 0.05
"""How long a small batch waits for more records. No clerk waits for it: the number of their own customer comes with the
reply, which then mostly arrives first and saves writing an overlay.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchedBatch:
    """Records and their decoded batch; None without records, as after the end of a partition."""

    records: Records
    batch: SnapshotBatch | None

    @property
    def ends(self) -> dict[int, int]:
        """The ends that were reached, by partition; not of stopped partitions."""
        stopped = {unreadable.partition for unreadable in self.batch.unreadable} if self.batch else ()
        return {partition: end for partition, end in self.records.ends.items() if partition not in stopped}

    def next_offsets(self, end_row: int) -> dict[int, int]:
        """The next offsets after the first `end_row` records, never behind an unreadable record."""
        next_offsets = self.records.next_offsets(end_row)
        for unreadable in self.batch.unreadable if self.batch else ():
            if unreadable.partition in next_offsets:
                next_offsets[unreadable.partition] = min(next_offsets[unreadable.partition], unreadable.offset)
        return next_offsets


class SnapshotPrefetcher:
    """Reads and decodes batches. One thread at a time."""

    def __init__(self, reader: AssignedReader, view: ChannelView, dialect: "Dialect") -> None:
        self._reader = reader
        self._view = view
        self._dialect = dialect
        self._limits = BatchLimits()
        self._retried_at = monotonic()
        self._paused: set[int] = set()
        self.stopped: dict[int, UnreadableSnapshot] = {}
        """The unreadable record of each stopped partition."""

    def fetch(self, retry: Retry) -> PrefetchedBatch:
        """The next batch; an empty one after a short wait without records. Retries the lookup of schemas.

        Raises: `Stopped`; the errors of `AssignedReader.read`, and those of the lookup that waiting cannot fix.
        """
        self._retry_stopped()
        records = self._reader.read(self._limits, linger_seconds=LINGER_SECONDS)
        if not records.keys:
            self._forget_resumed(records)
            return PrefetchedBatch(records=records, batch=None)
        failpoint("distribution.after_poll")
        batch = retry.run_until_success(
            lambda: decode_snapshots(records, self._view.writers, self._view.filter, self._dialect)
        )
        for unreadable in batch.unreadable:
            self._stop(unreadable)
        self._forget_resumed(records)
        return PrefetchedBatch(records=records, batch=batch)

    def _stop(self, unreadable: UnreadableSnapshot) -> None:
        self._reader.pause(unreadable.partition, unreadable.offset)
        self._paused.add(unreadable.partition)
        before = self.stopped.get(unreadable.partition)
        self.stopped[unreadable.partition] = unreadable
        if before is None or before.offset != unreadable.offset:
            log.error(
                "partition_stopped",
                channel=self._view.channel_id,
                partition=unreadable.partition,
                offset=unreadable.offset,
                reason=unreadable.reason,
                text=f"a snapshot {unreadable.text}; its partition waits, the others continue",
            )

    def _retry_stopped(self) -> None:
        if self._paused and monotonic() - self._retried_at >= RETRY_SECONDS:
            self._reader.resume(sorted(self._paused))
            self._paused.clear()
            self._retried_at = monotonic()

    def _forget_resumed(self, records: Records) -> None:
        """Forget stopped partitions that have been read past their unreadable record."""
        if not self.stopped:
            return
        read = records.next_offsets() | dict(records.ends)
        resumed = [partition for partition in self.stopped if partition not in self._paused and partition in read]
        for partition in resumed:
            log.info("partition_resumed", channel=self._view.channel_id, partition=partition)
            del self.stopped[partition]
