"""Held events at headquarters: how many, which, why, and since when."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from tenten.headquarters_views.list_positions import ListPosition
from tenten.schemas.tables.headquarters import held_events


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCause:
    """The events that are held for one cause."""

    code: str
    """The code of the reason."""
    subject: str
    """The channel or the legal entity that must change."""
    events: int
    oldest_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStatus:
    """All events that headquarters cannot judge yet."""

    events: int
    oldest_seconds: int | None
    """None if none is held."""
    causes: tuple[HeldCause, ...]
    """The one with the most events first."""
    problem: str | None
    """What to do about the first cause; None if nothing is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldEventView:
    """One held event. Nothing of its customer but the id."""

    event_id: str
    customer_id: str
    channel_id: str
    code: str
    """The code of the reason."""
    subject: str
    """The channel or the legal entity that must change."""
    held_at: datetime
    seconds: int
    """How long it has been held."""
    is_to_be_rejected: bool
    """A person has decided so, and the worker has not done it yet."""


_CAUSES = {
    "unknown_channel": (
        "headquarters does not have the channel {subject}",
        "add it to the settings (`tenten settings apply FILE`)",
    ),
    "unknown_legal_entity": (
        "headquarters does not have the legal entity {subject}",
        "add it to the settings (`tenten settings apply FILE`)",
    ),
    "no_number_sequence": (
        "the legal entity {subject} has no account numbers",
        "run `tenten settings apply FILE` with it in the file",
    ),
    "number_sequence_used_up": (
        "the account numbers of {subject} are used up",
        "give them a longer format (`tenten settings apply FILE`)",
    ),
}
"""Cause and remedy by code of the reason, each a part of a sentence."""


def held_status(headquarters: Connection) -> HeldStatus:
    """Count the held events by cause. Reads headquarters' database only."""
    columns = held_events.c
    query = (
        select(columns.code, columns.subject, func.count().label("events"), func.min(columns.held_at).label("oldest"))
        .where(columns.judged_at.is_(None))
        .group_by(columns.code, columns.subject)
        .order_by(func.count().desc(), columns.code, columns.subject)
    )
    now = datetime.now(UTC)
    causes = tuple(
        HeldCause(
            code=row.code,
            subject=row.subject,
            events=row.events,
            oldest_seconds=_seconds(row.oldest, now),
        )
        for row in headquarters.execute(query)
    )
    events = sum(cause.events for cause in causes)
    return HeldStatus(
        events=events,
        oldest_seconds=max((cause.oldest_seconds for cause in causes), default=None),
        causes=causes,
        problem=_problem(events, causes[0]) if causes else None,
    )


def list_held(
    headquarters: Connection,
    *,
    channel: str | None,
    code: str | None,
    older_than_seconds: int,
    events_max: int,
    behind: ListPosition | None = None,
) -> list[HeldEventView]:
    """The held events that match, the oldest first; those behind a position, if it is given."""
    columns, now = held_events.c, datetime.now(UTC)
    shown = ("event_id", "customer_id", "channel_id", "code", "subject", "held_at", "rejection")
    query = select(*(columns[name] for name in shown)).where(
        columns.judged_at.is_(None), columns.held_at <= now - timedelta(seconds=older_than_seconds)
    )
    if channel is not None:
        query = query.where(columns.channel_id == channel)
    if code is not None:
        query = query.where(columns.code == code)
    if behind is not None:
        query = query.where(behind.is_before(columns.held_at, columns.event_id))
    return [
        HeldEventView(
            event_id=row.event_id,
            customer_id=row.customer_id,
            channel_id=row.channel_id,
            code=row.code,
            subject=row.subject,
            held_at=row.held_at,
            seconds=_seconds(row.held_at, now),
            is_to_be_rejected=row.rejection is not None,
        )
        for row in headquarters.execute(query.order_by(columns.held_at, columns.event_id).limit(events_max))
    ]


def _seconds(since: datetime, now: datetime) -> int:
    return max(0, round((now - since).total_seconds()))


def _problem(events: int, first: HeldCause) -> str:
    cause, remedy = _CAUSES.get(first.code, (first.code.replace("_", " "), "see `tenten headquarters held list`"))
    held = "1 change is held" if events == 1 else f"{events:,} changes are held"
    share = "" if first.events == events else f"{first.events:,} of them because "
    return f"{held}: {share}{cause}; {remedy}".format(subject=first.subject)
