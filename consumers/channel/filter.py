"""Which customers a channel has, by its configuration."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tenten.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFilter:
    """Accepts the customers of one legal entity in at least one of the channel's address books.

    A channel without address books accepts its whole legal entity; a customer without any is accepted everywhere.
    """

    legal_entity: str
    address_books: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings, channel_name: str) -> "ChannelFilter":
        """The filter of a channel. Raises: `SettingsError` for one without settings."""
        channel = settings.with_legal_entity(channel_name)
        return cls(legal_entity=channel.legal_entity, address_books=channel.address_books)

    def text(self) -> str:
        """The filter as JSON; equal for filters that accept the same customers."""
        return json.dumps({"legal_entity": self.legal_entity, "address_books": sorted({*self.address_books})})

    def accepts(self, legal_entity: str, address_books: Sequence[str]) -> bool:
        """Whether a customer of this legal entity and with these address books is accepted."""
        if legal_entity != self.legal_entity:
            return False
        return not self.address_books or not address_books or not set(self.address_books).isdisjoint(address_books)
