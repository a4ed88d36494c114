"""Which customers a channel has, by its configuration."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tenten.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFilter:
    """Accepts the customers of one legal entity in at least one of the channel's address books.

    A channel without address books accepts its whole legal entity; a customer without any is shared, and accepted
    everywhere. A channel may do without shared customers (`own`), or accept none.
    """

    legal_entity: str
    address_books: tuple[str, ...]
    offline_customers: str = "all"

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

    def accepts(self, legal_entity: str, address_books: Sequence[str]) -> bool:
        """Whether a customer of this legal entity and with these address books is accepted."""
        if legal_entity != self.legal_entity or self.offline_customers == "none":
            return False
        if self.offline_customers == "all" and not (self.address_books and address_books):
            return True
        return not set(self.address_books).isdisjoint(address_books)
