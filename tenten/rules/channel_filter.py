"""Which customers a channel receives, by its legal entity and address books."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRule:
    """Accepts the customers of one legal entity in at least one of the channel's address books.

    A channel without address books accepts its whole legal entity; a customer without any is shared, and accepted
    everywhere. A channel may do without shared customers (`own`), or accept none.
    """

    legal_entity: str
    address_books: tuple[str, ...]
    offline_customers: str = "all"

    def accepts(self, legal_entity: str, address_books: Collection[str]) -> bool:
        """Whether a customer of this legal entity and with these address books is accepted."""
        if legal_entity != self.legal_entity or self.offline_customers == "none":
            return False
        if self.offline_customers == "all" and not (self.address_books and address_books):
            return True
        return not set(self.address_books).isdisjoint(address_books)
