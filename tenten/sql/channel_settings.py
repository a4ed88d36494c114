"""The settings that headquarters has published for a channel, in the channel's own database."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, literal, select, true

from tenten.runtime.settings import Settings
from tenten.runtime.settings.from_headquarters import with_headquarters
from tenten.schemas.messages import ChannelSettings, channel_settings_as_json, channel_settings_from_json
from tenten.schemas.tables.channel import channel_settings, identity
from tenten.sql.upsert import insert_into


class RecordPosition(NamedTuple):
    """The record of `channel-settings` that has the settings."""

    topic_id: str
    offset: int


class StoredSettings(NamedTuple):
    """The settings that a channel has stored, and where they come from."""

    settings: ChannelSettings
    position: RecordPosition


def read_channel_settings(connection: Connection, channel_id: str) -> StoredSettings | None:
    """The stored settings of the channel; None before headquarters has published any."""
    row = connection.execute(select(channel_settings).where(channel_settings.c.channel_id == channel_id)).first()
    if row is None:
        return None
    return StoredSettings(channel_settings_from_json(row.settings), RecordPosition(row.topic_id, row.offset))


def store_channel_settings(
    connection: Connection, settings: ChannelSettings, position: RecordPosition, at: datetime
) -> None:
    """Store the settings of a record, unless a later record of the same topic is stored. Idempotent."""
    columns = channel_settings.c
    new = insert_into(connection, channel_settings).values(
        channel_id=settings.channel_id,
        topic_id=position.topic_id,
        offset=position.offset,
        settings=channel_settings_as_json(settings),
        received_at=at,
    )
    names = [column.name for column in columns if not column.primary_key]
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[columns.channel_id],
            set_={name: new.excluded[name] for name in names},
            where=(columns.topic_id != new.excluded.topic_id) | (columns.offset <= new.excluded.offset),
        )
    )


def settings_in_force(configured: Settings, connection: Connection, channel_id: str) -> Settings:
    """The settings of tenten.toml, with those that headquarters has published for the channel in their place."""
    stored = read_channel_settings(connection, channel_id)
    return with_headquarters(configured, channel_id, None if stored is None else stored.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Whether headquarters accepts the channel's records, as far as the channel knows."""

    own_kid: str | None
    """The id of the channel's key; None before it has joined."""
    kid: str | None
    """The id of the key that headquarters accepts."""
    checks_keys: bool
    """Whether headquarters has published settings, and checks who has written a record."""
    suspended: str | None
    """Why headquarters has suspended the channel; None if it has not."""
    changed_at: str | None
    """When headquarters changed any of it, as published."""
    known_at: datetime | None
    """When the channel learned of its key or of its settings, whichever was later."""

    @property
    def is_key_refused(self) -> bool:
        """Whether headquarters accepts another key than the channel's, or none."""
        return self.checks_keys and self.own_kid is not None and self.own_kid != self.kid

    def key_problem(self, channel_id: str, now: datetime) -> str | None:
        """The sentence about a key that headquarters does not accept; None if it does.

        None also in the first seconds: the key and the settings that name it arrive one after the other.
        """
        if not self.is_key_refused or self.known_at is None or now - self.known_at < KEY_GRACE:
            return None
        command = "enroll" if self.kid is None else "rotate-key"
        return (
            f"headquarters does not accept the key of {channel_id}, so its changes are kept and not sent: let the "
            f"store join again, with `tenten channel {command} {channel_id}` at headquarters, and then "
            "`tenten store join TOKEN` in the store"
        )


KEY_NOT_ACCEPTED: Final = "key_not_accepted"
"""The code of the problem that headquarters does not accept the channel's key."""

SUSPENDED: Final = "suspended"
"""The code of the problem that headquarters has suspended the channel."""


def suspended_text(channel_id: str, reason: str) -> str:
    """The same sentence at headquarters and in the store."""
    return (
        f"headquarters has suspended {channel_id} ({reason}): the store keeps what it records, and sends it after "
        f"`tenten channel resume {channel_id}` at headquarters"
    )


KEY_GRACE: Final = timedelta(seconds=10)
"""How long a key that headquarters does not accept is not a problem yet."""


def read_acceptance(connection: Connection, channel_id: str) -> Acceptance:
    """Whether headquarters accepts the channel's records, in one statement."""
    row = connection.execute(_ACCEPTANCE, {"channel_id": channel_id}).one()
    times = [time for time in (row.joined_at, row.received_at) if time is not None]
    return Acceptance(
        own_kid=row.own_kid,
        kid=row.kid,
        checks_keys=bool(row.checks_keys),
        suspended=row.suspended,
        changed_at=row.changed_at,
        known_at=max(times, default=None),
    )


_PUBLISHED: Final = channel_settings.c.settings

_ACCEPTANCE: Final = select(
    identity.c.kid.label("own_kid"),
    identity.c.joined_at,
    channel_settings.c.received_at,
    _PUBLISHED["kid"].as_string().label("kid"),
    _PUBLISHED["checks_keys"].as_boolean().label("checks_keys"),
    _PUBLISHED["suspended"].as_string().label("suspended"),
    _PUBLISHED["acceptance_changed_at"].as_string().label("changed_at"),
).select_from(
    select(literal(1).label("row"))
    .subquery("always")
    .outerjoin(identity, true())
    .outerjoin(channel_settings, channel_settings.c.channel_id == bindparam("channel_id"))
)
"""One row, also before the channel has a key or settings."""
