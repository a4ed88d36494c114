"""A batch of `async-customers` that has been decoded and checked, as far as that goes without I/O."""

from functools import cached_property

from sqlalchemy import Engine

from tenten.avro.batches import UnreadableRow
from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.authenticity import UNANSWERED, Authenticity
from tenten.consumers.headquarters.customers.classify import (
    ClassifiedBatch,
    decode_and_classify,
    decode_small,
    individually,
)
from tenten.consumers.headquarters.customers.small_batch import new_customers
from tenten.consumers.headquarters.customers.unreadable_replies import origin
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.misplaced import any_misplaced
from tenten.consumers.headquarters.positions import Stream
from tenten.consumers.headquarters.record_positions import record_positions
from tenten.consumers.headquarters.stored_records import rows_stored_before
from tenten.kafka.transaction_session import Batch
from tenten.schemas.tables.headquarters import synchronization_log


class ReadBatch:
    """A batch that has been decoded and checked: as new customers, if it is small and has nothing else, otherwise
    classified.
    """

    def __init__(
        self,
        batch: Batch,
        writers: WriterSchemas,
        channels: KnownChannels,
        check: Authenticity,
        *,
        partitions: int,
        stored: frozenset[int] = frozenset(),
    ) -> None:
        """`partitions`: of the topic; `stored`: the rows that an earlier SQL transaction has accepted.

        Raises: what `writers` raises when a schema cannot be looked up at the moment.
        """
        self.channels = channels
        self.values = [message.value() for message in batch.messages]
        self._messages = batch.messages
        self._keys = [message.key() for message in batch.messages]
        self._positions = record_positions(batch.topic, batch.messages)
        self._writers = writers
        self._partitions = partitions
        self.checked = check.check(batch.messages, channels.keys, stored)
        self._events = decode_small(self._keys, self.values, writers)
        if self._events is not None and (self._any_refused() or self._any_misplaced()):
            self._events = None
        self.new_customers = (
            None
            if self._events is None
            else new_customers(self._events, self.values, self._positions, writers, channels)
        )
        if self.new_customers is None:
            _ = self.classified  # here, since this may be the prefetching thread

    def _any_misplaced(self) -> bool:
        return any_misplaced(self._keys, self._positions, self._partitions)

    def _any_refused(self) -> bool:
        claimed = [event["channel_id"] for event in self._events or ()]
        return any(self.checked.refusal(row, channel_id) for row, channel_id in enumerate(claimed))

    @property
    def customer_ids(self) -> list[str]:
        """The customers of a small batch."""
        return [event["customer_id"] for event in self._events or ()]

    @cached_property
    def classified(self) -> ClassifiedBatch:
        """The batch for the general path: new customers, too, where the database did not accept them together."""
        if self._events is not None:
            return individually(self._events, self.values, self._positions)
        return decode_and_classify(
            self._keys,
            self.values,
            self._writers,
            self.channels,
            self._positions,
            partitions=self._partitions,
            refuse=lambda decoded: self.checked.without_refused(decoded, self._claimed_channel),
        )

    def _claimed_channel(self, row: int) -> str | None:
        """The channel that a record names, even if it cannot be read; None if that cannot be told."""
        found = origin(self._messages[row], self._writers)
        return None if found is None else found["channel_id"]

    @property
    def unreadable(self) -> tuple[UnreadableRow, ...]:
        """The records that become dead letters."""
        return () if self.new_customers is not None else self.classified.unreadable

    @property
    def individual_events(self) -> int:
        """The number of events that need individual handling."""
        return 0 if self.new_customers is not None else len(self.classified.individual_events)

    def stored_before(self, engine: Engine, stream: Stream) -> frozenset[int]:
        """The refused records that an earlier SQL transaction has accepted, before a key was revoked: their outputs
        may be missing on the topics, so they are not refused. Raises: errors of the database.
        """
        refused = [bad.row for bad in self.unreadable if bad.reason in UNANSWERED]
        events = {row: found["event_id"] for row in refused if (found := origin(self._messages[row], self._writers))}
        return rows_stored_before(engine, stream, self._positions, events, synchronization_log.c.event_id)
