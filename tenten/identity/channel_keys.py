"""The public keys of channels, in headquarters' database. Each change is one of the registry, so workers notice it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from tenten.identity.channel_changes import note_acceptance
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.keys import kid, record_key
from tenten.registry.apply import lock_registry, record_changes
from tenten.registry.values import CHANNELS, Change, Differences
from tenten.runtime.errors import KeyNotAccepted
from tenten.schemas.tables.headquarters import channel_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelKey:
    """A key that a channel has or had."""

    kid: str
    channel_id: str
    public_key: bytes
    revoked_at: datetime | None
    """None while it is valid."""


def read_channel_keys(headquarters: Connection, channel_id: str | None = None) -> list[ChannelKey]:
    """The keys of a channel, or of all, also revoked ones; oldest first."""
    query = select(channel_keys).order_by(channel_keys.c.added_at, channel_keys.c.kid)
    if channel_id is not None:
        query = query.where(channel_keys.c.channel_id == channel_id)
    return [_channel_key(row) for row in headquarters.execute(query)]


def valid_key(headquarters: Connection, channel_id: str) -> ChannelKey | None:
    """The valid key of a channel; None if it has none."""
    query = select(channel_keys).where(channel_keys.c.channel_id == channel_id, channel_keys.c.revoked_at.is_(None))
    row = headquarters.execute(query).one_or_none()
    return None if row is None else _channel_key(row)


def add_channel_key(
    headquarters: Connection,
    channel_id: str,
    public_key: bytes,
    *,
    operator: str | None,
    source: str,
    now: datetime,
) -> ChannelKey:
    """Make this the valid key of the channel, and revoke the one before. Idempotent.

    `source` is the command, or another way on which the key came. Takes the lock of the registry, so it comes first in
    a transaction. Raises: `KeyNotAccepted` for a key that was revoked, is that of another channel or of
    headquarters, or is not valid.
    """
    lock_registry(headquarters)
    _check(headquarters, public_key)
    new = ChannelKey(kid=kid(public_key), channel_id=channel_id, public_key=public_key, revoked_at=None)
    before = valid_key(headquarters, channel_id)
    if before == new:
        return new
    if headquarters.scalar(select(channel_keys.c.kid).where(channel_keys.c.kid == new.kid)) is not None:
        raise KeyNotAccepted(
            f"the key {new.kid} was revoked, or belongs to another channel; a store that joins again makes a new key: "
            f"`tenten channel enroll {channel_id}` prints a token for it"
        )
    if before is not None:
        _revoke(headquarters, before, now)
    headquarters.execute(
        insert(channel_keys).values(
            kid=new.kid,
            channel_id=channel_id,
            public_key=public_key,
            added_at=now,
            added_by=operator,
            added_from=source,
        )
    )
    _record(headquarters, before, new, channel_id, operator=operator, source=source, now=now)
    return new


def revoke_channel_key(
    headquarters: Connection, channel_id: str, *, operator: str | None, source: str, now: datetime
) -> ChannelKey | None:
    """Revoke the valid key of the channel, and return it as it was; None if it has none. Idempotent.

    From now on headquarters accepts no record of the channel until it has another key. Takes the lock of the registry.
    """
    lock_registry(headquarters)
    before = valid_key(headquarters, channel_id)
    if before is not None:
        _revoke(headquarters, before, now)
        _record(headquarters, before, None, channel_id, operator=operator, source=source, now=now)
    return before


def _check(headquarters: Connection, public_key: bytes) -> None:
    """Raises: `KeyNotAccepted` for headquarters' own key, and for a key from which no secret can be derived."""
    own = ensure_headquarters_keys(headquarters)
    if kid(public_key) == kid(own.public_key):
        raise KeyNotAccepted("this is the public key of headquarters itself: a store has a key of its own")
    try:
        record_key(own.private_key, public_key)
    except ValueError as error:
        raise KeyNotAccepted("this is not a valid public key (X25519, 32 bytes)") from error


def _revoke(headquarters: Connection, key: ChannelKey, now: datetime) -> None:
    headquarters.execute(update(channel_keys).where(channel_keys.c.kid == key.kid).values(revoked_at=now))


def _record(
    headquarters: Connection,
    before: ChannelKey | None,
    after: ChannelKey | None,
    channel_id: str,
    *,
    operator: str | None,
    source: str,
    now: datetime,
) -> None:
    """Write the change to the history of the registry, by the ids of the keys."""
    note_acceptance(headquarters, channel_id)
    change = Change(
        setting=f"{CHANNELS}.{channel_id}.key",
        before=None if before is None else before.kid,
        after=None if after is None else after.kid,
    )
    record_changes(headquarters, Differences(changed=(change,)), operator=operator, source=source, now=now)


def _channel_key(row: Any) -> ChannelKey:
    return ChannelKey(
        kid=row.kid, channel_id=row.channel_id, public_key=bytes(row.public_key), revoked_at=row.revoked_at
    )
