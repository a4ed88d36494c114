"""What comes in: records of `customers`, decoded and made into rows while the database is busy with those before.

A partition with a record that cannot be read is paused in front of it, and tried again every few seconds: a schema may
become known, and compaction removes the record once a newer one of its customer is there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final

from structlog import get_logger

from tenten.avro.wire import WriterSchemas
from tenten.consumers.channel.distribution.snapshots import Batch, Filter, Unread, take_in
from tenten.kafka.assigned_reader import AssignedReader, Records
from tenten.kafka.transaction_session import BatchLimits
from tenten.runtime.failpoints import failpoint
from tenten.sql.customer_frames import Dialect

log = get_logger(__name__)

RETRY_SECONDS: Final = 10.0
"""How often a stopped partition is tried again."""

LINGER_SECONDS: Final = 0.05
"""How long a small batch waits for more. No clerk waits for it: his own customer's number comes with the reply, which
then mostly is there first, and spares laying the pending customer on top of the snapshot.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Records, and the same ready for the tables; None when there are none, only ends of partitions perhaps."""

    records: Records
    batch: Batch | None

    @property
    def ends(self) -> dict[int, int]:
        """The ends of partitions that were reached: not of those that wait for a record."""
        stopped = {one.partition for one in self.batch.unread} if self.batch else ()
        return {partition: end for partition, end in self.records.ends.items() if partition not in stopped}

    def next_offsets(self, end_row: int) -> dict[int, int]:
        """Where each partition goes on after the first `end_row` records: never behind a record that cannot be read."""
        after = self.records.next_offsets(end_row)
        for one in self.batch.unread if self.batch else ():
            if one.partition in after:
                after[one.partition] = min(after[one.partition], one.offset)
        return after


class Intake:
    """Takes in one batch after the other. One thread at a time."""

    def __init__(
        self, reader: AssignedReader, channel_id: str, within: Filter, dialect: Dialect, writers: WriterSchemas
    ) -> None:
        self._reader = reader
        self._channel_id = channel_id
        self._within = within
        self._dialect = dialect
        self._writers = writers
        self._limits = BatchLimits()
        self._tried_at = monotonic()
        self._waiting: set[int] = set()
        self.stopped: dict[int, Unread] = {}
        """The partitions that wait, each with the record that it waits for."""

    def batches(self) -> Iterator[Taken]:
        """Batch after batch, without end; empty ones after a short wait. Raises what reading and schemas raise."""
        while True:
            yield self._take()

    def _take(self) -> Taken:
        self._try_again()
        records = self._reader.read(self._limits, linger_seconds=LINGER_SECONDS)
        if not records.keys:
            self._healed(records)
            return Taken(records=records, batch=None)
        failpoint("distribution.after_poll")
        batch = take_in(records, self._writers, self._within, self._dialect)
        for one in batch.unread:
            self._stop(one)
        self._healed(records)
        return Taken(records=records, batch=batch)

    def _stop(self, unread: Unread) -> None:
        self._reader.pause(unread.partition, unread.offset)
        self._waiting.add(unread.partition)
        before = self.stopped.get(unread.partition)
        self.stopped[unread.partition] = unread
        if before is None or before.offset != unread.offset:
            log.error(
                "partition_stopped",
                channel=self._channel_id,
                partition=unread.partition,
                offset=unread.offset,
                reason=unread.reason,
                text=f"a snapshot {unread.text}; its partition waits, the others go on",
            )

    def _try_again(self) -> None:
        if self._waiting and monotonic() - self._tried_at >= RETRY_SECONDS:
            self._reader.resume(sorted(self._waiting))
            self._waiting.clear()
            self._tried_at = monotonic()

    def _healed(self, records: Records) -> None:
        """Forget stopped partitions that have moved on."""
        if not self.stopped:
            return
        seen = records.next_offsets() | dict(records.ends)
        for partition in [one for one in self.stopped if one not in self._waiting and one in seen]:
            log.info("partition_goes_on", channel=self._channel_id, partition=partition)
            del self.stopped[partition]
