"""Replies to customer events: settle the outbox rows, store account numbers, refresh overlays, write channel events.

Runs within settlement's SQL transaction.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.overlay import erase_customers, refresh_overlays
from tenten.schemas.messages import EventKind, Outcome, Reply, reasons_as_json
from tenten.sql.arrays import pg_array_literal
from tenten.sql.channel_events import EventType, NewEvent, Subject, write_events
from tenten.sql.notifications import SETTLED_CHANNEL
from tenten.sql.postgresql_driver import driver_cursor, driver_of

Row: TypeAlias = dict[str, Any]

_Types: TypeAlias = Mapping[str, str]
"""The types of outbox rows that a reply has changed, by event id."""


def settle_customers(
    connection: Connection, view: ChannelView, replies: Sequence[Reply], at: datetime, also_lock: Iterable[str] = ()
) -> None:
    """Settle customer events by these replies, in order. Idempotent. A fixed number of statements.

    An event that was rejected takes only a reply with a higher judgement number; one that is settled takes none. An
    event that headquarters could not read counts as rejected, and takes every later reply. One that is held takes also
    any final reply, because headquarters counts from the beginning after a restore.
    Locks the customers' rows, in the order of their GUIDs, before it writes the outbox, as a clerk's change does; and
    with them those that the caller is going to write in this transaction.
    """
    touched = {reply.customer_id for reply in replies}
    erased = {reply.customer_id for reply in replies if reply.outcome is Outcome.ERASED}
    numbers = {reply.customer_id: reply.account_number for reply in reversed(replies) if reply.account_number}
    events: dict[str, Reply] = {}
    for reply in replies:
        if reply.event_id not in events or _replaces(reply, events[reply.event_id]):
            events[reply.event_id] = reply
    rows = [_row(reply, at) for reply in events.values()]
    settle = _settle_in_sqlite if connection.dialect.name == "sqlite" else _settle_in_postgresql
    has_base_snapshots, types = settle(connection, touched, touched.union(also_lock), numbers, rows)
    write_events(
        connection, [_event(events[event_id], types[event_id]) for event_id in events if event_id in types], at
    )
    if erased:
        erase_customers(connection, sorted(erased), view.channel_id, at)
    if has_base_snapshots:
        refresh_overlays(connection, sorted(touched - erased), view.filter, view.writers)


_REFUSED: Final = frozenset((Outcome.REJECTED, Outcome.UNREADABLE))
_UNSETTLED: Final = _REFUSED | {Outcome.HELD}
"""Outcomes that leave an event unsettled: the clerk has to act on it, or headquarters."""


def _replaces(reply: Reply, earlier: Reply) -> bool:
    """Whether a reply counts after an earlier one to the same event: the rule of the statements below."""
    if earlier.outcome is Outcome.HELD and reply.outcome is not Outcome.HELD:
        return reply.judgement > 0
    return earlier.outcome in _UNSETTLED and (reply.judgement > earlier.judgement or earlier.judgement == 0)


def _row(reply: Reply, at: datetime) -> Row:
    """A reply as the statements below read it. A rejected event stays unsettled: the clerk has to act on it; and so
    does a held one, which headquarters judges later.
    """
    is_refused = reply.outcome in _REFUSED
    return {
        "event_id": reply.event_id,
        "outcome": (Outcome.REJECTED if is_refused else reply.outcome).lower(),
        "reasons": reasons_as_json(reply.reasons) or None,
        "account_number": reply.account_number,
        "version": reply.version,
        "judgement": reply.judgement,
        "settled_at": None if reply.outcome in _UNSETTLED else at.isoformat(timespec="microseconds"),
    }


_EVENT_TYPES: Final[Mapping[Outcome, EventType]] = {
    Outcome.REJECTED: EventType.REJECTED,
    Outcome.UNREADABLE: EventType.REJECTED,
    Outcome.HELD: EventType.HELD,
    Outcome.ERASED: EventType.ERASED,
}


def _event(reply: Reply, outbox_type: str) -> NewEvent:
    """What this reply to an event of that type has changed. A create that a later event supersedes is answered, too."""
    is_numbered = outbox_type == EventKind.CREATED.type_name and reply.account_number is not None
    accepted = EventType.NUMBERED if is_numbered else EventType.SYNCHRONIZED
    return NewEvent(
        type=_EVENT_TYPES.get(reply.outcome, accepted),
        subject=Subject.CUSTOMER,
        subject_id=reply.customer_id,
        number=reply.account_number,
        codes=tuple(reason.code for reason in reply.reasons),
    )


def _settle_in_postgresql(
    connection: Connection, touched: set[str], locked: set[str], numbers: Mapping[str, str], rows: Sequence[Row]
) -> tuple[bool, _Types]:
    """Whether one of the customers has a base snapshot, and the rows that have changed. Two statements."""
    with driver_cursor(connection) as cursor:
        cursor.execute(
            _LOCK_AND_NUMBER, {"ids": pg_array_literal(locked), "numbers": json.dumps(numbers)}, prepare=True
        )
        replies = {"events": pg_array_literal(row["event_id"] for row in rows), "replies": json.dumps(rows)}
        found = cursor.execute(_SETTLE, {"ids": pg_array_literal(touched), **replies}, prepare=True).fetchone()
        assert found is not None
        return found[0], found[1] or {}


# Lock customers in the order of their GUIDs, and give numbers to those that have none. `locked` is read to its end
# whatever `numbered` needs of it.
_LOCK_AND_NUMBER: Final = """
    WITH locked AS MATERIALIZED (
        SELECT customer_id, account_number FROM customers WHERE customer_id = ANY(%(ids)s::uuid[])
        ORDER BY customer_id FOR NO KEY UPDATE
    ), numbered AS (
        UPDATE customers SET account_number = given.value
        FROM locked JOIN json_each_text(%(numbers)s::json) AS given ON given.key::uuid = locked.customer_id
        WHERE customers.customer_id = ANY(%(ids)s::uuid[]) AND customers.customer_id = locked.customer_id
              AND coalesce(locked.account_number, '') = ''
    )
    SELECT count(*) FROM locked
    """

# Settle events that are not settled yet, notify those who wait, and look for base snapshots. Replies of release 0.1.0
# have no judgement number: the later one counts until a numbered reply arrives. The array makes a plan that was made
# for an empty outbox look rows up by their ids, too.
_SETTLE: Final = f"""
    WITH settled AS (
        UPDATE outbox SET outcome = r.outcome, reasons = r.reasons, account_number = r.account_number,
            version = r.version, judgement = r.judgement, settled_at = r.settled_at
        FROM json_to_recordset(%(replies)s::json) AS r (
            event_id uuid, outcome text, reasons json, account_number text, version bigint, judgement bigint,
            settled_at timestamptz)
        WHERE outbox.id = ANY(%(events)s::uuid[]) AND outbox.id = r.event_id AND outbox.settled_at IS NULL
              AND (r.judgement > outbox.judgement OR outbox.judgement = 0
                   OR outbox.outcome = 'held' AND r.outcome <> 'held' AND r.judgement > 0)
        RETURNING outbox.id, outbox.type
    )
    SELECT EXISTS (SELECT FROM snapshots WHERE customer_id = ANY(%(ids)s::uuid[])),
        (SELECT json_object_agg(id, type) FROM settled), pg_notify('{SETTLED_CHANNEL}', '')
    """  # noqa: S608 - our own constant


def _settle_in_sqlite(
    connection: Connection, touched: set[str], _: set[str], numbers: Mapping[str, str], rows: Sequence[Row]
) -> tuple[bool, _Types]:
    """As in PostgreSQL. A writing transaction has locked all rows already."""
    driver: sqlite3.Connection = driver_of(connection)
    ids = json.dumps([row["event_id"] for row in rows])
    types = dict(driver.execute(_UNSETTLED_TYPES, (ids,)).fetchall())
    for row in rows:
        event_id = row["event_id"]
        if event_id in types:
            settled = driver.execute(_SETTLE_EVENT, {**row, "reasons": _json(row["reasons"])})
            if not settled.rowcount:
                del types[event_id]
    driver.executemany(_STORE_NUMBER, [(number, customer_id) for customer_id, number in numbers.items()])
    return driver.execute(_HAS_BASE_SNAPSHOT, (json.dumps(list(touched)),)).fetchone() is not None, types


def _json(reasons: object) -> str | None:
    return None if reasons is None else json.dumps(reasons, ensure_ascii=False, separators=(",", ":"))


_UNSETTLED_TYPES: Final = """
    SELECT id, type FROM outbox WHERE id IN (SELECT value FROM json_each(?)) AND settled_at IS NULL
    """

# As in PostgreSQL, one event or customer at a time.
_SETTLE_EVENT: Final = """
    UPDATE outbox SET outcome = :outcome, reasons = :reasons, account_number = :account_number, version = :version,
        judgement = :judgement, settled_at = :settled_at
    WHERE id = :event_id AND settled_at IS NULL
        AND (:judgement > judgement OR judgement = 0 OR outcome = 'held' AND :outcome <> 'held' AND :judgement > 0)
    """
_STORE_NUMBER: Final = """
    UPDATE customers SET account_number = ? WHERE customer_id = ? AND coalesce(account_number, '') = ''
    """
_HAS_BASE_SNAPSHOT: Final = """
    SELECT 1 FROM snapshots WHERE customer_id IN (SELECT value FROM json_each(?)) LIMIT 1
    """
