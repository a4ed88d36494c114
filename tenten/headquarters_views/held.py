"""Held events at headquarters: how many, why, and since when."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

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


_REMEDIES = {
    "unknown_channel": "add the channel {subject} to headquarters' settings, and restart its workers",
    "unknown_legal_entity": "add the legal entity {subject} to headquarters' settings, run `tenten database upgrade "
    "headquarters`, and restart its workers",
    "no_number_sequence": "run `tenten database upgrade headquarters` with the legal entity {subject} in its settings",
    "number_sequence_used_up": "give the account numbers of {subject} a longer format, and run `tenten database "
    "upgrade headquarters`",
}


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
            oldest_seconds=max(0, round((now - row.oldest).total_seconds())),
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


def _problem(events: int, first: HeldCause) -> str:
    remedy = _REMEDIES.get(first.code, "see `tenten transactions list`").format(subject=first.subject)
    return f"{events:,} customer events are held, {first.events:,} of them with the reason {first.code}: {remedy}"
