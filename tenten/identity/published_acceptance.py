"""Take back keys and suspensions of channels that headquarters' database lacks, from settings that it has published.

A database that was restored from a backup would otherwise accept nothing of stores that have joined since, or, worse,
what anybody writes in their names without a key; accept keys that were revoked; and end suspensions.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from tenten.identity.channel_changes import By
from tenten.identity.channel_keys import add_channel_key, read_channel_keys, revoke_channel_key
from tenten.identity.keys import kid
from tenten.identity.suspension import change_suspension
from tenten.registry.apply import lock_registry
from tenten.schemas.messages import ChannelSettings
from tenten.schemas.tables.headquarters import channels

SOURCE: Final = "published settings"
"""In the history."""


def take_back(headquarters: Connection, published: Iterable[ChannelSettings], now: datetime) -> list[str]:
    """Take back what the database lacks, and return the channels that this has changed. Idempotent.

    `published`: settings that headquarters itself has published, at most one record a channel. Takes the lock of the
    registry, so it comes first in a transaction.
    """
    lock_registry(headquarters)
    keys = read_channel_keys(headquarters)
    known, valid = {key.kid for key in keys}, {key.channel_id for key in keys if key.revoked_at is None}
    stored = {row.channel_id: row for row in headquarters.execute(_STORED)}
    changed: list[str] = []
    for settings in published:
        channel, row = settings.channel_id, stored.get(settings.channel_id)
        is_newer = row is not None and _is_newer(settings, row)
        is_changed = False
        if settings.public_key is not None and kid(settings.public_key) not in known:
            add_channel_key(headquarters, channel, settings.public_key, operator=None, source=SOURCE, now=now)
            is_changed = True
        elif is_newer and settings.public_key is None and channel in valid:
            revoke_channel_key(headquarters, channel, operator=None, source=SOURCE, now=now)
            is_changed = True
        if is_newer and row is not None and row.suspended_reason != settings.suspended:
            since = None if settings.suspended is None else settings.acceptance_changed_at
            change_suspension(headquarters, channel, since, settings.suspended, By(source=SOURCE))
            is_changed = True
        if is_changed:
            changed.append(channel)
    return sorted(changed)


def _is_newer(settings: ChannelSettings, row: Any) -> bool:
    """Whether key or suspension have changed since the last change that the database has."""
    published, stored = settings.acceptance_changed_at, row.acceptance_changed_at
    return published is not None and (stored is None or published > stored)


_STORED: Final = select(channels.c.channel_id, channels.c.suspended_reason, channels.c.acceptance_changed_at)
