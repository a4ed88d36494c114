"""A clerk's search: by account number, phone number, e-mail address, loyalty card or name."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, Select, and_, literal, literal_column, or_, select

from tenten.producers.till.customers import CustomerView, reading, views
from tenten.producers.till.loyalty import could_be_card, holders_of, normal_card_number, owners_of
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules.customer import fold_for_search
from tenten.rules.customer_rules import normal_email, normal_phone
from tenten.schemas.tables.channel import customer_contacts, customers

LIMIT_MAX: Final = 1_000
_WORDS_MAX: Final = 8
_LAST_CHARACTER: Final = "\U0010ffff"


def search_customers(channel: OpenChannel, text: str, limit: int = 50) -> list[CustomerView]:
    """The customers that the text finds, best first, at most `limit` (and 1,000).

    First those with this account number, phone number (written in any way), e-mail address or loyalty card; then those
    in whose names each word of the text begins a word, in any order and whatever the case: the full name first, then
    names that begin with the words as they stand, then by name. An empty text finds nobody. Raises: `DatabaseRefused`.
    """
    limit = min(limit, LIMIT_MAX)
    text = text.replace("\x00", " ")
    words = _words(text)
    if not words or limit < 1:
        return []
    with reading(channel) as connection:
        found = _by_value(connection, text.strip(), channel.country, limit)
        if not found and could_be_card(text):
            # Of a card that was issued elsewhere, the customer's attributes alone tell.
            found = holders_of(connection, normal_card_number(text))
        if len(found) < limit:
            found += [one for one in _by_name(connection, words, limit) if one not in set(found)]
        return views(connection, found[:limit])


def _words(text: str) -> list[str]:
    return fold_for_search(text).replace(",", " ").split()[:_WORDS_MAX]


def _by_value(connection: Connection, text: str, country: str, limit: int) -> list[str]:
    """The ids of customers with this account number, phone number, e-mail address or loyalty card of this channel."""
    numbers = select(customers.c.customer_id).where(customers.c.account_number.in_({text, text.upper()})).limit(limit)
    values = {value for value in (normal_phone(text, country), normal_email(text)) if value}
    contacts = select(customer_contacts.c.customer_id).where(customer_contacts.c.value.in_(values)).limit(limit)
    found = [*connection.scalars(numbers), *(connection.scalars(contacts) if values else ())]
    return list(dict.fromkeys([*found, *owners_of(connection, normal_card_number(text))]))


def _by_name(connection: Connection, words: Sequence[str], limit: int) -> list[str]:
    """The ids of customers with these names, best first."""
    # Names that begin with one of the words: a range of the index for each.
    leading = [and_(_begins(connection, word), *_contain(words)) for word in words]
    found = [(row.customer_id, row.search_name) for row in connection.execute(_names(connection, or_(*leading), limit))]
    if len(found) < limit:
        # Then all others: reads every name until there are enough.
        others = connection.execute(_names(connection, and_(*_contain(words)), limit))
        found += [(row.customer_id, row.search_name) for row in others]
    typed = " ".join(words)

    def rank(row: tuple[str, str]) -> tuple[bool, bool, str]:
        name = row[1]
        return name != typed, not name.startswith(typed), name

    return list(dict.fromkeys(customer_id for customer_id, _ in sorted(found, key=rank)))


def _names(connection: Connection, condition: ColumnElement[bool], limit: int) -> Select[tuple[str, str]]:
    """The first by name, in the order of the index: that of code points."""
    in_order = (
        literal_column("search_name USING ~<~") if connection.dialect.name == "postgresql" else customers.c.search_name
    )
    return select(customers.c.customer_id, customers.c.search_name).where(condition).order_by(in_order).limit(limit)


def _begins(connection: Connection, word: str) -> ColumnElement[bool]:
    """The condition that the names begin with this word, so that the index serves it."""
    name = customers.c.search_name
    if connection.dialect.name == "postgresql":
        return name.startswith(word, autoescape=True)
    return and_(name >= word, name < word + _LAST_CHARACTER)


def _contain(words: Sequence[str]) -> list[ColumnElement[bool]]:
    """For each word the condition that it begins a word of the names."""
    spaced = literal(" ") + customers.c.search_name
    return [spaced.contains(" " + word, autoescape=True) for word in words]
