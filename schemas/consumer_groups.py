"""Names of consumer groups, without the prefix of the settings."""

from typing import Final

HEADQUARTERS_GROUP: Final = "headquarters"
"""The group of the customers workers, and the one that other consumers at headquarters name, which never join it."""

TRANSACTIONS_GROUP: Final = "transactions"
"""The group of the transactions workers."""

CHANNEL_GROUP: Final = "channel.{channel}"
"""The group of a channel's settlement, distribution and resync; `{channel}` is replaced by the channel's name."""
