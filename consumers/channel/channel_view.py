"""The identity of a channel, for the code that writes its customers."""

from dataclasses import dataclass

from tenten.avro.wire import WriterSchemas
from tenten.consumers.channel.filter import ChannelFilter
from tenten.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelView:
    """A channel's id, its filter, and the writer schemas of the records that it reads."""

    channel_id: str
    filter: ChannelFilter
    writers: WriterSchemas

    @classmethod
    def of(cls, settings: Settings, channel_name: str, writers: WriterSchemas) -> "ChannelView":
        """The channel of that name. Raises: `SettingsError`."""
        return cls(channel_id=channel_name, filter=ChannelFilter.of(settings, channel_name), writers=writers)
