"""The settings that headquarters has published for a channel, in the channel's own database."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, select

from tenten.runtime.settings import Settings
from tenten.runtime.settings.from_headquarters import with_headquarters
from tenten.schemas.messages import ChannelSettings, channel_settings_as_json, channel_settings_from_json
from tenten.schemas.tables.channel import channel_settings
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


def read_suspension(connection: Connection, channel_id: str) -> str | None:
    """Why headquarters accepts no records of the channel at the moment, as far as the channel knows; None: it does."""
    reason = channel_settings.c.settings["suspended"].as_string()
    return connection.scalar(select(reason).where(channel_settings.c.channel_id == channel_id))
