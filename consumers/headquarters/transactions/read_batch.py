"""A batch of `retail-transactions` that has been decoded and checked, as far as that goes without I/O."""

import polars as pl
from confluent_kafka import Message
from sqlalchemy import Engine

from tenten.avro.batches import DecodedBatch, UnreadableRow
from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.authenticity import UNANSWERED, Authenticity, has_event_mac
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.positions import Stream
from tenten.consumers.headquarters.record_positions import record_positions
from tenten.consumers.headquarters.stored_records import rows_stored_before
from tenten.consumers.headquarters.transactions.classify import decode_and_classify
from tenten.consumers.headquarters.transactions.unreadable_replies import origin
from tenten.identity.signing import CUSTOMER_EVENT_MAC, KID, MAC, SigningHeaders
from tenten.kafka.records import headers_of
from tenten.kafka.transaction_session import Batch
from tenten.schemas.messages import ROW
from tenten.schemas.tables.headquarters import retail_transactions


class ReadBatch:
    """A batch that has been decoded, checked and classified."""

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

        May block to look up a schema; raises what `writers` raises when that fails.
        """
        self.channels = channels
        self._messages = batch.messages
        self._writers = writers
        self._stored = stored
        self._positions = record_positions(batch.topic, batch.messages)
        self.checked = check.check(batch.messages, channels.keys, stored)
        self.classified = decode_and_classify(
            [message.key() for message in batch.messages],
            [message.value() for message in batch.messages],
            writers,
            channels,
            self._positions,
            partitions=partitions,
            refuse=self._without_refused,
        )

    def _without_refused(self, decoded: DecodedBatch) -> DecodedBatch:
        decoded = self.checked.without_refused(decoded, self._claimed_channel)
        events = decoded.frame.filter(pl.col("customer_event").is_not_null())
        columns = events.select(ROW, "customer_id", "customer_event").iter_rows()
        forged = [row for row, customer_id, event in columns if not self._has_signed_event(row, customer_id, event)]
        if not forged:
            return decoded
        text = "contains a customer event that is not signed with the valid key of its channel"
        unreadable = [UnreadableRow(row=row, reason="not_authentic", text=text) for row in forged]
        return DecodedBatch(
            frame=decoded.frame.filter(~pl.col(ROW).is_in(forged)),
            unreadable=tuple(sorted((*decoded.unreadable, *unreadable), key=lambda bad: bad.row)),
        )

    def _has_signed_event(self, row: int, customer_id: str | None, event: bytes) -> bool:
        """Whether the customers worker will believe the event inside; it checks the event for itself."""
        if row in self._stored or self.checked.signers[row] is None:
            return True
        headers = dict(headers_of(self._messages[row]))
        return has_event_mac(headers, (customer_id or "").encode(), event, self.channels.keys)

    def _claimed_channel(self, row: int) -> str | None:
        """The channel that a record names, even if it cannot be read; None if that cannot be told."""
        found = origin(self._messages[row], self._writers)
        return None if found is None else found["channel_id"]

    @property
    def unreadable(self) -> tuple[UnreadableRow, ...]:
        """The records that become dead letters."""
        return self.classified.unreadable

    def stored_before(self, engine: Engine, stream: Stream) -> frozenset[int]:
        """The refused sales that an earlier SQL transaction has accepted, before a key was revoked: the customer events
        inside may not have been forwarded, so they are not refused. Raises: errors of the database.
        """
        refused = [bad.row for bad in self.unreadable if bad.reason in UNANSWERED]
        sales = {
            row: found["transaction_id"] for row in refused if (found := origin(self._messages[row], self._writers))
        }
        return rows_stored_before(engine, stream, self._positions, sales, retail_transactions.c.transaction_id)


def forwarded_signature(message: Message) -> SigningHeaders:
    """The headers by which a forwarded event proves its writer: those that its store has given to the transaction."""
    headers = dict(headers_of(message))
    key_id, mac = headers.get(KID), headers.get(CUSTOMER_EVENT_MAC)
    return [] if key_id is None or mac is None else [(KID, key_id), (MAC, mac)]
