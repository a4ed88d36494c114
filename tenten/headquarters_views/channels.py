"""A channel at headquarters: its settings, its keys and the tokens with which stores join."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from tenten.schemas.tables.headquarters import channel_keys, channel_tokens, channels


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOfChannel:
    """A key that the channel has or had."""

    kid: str
    added_at: datetime
    added_by: str | None
    added_from: str
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOfChannel:
    """A token that was made for the channel. Nothing of its secret."""

    token_id: str
    enrolled_at: datetime
    enrolled_by: str | None
    expires_at: datetime
    used_at: datetime | None
    used_from: str | None
    withdrawn_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelAtHeadquarters:
    """Everything that headquarters has of a channel."""

    channel_id: str
    settings: Mapping[str, Any]
    suspended_at: datetime | None
    suspended_reason: str | None
    keys: tuple[KeyOfChannel, ...]
    """The newest first, as the tokens."""
    tokens: tuple[TokenOfChannel, ...]


_NOT_SETTINGS = ("channel_id", "suspended_at", "suspended_reason", "acceptance_changed_at", "changed_at")


def find_channel(headquarters: Connection, channel_id: str) -> ChannelAtHeadquarters | None:
    """The channel of this name; None if headquarters does not have it."""
    row = headquarters.execute(select(channels).where(channels.c.channel_id == channel_id)).mappings().first()
    if row is None:
        return None
    keys = select(channel_keys).where(channel_keys.c.channel_id == channel_id)
    tokens = select(channel_tokens).where(channel_tokens.c.channel_id == channel_id)
    key_rows = headquarters.execute(keys.order_by(channel_keys.c.added_at.desc())).mappings()
    token_rows = headquarters.execute(tokens.order_by(channel_tokens.c.enrolled_at.desc())).mappings()
    return ChannelAtHeadquarters(
        channel_id=channel_id,
        settings={name: value for name, value in row.items() if name not in _NOT_SETTINGS},
        suspended_at=row["suspended_at"],
        suspended_reason=row["suspended_reason"],
        keys=tuple(KeyOfChannel(**{name: key[name] for name in KeyOfChannel.__slots__}) for key in key_rows),
        tokens=tuple(
            TokenOfChannel(**{name: token[name] for name in TokenOfChannel.__slots__}) for token in token_rows
        ),
    )
