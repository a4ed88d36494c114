"""The log entries of the events of a batch within one SQL transaction, and the replies to them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from tenten.consumers.headquarters.customers.synchronization_log import (
    FIRST_JUDGEMENT,
    LogEntry,
    new_entry,
    overturned,
    read_log,
    write_log,
)
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.schemas.messages import CustomerEvent, Outcome, Reason, Reply
from tenten.sql.customer_rows import StoredCustomer

_NOT_APPLIED: Final = frozenset((Outcome.REJECTED, Outcome.HELD))
"""Outcomes of events whose changes a later event has to bring along."""


@dataclass(slots=True)
class EventLog:
    """The log entries of a transaction: those that it has read, and those that `write` adds or changes."""

    headquarters: Connection
    positions: RecordPositions
    now: datetime
    replies: list[Reply] = field(default_factory=list)
    """The replies to the events and to those that they superseded, in order."""
    _entries: dict[str, LogEntry] = field(default_factory=dict)

    def read(self, events: Iterable[CustomerEvent], event_ids: Iterable[str] = ()) -> None:
        """Read the entries of these events, of those that they supersede, and of these ids."""
        ids = set(event_ids)
        for event in events:
            ids.add(event.event_id)
            ids.update(superseded.event_id for superseded in event.supersedes)
        self._entries.update(read_log(self.headquarters, ids - self._entries.keys()))

    def reply_of(self, event_id: str) -> Reply | None:
        """The reply that an event has by now; None if it was never logged."""
        entry = self._entries.get(event_id)
        return None if entry is None else entry.reply

    def is_applied(self, event_id: str, customer_id: str) -> bool:
        """True if a superseded event was applied, or belongs to another customer and so cannot be superseded here."""
        reply = self.reply_of(event_id)
        return reply is not None and (reply.outcome not in _NOT_APPLIED or reply.customer_id != customer_id)

    def count_repeat(self, event_id: str) -> None:
        """Count a repeat of an event that was logged."""
        entry = self._entries[event_id]
        self._entries[event_id] = replace(entry, repeats=entry.repeats + 1)

    def reply_again(self, event_id: str, event: CustomerEvent | None) -> None:
        """Reply to an event as before, also to what it superseded: those replies may be lost as well.

        `event` is None if its content was deleted.
        """
        reply = self.reply_of(event_id)
        if reply is None:
            return
        if event is None:
            self.replies.append(reply)
            return
        superseded = (self.reply_of(superseded.event_id) for superseded in event.supersedes)
        self.replies.append(replace(reply, channel_id=event.channel_id))
        self.replies.extend(
            replace(reply, channel_id=event.channel_id)
            for reply in superseded
            if reply is not None and reply.outcome is Outcome.SUPERSEDED and reply.customer_id == event.customer_id
        )

    def log(
        self,
        event: CustomerEvent,
        row: int,
        outcome: Outcome,
        reasons: tuple[Reason, ...],
        *,
        customer: StoredCustomer | None,
        event_id: str,
    ) -> None:
        """Log and reply the outcome of an event, which is `event_id`: this one, or one that it superseded.

        An event that was rejected or held before is judged once more; its log entry keeps the position of its first
        record. `row` is the event's row in the batch; it does not matter if the event was logged before.
        """
        earlier = self._entries.get(event_id)
        if earlier is not None and (earlier.reply.outcome, earlier.reply.reasons) == (outcome, reasons):
            self.replies.append(replace(earlier.reply, channel_id=event.channel_id))
            return
        reply = Reply(
            channel_id=event.channel_id,
            event_id=event_id,
            customer_id=event.customer_id,
            outcome=outcome,
            reasons=reasons,
            account_number=customer.account_number if customer else None,
            version=customer.version if customer else None,
            answered_at=self.now,
            judgement=earlier.reply.judgement + 1 if earlier else FIRST_JUDGEMENT,
            input_partition=earlier.reply.input_partition if earlier else self.positions.partitions[row],
            input_offset=earlier.reply.input_offset if earlier else self.positions.offsets[row],
        )
        self._entries[event_id] = new_entry(event, reply) if earlier is None else overturned(earlier, reply)
        self.replies.append(reply)

    def reject_duplicate_id(self, event: CustomerEvent, row: int) -> None:
        """Reject an event that has the id of another customer's event. Not logged: the log entry is the other's."""
        text = "Another customer's event has this id: give every event its own id."
        reply = Reply(
            channel_id=event.channel_id,
            event_id=event.event_id,
            customer_id=event.customer_id,
            outcome=Outcome.REJECTED,
            reasons=(Reason(field="event_id", code="duplicate", text=text),),
            answered_at=self.now,
            judgement=FIRST_JUDGEMENT,
            input_partition=self.positions.partitions[row],
            input_offset=self.positions.offsets[row],
        )
        self.replies.append(reply)

    def write(self) -> None:
        """Write what is new and what has changed."""
        write_log(self.headquarters, list(self._entries.values()), self.positions.topic)
