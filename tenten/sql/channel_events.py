"""Events of a channel: what headquarters' replies have changed, for those who follow it (`GET /v1/events`).

An event is written in the SQL transaction that it tells of. A reader that asks again and again for the events after the
last one that it has seen misses none: every writer first updates the single row of `channel_event_state`, whose lock
it has until its commit is visible, so sequences become visible in their order.

Sequences follow the clock, in microseconds. Where a database was put back to an older copy, new events have higher
sequences than those that a reader saw before.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from tenten.schemas.tables.channel import channel_event_state, channel_events
from tenten.schemas.tables.types import as_sqlite_time
from tenten.sql.postgresql_driver import driver_cursor, driver_of

EVENTS_MAX: Final = 100_000
EVENT_DAYS_KEPT: Final = 7
"""Older events are deleted, and those before the newest `EVENTS_MAX`."""

_PRUNED_ROWS: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class EventType(StrEnum):
    """What has happened."""

    NUMBERED = "numbered"
    """Headquarters has accepted a new customer: it has its account number."""
    SYNCHRONIZED = "synchronized"
    """Headquarters has accepted another change of a customer."""
    ERASED = "erased"
    POSTED = "posted"
    """An order or a sale has its sales order; the sales of an end of day are posted."""
    WAITING = "waiting"
    BLOCKED = "blocked"
    REJECTED = "rejected"
    HELD = "held"


class Subject(StrEnum):
    """What an event is about."""

    CUSTOMER = "customer"
    ORDER = "order"
    SALE = "sale"
    END_OF_DAY = "end_of_day"

    @classmethod
    def of_kind(cls, kind: str) -> "Subject":
        """By the kind of a transaction, as the table `transactions` has it."""
        return cls.ORDER if kind == "order" else cls.SALE


class NewEvent(NamedTuple):
    """An event to write."""

    type: EventType
    subject: Subject
    subject_id: str
    number: str | None = None
    """The account number of a customer, the sales order of an order or a sale."""
    codes: tuple[str, ...] = ()
    """The codes of the reasons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEvent:
    """An event of the channel, without personal data."""

    sequence: int
    type: EventType
    subject: Subject
    subject_id: str
    number: str | None
    codes: tuple[str, ...]
    at: datetime


class EventBounds(NamedTuple):
    """Which events the database has."""

    last_sequence: int
    """Of the newest event."""
    pruned_to: int
    """Events up to this sequence may be deleted."""

    def has_all_after(self, sequence: int) -> bool:
        """Whether a reader that has seen this event can go on behind it: no later one was deleted, and the database was
        not put back to a copy before it.
        """
        return self.pruned_to <= sequence <= self.last_sequence


def write_events(connection: Connection, events: Sequence[NewEvent], at: datetime) -> None:
    """Write events in this order, visible with the transaction. A fixed number of statements."""
    if not events:
        return
    clock = (at - _EPOCH) // _MICROSECOND
    if connection.dialect.name == "sqlite":
        driver = driver_of(connection)
        driver.execute(_NEXT_SQLITE, (clock, len(events)))
        first = driver.execute(_LAST_SQLITE).fetchone()[0] - len(events) + 1
        time = as_sqlite_time(at)
        driver.executemany(_INSERT_SQLITE, [_row(event, first + place, time) for place, event in enumerate(events)])
        return
    rows = [
        {**event._asdict(), "codes": event.codes or None, "place": place} for place, event in enumerate(events, start=1)
    ]
    with driver_cursor(connection) as cursor:
        parameters = {"clock": clock, "count": len(events), "at": at, "events": json.dumps(rows)}
        cursor.execute(_WRITE_POSTGRESQL, parameters, prepare=True)


def _row(event: NewEvent, sequence: int, time: str) -> tuple[object, ...]:
    codes = json.dumps(event.codes) if event.codes else None
    # Of subclasses of str, such as an enum, the driver asks how they are stored: ten times the work.
    return (sequence, event.type.value, event.subject.value, event.subject_id, event.number, codes, time)


_WRITE_POSTGRESQL: Final = """
    WITH numbered AS (
        UPDATE channel_event_state SET last_sequence = greatest(last_sequence, %(clock)s::bigint) + %(count)s::bigint
        RETURNING last_sequence
    )
    INSERT INTO channel_events (sequence, type, subject, subject_id, number, codes, at)
    SELECT numbered.last_sequence - %(count)s::bigint + e.place, e.type, e.subject, e.subject_id, e.number, e.codes,
        %(at)s
    FROM numbered, json_to_recordset(%(events)s::json) AS e
        (place bigint, type text, subject text, subject_id uuid, number text, codes json)
    """
_NEXT_SQLITE: Final = "UPDATE channel_event_state SET last_sequence = max(last_sequence, ?) + ?"
_LAST_SQLITE: Final = "SELECT last_sequence FROM channel_event_state"
_INSERT_SQLITE: Final = """
    INSERT INTO channel_events (sequence, type, subject, subject_id, number, codes, at) VALUES (?, ?, ?, ?, ?, ?, ?)
    """


def event_bounds(connection: Connection) -> EventBounds:
    """Which events the database has."""
    query = select(channel_event_state.c.last_sequence, channel_event_state.c.pruned_to)
    row = connection.execute(query).one()
    return EventBounds(row.last_sequence, row.pruned_to)


def events_after(connection: Connection, sequence: int, limit: int) -> list[ChannelEvent]:
    """The first events after this sequence, at most `limit`."""
    query = select(channel_events).where(channel_events.c.sequence > sequence)
    rows = connection.execute(query.order_by(channel_events.c.sequence).limit(limit)).mappings()
    return [
        ChannelEvent(
            sequence=row["sequence"],
            type=EventType(row["type"]),
            subject=Subject(row["subject"]),
            subject_id=row["subject_id"],
            number=row["number"],
            codes=tuple(row["codes"] or ()),
            at=row["at"],
        )
        for row in rows
    ]


def prune_events(connection: Connection, now: datetime) -> int:
    """Delete some of the events that are too old or too many; how many. On a connection that commits each statement.

    They are declared deleted before they are, so that no reader misses them unnoticed.
    """
    oldest = (now - timedelta(days=EVENT_DAYS_KEPT) - _EPOCH) // _MICROSECOND
    newest_first = select(channel_events.c.sequence).order_by(channel_events.c.sequence.desc())
    surplus: Any = connection.scalar(newest_first.offset(EVENTS_MAX).limit(1)) or 0
    too_many = channel_events.c.sequence <= max(oldest, surplus)
    first = select(channel_events.c.sequence).where(too_many).order_by(channel_events.c.sequence).limit(_PRUNED_ROWS)
    last = connection.scalar(select(func.max(first.subquery().c.sequence)))
    if last is None:
        return 0
    raised = update(channel_event_state).where(channel_event_state.c.pruned_to < last)
    connection.execute(raised.values(pruned_to=last))
    return connection.execute(delete(channel_events).where(channel_events.c.sequence <= last)).rowcount
