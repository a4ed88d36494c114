"""The log entries of the events of a batch within one SQL transaction, and the replies to them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection
from structlog import get_logger

from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.content_hash import content_hash_of, has_content
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

log = get_logger(__name__)

_NOT_APPLIED: Final = frozenset((Outcome.REJECTED, Outcome.HELD))
"""Outcomes of events whose changes a later event has to bring along."""


_ID_CONFLICT: Final = Reason(
    field="event_id", code="duplicate", text="Another event has this id: give every event its own id."
)
"""The reason by which other code recognises replies to events that are not in the log."""


@dataclass(slots=True, kw_only=True)
class EventLog:
    """The log entries of a transaction: those that it has read, and those that `write` adds or changes.

    An event is identified by its id, its customer and its content. The log has one event for each id; another event
    with the same id is a *conflict*: it is rejected, and only counted.
    """

    headquarters: Connection
    positions: RecordPositions
    content_hashes: Sequence[int | None]
    """By row of the batch, as are `positions`."""
    writers: WriterSchemas
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

    def is_repeat(self, event: CustomerEvent, row: int) -> bool:
        """Whether an event whose id is logged is the logged event.

        Where the content of the logged event is not known, an event of the same customer and channel is a repeat.
        """
        entry = self._entries[event.event_id]
        if entry.reply.customer_id != event.customer_id:
            return False
        if entry.content_hash is None:
            # A superseded event that has not arrived is logged with the channel of the later one.
            return entry.reply.outcome is Outcome.SUPERSEDED or entry.reply.channel_id == event.channel_id
        given = content_hash_of(event, self.content_hashes[row])
        return given == entry.content_hash or has_content(event, entry.content_hash, self.writers)

    def count_repeat(self, event: CustomerEvent, row: int) -> None:
        """Count a repeat of an event that was logged; a superseded one may have arrived for the first time."""
        entry = self._entries[event.event_id]
        given = entry.content_hash
        if given is None and entry.reply.outcome is Outcome.SUPERSEDED:
            given = content_hash_of(event, self.content_hashes[row])
        self._entries[event.event_id] = replace(entry, repeats=entry.repeats + 1, content_hash=given)

    def reject_conflict(self, event: CustomerEvent, row: int) -> None:
        """Reject an event with the id of another event, whose log entry stays as it is."""
        entry = self._entries[event.event_id]
        self._entries[event.event_id] = replace(entry, conflicts=entry.conflicts + 1)
        self.replies.append(
            Reply(
                channel_id=event.channel_id,
                event_id=event.event_id,
                customer_id=event.customer_id,
                outcome=Outcome.REJECTED,
                reasons=(_ID_CONFLICT,),
                answered_at=self.now,
                judgement=FIRST_JUDGEMENT,
                input_partition=self.positions.partitions[row],
                input_offset=self.positions.offsets[row],
            )
        )
        log.warning(
            "event_id_conflicted",
            event_id=event.event_id,
            channel=event.channel_id,
            first_channel=entry.reply.channel_id,
        )

    def is_applied(self, superseded_id: str, by: CustomerEvent) -> bool:
        """Whether the changes of an event that this one supersedes were applied."""
        reply = self.reply_of(superseded_id)
        return reply is not None and reply.outcome not in _NOT_APPLIED and not self.means_conflict(superseded_id, by)

    def means_conflict(self, superseded_id: str, by: CustomerEvent) -> bool:
        """Whether an event means a conflict by an id that it supersedes, so that the log entry is another event's.

        A store supersedes its own events only.

        Where a channel has given one id to two events of a customer, the second was rejected and is the one to be
        superseded, unless the first was not applied either: then both are.
        """
        entry = self._entries.get(superseded_id)
        if entry is None:
            return False
        if (entry.reply.customer_id, entry.reply.channel_id) != (by.customer_id, by.channel_id):
            return True
        has_conflicts = entry.conflicts + entry.conflicts_before > 0
        return has_conflicts and entry.reply.outcome not in _NOT_APPLIED

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
        if reply.outcome is Outcome.SYNCHRONIZED:
            self.reply_to_superseded_conflicts(event)

    def reply_to_superseded_conflicts(self, event: CustomerEvent) -> None:
        """Reply that the conflicts which a synchronized event supersedes are settled with it."""
        reply = self._entries[event.event_id].reply
        self.replies.extend(
            Reply(
                channel_id=event.channel_id,
                event_id=superseded.event_id,
                customer_id=event.customer_id,
                outcome=Outcome.SUPERSEDED,
                reasons=(_ID_CONFLICT,),
                answered_at=reply.answered_at,
                judgement=FIRST_JUDGEMENT + 1,
                input_partition=reply.input_partition,
                input_offset=reply.input_offset,
            )
            for superseded in event.supersedes
            if self.means_conflict(superseded.event_id, event)
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
        record. `row` is the event's row in the batch, or negative for a stored event, which was logged before.
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
        if earlier is None:
            own_hash = None if row < 0 else content_hash_of(event, self.content_hashes[row])
            self._entries[event_id] = new_entry(event, reply, own_hash)
        else:
            self._entries[event_id] = overturned(earlier, reply)
        self.replies.append(reply)

    def write(self) -> None:
        """Write what is new and what has changed."""
        write_log(self.headquarters, list(self._entries.values()), self.positions.topic)
