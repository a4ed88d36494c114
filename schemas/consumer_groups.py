"""Names of consumer groups, without the prefix of the settings."""

from typing import Final

CHANNEL_GROUP: Final = "channel.{channel}"
"""The group of a channel's settlement, distribution and resync; `{channel}` is replaced by the channel's name."""
