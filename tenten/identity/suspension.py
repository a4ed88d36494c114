"""The suspension of channels, in headquarters' database: their records are not accepted until it ends."""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, select, update

from tenten.identity.channel_changes import By, changing_channel, note_acceptance, note_change
from tenten.runtime.errors import SettingsError
from tenten.schemas.tables.headquarters import channels

REASON_CHARACTERS_MAX: Final = 200


def suspend(engine: Engine, channel_id: str, reason: str, by: By) -> datetime:
    """Suspend a channel, and return since when it is suspended. Another reason replaces the one before. Idempotent.

    Raises: as `changing_channel`; `SettingsError` for a reason that is empty or too long.
    """
    reason = reason.strip()
    if not reason or len(reason) > REASON_CHARACTERS_MAX or not reason.isprintable():
        raise SettingsError(f"give a reason of one line, at most {REASON_CHARACTERS_MAX} characters")
    with changing_channel(engine, channel_id, by) as headquarters:
        before = _suspension(headquarters, channel_id)
        since: datetime = before.suspended_at or datetime.now(UTC)
        if before.suspended_reason != reason:
            change_suspension(headquarters, channel_id, since, reason, by)
        return since


def resume(engine: Engine, channel_id: str, by: By) -> bool:
    """End the suspension of a channel; whether it was suspended. Idempotent. Raises: as `changing_channel`."""
    with changing_channel(engine, channel_id, by) as headquarters:
        before = _suspension(headquarters, channel_id)
        if before.suspended_at is None:
            return False
        change_suspension(headquarters, channel_id, None, None, by)
        return True


def change_suspension(
    headquarters: Connection, channel_id: str, since: datetime | None, reason: str | None, by: By
) -> None:
    """Begin a suspension, give it another reason, or end it (both None), with its entry in the history.

    In a transaction that has the lock of the registry.
    """
    before = _suspension(headquarters, channel_id).suspended_reason
    row = update(channels).where(channels.c.channel_id == channel_id)
    headquarters.execute(row.values(suspended_at=since, suspended_reason=reason))
    note_acceptance(headquarters, channel_id)
    note_change(headquarters, f"{channel_id}.suspended", by, before=before, after=reason)


def _suspension(headquarters: Connection, channel_id: str) -> Any:
    columns = select(channels.c.suspended_at, channels.c.suspended_reason)
    return headquarters.execute(columns.where(channels.c.channel_id == channel_id)).one()
