"""Which customers a channel has, by its configuration."""

import json
from dataclasses import dataclass

from tenten.rules.channel_filter import FilterRule
from tenten.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFilter(FilterRule):
    """The rule of a channel, with its settings and its text in the channel's database."""

    @classmethod
    def of(cls, settings: Settings, channel_name: str) -> "ChannelFilter":
        """The filter of a channel. Raises: `SettingsError` for one without settings."""
        channel = settings.with_legal_entity(channel_name)
        return cls(
            legal_entity=channel.legal_entity,
            address_books=channel.address_books,
            offline_customers=channel.offline_customers,
        )

    def text(self) -> str:
        """The filter as JSON; equal for filters that accept the same customers."""
        customers = {} if self.offline_customers == "all" else {"customers": self.offline_customers}
        return json.dumps(
            {"legal_entity": self.legal_entity, "address_books": sorted({*self.address_books}), **customers}
        )
