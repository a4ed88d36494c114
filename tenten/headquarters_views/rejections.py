"""Rejected customer events at headquarters, by reason and channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, String, cast, func, select

from tenten.headquarters_views.list_positions import ListPosition
from tenten.schemas.tables.headquarters import synchronization_log

_REJECTED: Final = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedEvent:
    """An event that headquarters has rejected. Nothing of its customer but the id."""

    event_id: str
    customer_id: str
    channel_id: str
    kind: str
    reasons: Sequence[Mapping[str, str]]
    """Each with field, code and text."""
    operator: str | None
    occurred_at: datetime
    """By the channel's clock."""
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedCount:
    """The events that were rejected for one first reason in one channel."""

    code: str
    channel_id: str
    events: int


def list_rejected(
    headquarters: Connection,
    *,
    channel: str | None,
    code: str | None,
    days: int,
    events_max: int,
    behind: ListPosition | None = None,
) -> list[RejectedEvent]:
    """The events that were rejected in the last days, the newest first, of this channel and first reason if given;
    those behind a position, if it is given.
    """
    log = synchronization_log.c
    query = select(synchronization_log).where(*_recent(days))
    if channel is not None:
        query = query.where(log.channel_id == channel)
    if code is not None:
        query = query.where(_code() == code)
    if behind is not None:
        query = query.where(behind.is_after(log.received_at, log.event_id))
    query = query.order_by(log.received_at.desc(), log.event_id.desc()).limit(events_max)
    rows = headquarters.execute(query).mappings()
    return [RejectedEvent(**{name: row[name] for name in RejectedEvent.__slots__}) for row in rows]


def count_rejected(headquarters: Connection, *, days: int) -> list[RejectedCount]:
    """How many events were rejected in the last days, by first reason and channel; the most frequent first."""
    code, channel, events = _code().label("code"), synchronization_log.c.channel_id, func.count().label("events")
    query = select(code, channel, events).where(*_recent(days)).group_by(code, channel)
    rows = headquarters.execute(query.order_by(events.desc(), code, channel)).mappings()
    return [RejectedCount(**{**row, "code": row["code"] or ""}) for row in rows]


def _recent(days: int) -> tuple[ColumnElement[bool], ...]:
    log = synchronization_log.c
    return log.outcome == _REJECTED, log.received_at > datetime.now(UTC) - timedelta(days=days)


def _code() -> ColumnElement[Any]:
    """The code of the first reason."""
    return cast(synchronization_log.c.reasons[0]["code"].as_string(), String)
