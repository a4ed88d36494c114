"""The held events of the customers of a batch, within one SQL transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select, update
from structlog import get_logger

from tenten.consumers.headquarters.customers.held_events import (
    BYTES_MAX,
    CHANNEL_BYTES_MAX,
    CHANNEL_EVENTS_MAX,
    EVENTS_MAX,
    UNKNOWN_CHANNEL,
    HeldEvent,
    Originals,
)
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.schemas.messages import CustomerEvent, Reason, reasons_as_json
from tenten.schemas.tables.headquarters import held_events
from tenten.sql.arrays import is_one_of

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHeldEvent:
    """An event of the batch that is to be held."""

    row: int
    event: CustomerEvent
    reasons: tuple[Reason, ...]


class HeldQueue:
    """The stored events of these customers, and the changes of the table; `write` makes them.

    `answered` are the events that may be deleted when the replies of the batch are on the topic.
    """

    def __init__(self, stored: Iterable[HeldEvent]) -> None:
        self.answered: list[int] = []
        self._unseen: dict[str, list[HeldEvent]] = {}
        """By customer id: what the batch has not looked at."""
        self._stored: dict[str, HeldEvent] = {}
        """By event id: the stored events that are not judged."""
        self._new: dict[str, NewHeldEvent] = {}
        """By event id, in the order of the batch."""
        self._waiting: dict[tuple[str, str], dict[str, tuple[Reason, ...]]] = {}
        """By customer and channel: the reasons of the events that are held, by event id, in their order."""
        self._judged: list[int] = []
        self._erased: list[int] = []
        self._other_reasons: dict[int, tuple[CustomerEvent, tuple[Reason, ...]]] = {}
        for held in stored:
            self._unseen.setdefault(held.customer_id, []).append(held)
            if not held.judged:
                self._stored[held.event_id] = held

    def events(self) -> list[CustomerEvent]:
        """The stored events that are not judged."""
        return [held.event for held in self._stored.values() if held.event is not None]

    def take(self, customer_id: str) -> Sequence[HeldEvent]:
        """The stored events of a customer, in the order in which they arrived; none at the second call."""
        return self._unseen.pop(customer_id, ())

    def has(self, event_id: str) -> bool:
        """Whether the event is held and stored, or will be."""
        return event_id in self._stored or event_id in self._new

    def reasons_before(self, event: CustomerEvent) -> tuple[Reason, ...]:
        """Why an earlier event of the same channel and customer is held; empty if none is.

        An event need not wait for those that it supersedes: it has their changes.
        """
        waiting = self._waiting.get((event.customer_id, event.channel_id))
        if not waiting:
            return ()
        superseded = {earlier.event_id for earlier in event.supersedes}
        return next((reasons for event_id, reasons in waiting.items() if event_id not in superseded), ())

    def reasons_of(self, customer_id: str) -> tuple[Reason, ...]:
        """Why the first event of this customer is held; empty if none is."""
        waiting = (held for (owner, _), held in self._waiting.items() if owner == customer_id)
        return next((reasons for held in waiting for reasons in held.values()), ())

    def stored_reasons(self, event_id: str) -> tuple[Reason, ...]:
        """The reasons of a stored event; empty if it is not stored."""
        stored = self._stored.get(event_id)
        return () if stored is None else stored.reasons

    def hold(self, row: int, event: CustomerEvent, reasons: tuple[Reason, ...]) -> None:
        """Hold an event, and let the later ones of its channel and customer wait behind it. Idempotent."""
        self._waiting.setdefault((event.customer_id, event.channel_id), {})[event.event_id] = reasons
        stored = self._stored.get(event.event_id)
        if stored is None:
            self._new[event.event_id] = NewHeldEvent(row=row, event=event, reasons=reasons)
        elif stored.reasons != reasons:
            self._other_reasons[stored.held_id] = (event, reasons)

    def settle(self, event_id: str, *, is_erased: bool) -> None:
        """Note that an event has another outcome, if it was held."""
        for waiting in self._waiting.values():
            waiting.pop(event_id, None)
        self._new.pop(event_id, None)
        stored = self._stored.pop(event_id, None)
        if stored is not None:
            self._other_reasons.pop(stored.held_id, None)
            (self._erased if is_erased else self._judged).append(stored.held_id)
            self.answered.append(stored.held_id)

    def of_customer(self, customer_id: str) -> list[CustomerEvent]:
        """The events of a customer that are held."""
        new = [held.event for held in self._new.values()]
        return [event for event in (*self.events(), *new) if event.customer_id == customer_id]

    def new_customers(self) -> set[str]:
        """The customers of new held events."""
        return {held.event.customer_id for held in self._new.values()}

    def write(self, headquarters: Connection, positions: RecordPositions, originals: Originals, now: datetime) -> None:
        """Write the changes. The content of events of erased customers is deleted at once."""
        emptied = {"judged_at": now, "value": b"", "headers": [], "bytes": 0}
        for held_ids, values in ((self._judged, {"judged_at": now}), (self._erased, emptied)):
            if held_ids:
                is_judged = is_one_of(headquarters, held_events.c.held_id, held_ids)
                headquarters.execute(update(held_events).where(is_judged).values(values))
        if self._other_reasons:
            changed = [(held_id, _reason_columns(*held)) for held_id, held in self._other_reasons.items()]
            headquarters.execute(
                _UPDATE_REASONS,
                [
                    {"of": held_id, **{f"new_{name}": value for name, value in columns.items()}}
                    for held_id, columns in changed
                ],
            )
        if self._new:
            self._insert(headquarters, positions, originals, now)

    def _insert(
        self, headquarters: Connection, positions: RecordPositions, originals: Originals, now: datetime
    ) -> None:
        """Insert the new events, as far as the limits allow."""
        room = _Room(headquarters)
        rows = []
        for event_id, held in self._new.items():
            original = originals(held.row)
            size = len(original.value) + sum(len(name) + len(value or b"") for name, value in original.headers)
            if not room.takes(held.event.channel_id, size):
                continue
            rows.append(
                {
                    "event_id": event_id,
                    "customer_id": held.event.customer_id,
                    "channel_id": held.event.channel_id,
                    **_reason_columns(held.event, held.reasons),
                    "topic": positions.topic,
                    "partition": positions.partitions[held.row],
                    "offset": positions.offsets[held.row],
                    "value": original.value,
                    "headers": [[name, None if value is None else value.hex()] for name, value in original.headers],
                    "bytes": size,
                    "held_at": now,
                }
            )
        if rows:
            headquarters.execute(insert(held_events), rows)


def waits_for(event: CustomerEvent, reasons: Sequence[Reason]) -> tuple[str, str]:
    """The code of the first reason, and the channel or legal entity that must change."""
    code = reasons[0].code
    if code == UNKNOWN_CHANNEL or event.customer is None:
        return code, event.channel_id
    return code, event.customer.legal_entity


def _reason_columns(event: CustomerEvent, reasons: Sequence[Reason]) -> dict[str, Any]:
    code, subject = waits_for(event, reasons)
    return {"reasons": reasons_as_json(reasons), "code": code, "subject": subject}


_UPDATE_REASONS: Final = (
    update(held_events)
    .where(held_events.c.held_id == bindparam("of"))
    .values(reasons=bindparam("new_reasons"), code=bindparam("new_code"), subject=bindparam("new_subject"))
)


class _Room:
    """How much may still be held, by channel and in all."""

    def __init__(self, headquarters: Connection) -> None:
        channel = held_events.c.channel_id
        query = select(channel, func.count().label("events"), func.sum(held_events.c.bytes).label("bytes"))
        rows = headquarters.execute(query.group_by(channel))
        self._held = {row.channel_id: [row.events, int(row.bytes)] for row in rows}
        self._events = sum(events for events, _ in self._held.values())
        self._bytes = sum(size for _, size in self._held.values())

    def takes(self, channel_id: str, size: int) -> bool:
        """Whether another event of this size may be held; counts it then."""
        held = self._held.setdefault(channel_id, [0, 0])
        if held[0] >= CHANNEL_EVENTS_MAX or held[1] + size > CHANNEL_BYTES_MAX:
            _warn_once("channel", channel_id)
            return False
        if self._events >= EVENTS_MAX or self._bytes + size > BYTES_MAX:
            _warn_once("all", channel_id)
            return False
        held[0] += 1
        held[1] += size
        self._events += 1
        self._bytes += size
        return True


_warned: Final[set[str]] = set()
"""The limits that this process has warned about."""


def _warn_once(limit: str, channel_id: str) -> None:
    key = f"{limit}/{channel_id}" if limit == "channel" else limit
    if key not in _warned and len(_warned) < 1_000:
        _warned.add(key)
        log.warning("held_events_limit_reached", limit=limit, channel=channel_id)
