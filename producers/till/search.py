"""Search customers by account number, reference, phone number, e-mail address, loyalty card or name."""

import re
from collections.abc import Sequence
from typing import Final

import phonenumbers
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
)

from tenten.producers.outbox.table import CUSTOMER
from tenten.producers.till.customer_views import CustomerView, read_views
from tenten.producers.till.database_session import reading
from tenten.producers.till.loyalty import could_be_card, holders_of, normal_card_number, owners_of
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules.contact_points import normal_email, normal_phone
from tenten.rules.customer import fold_for_search
from tenten.rules.reference import ending_of, entered_reference, reference
from tenten.schemas.tables.channel import customer_contacts, customers, outbox

LIMIT_MAX: Final = 1_000
_WORDS_MAX: Final = 8
_CHANGES_OF_A_CUSTOMER: Final = 5
"""As many changes are read for each customer that was changed last."""

_LAST_CHARACTER: Final = "\U0010ffff"
_PHONE_BEGINNING: Final = re.compile(r"\+?[0-9 ()./-]+")
_PHONE_DIGITS_MIN: Final = 5
"""Fewer digits begin too many numbers."""

_NUMBER: Final = re.compile(r"([^0-9]*)([0-9]+)")
_APOSTROPHES: Final = ("'", "\u2019")


def search_customers(channel: OpenChannel, text: str, limit: int = 50) -> list[CustomerView]:
    """The customers that match the text, best first, at most `limit` (and at most 1,000).

    First, customers with this account number (its leading zeros may be missing), phone number (in any format), e-mail
    address or loyalty card, or with a phone number or an e-mail address that begins like this, and
    those without a number or changed here lately that have this reference; then,
    customers in whose names some word begins with each word of the text, in any order and case, with or without
    apostrophes: exact full names first, then names that begin with the text, then by name. An empty text matches no
    customer. Raises: `DatabaseRefused`.
    """
    limit = min(limit, LIMIT_MAX)
    with reading(channel) as connection:
        return read_views(connection, _matching_ids(connection, channel, text, limit))


def search_page(channel: OpenChannel, text: str, limit: int, first: int = 0) -> tuple[list[CustomerView], bool]:
    """The customers that match the text, best first, `limit` from the position `first` on; and whether more follow.

    All pages together have at most 1,000. Raises: `DatabaseRefused`.
    """
    with reading(channel) as connection:
        # The order of the best ones depends on how many are looked for.
        ids = _matching_ids(connection, channel, text, LIMIT_MAX)
        return read_views(connection, ids[first : first + limit]), len(ids) > first + limit


def list_customers(channel: OpenChannel, limit: int, after: str | None = None) -> list[CustomerView]:
    """The customers of the channel in the order of their ids, at most `limit` (and at most 1,000), after this id.

    Raises: `DatabaseRefused`.
    """
    query = select(customers.c.customer_id).order_by(customers.c.customer_id)
    if after is not None:
        query = query.where(customers.c.customer_id > after)
    with reading(channel) as connection:
        return read_views(connection, connection.scalars(query.limit(min(limit, LIMIT_MAX))).all())


def _matching_ids(connection: Connection, channel: OpenChannel, text: str, limit: int) -> list[str]:
    text = text.replace("\x00", " ")
    words = _words(text)
    if not words or limit < 1:
        return []
    ids = _by_value(connection, text.strip(), channel.country, limit)
    if not ids and could_be_card(text):
        # A card that was issued elsewhere is only in the customer's attributes.
        ids = holders_of(connection, normal_card_number(text))
    ids += _by_reference(connection, text)
    if len(ids) < limit:
        ids = list(dict.fromkeys([*ids, *_by_name(connection, words, limit)]))
    return ids[:limit]


def recently_changed(channel: OpenChannel, limit: int = 20) -> list[CustomerView]:
    """The customers that were changed last in this channel, the newest first. Raises: `DatabaseRefused`."""
    newest = (
        select(outbox.c.aggregateid)
        .where(outbox.c.aggregatetype == CUSTOMER)
        .order_by(outbox.c.sequence.desc())
        .limit(limit * _CHANGES_OF_A_CUSTOMER)
    )
    with reading(channel) as connection:
        return read_views(connection, list(dict.fromkeys(connection.scalars(newest)))[:limit])


def _words(text: str) -> list[str]:
    words = fold_for_search(text).replace(",", " ").split()
    return [word for word in words if _loose(word).strip()][:_WORDS_MAX]


def _by_value(connection: Connection, text: str, country: str, limit: int) -> list[str]:
    """The ids of customers with this account number, phone number, e-mail address or loyalty card of this channel; then
    of those with a phone number or an e-mail address that begins like this.
    """
    exact = {text, text.upper(), *_with_leading_zeros(connection, text)}
    numbers = select(customers.c.customer_id).where(customers.c.account_number.in_(exact)).limit(limit)
    values = {value for value in (normal_phone(text, country), normal_email(text)) if value}
    contacts = select(customer_contacts.c.customer_id).where(customer_contacts.c.value.in_(values)).limit(limit)
    ids = [*connection.scalars(numbers), *(connection.scalars(contacts) if values else ())]
    ids += owners_of(connection, normal_card_number(text))
    beginnings = _contact_beginnings(text, country)
    if beginnings and not values:
        value = customer_contacts.c.value
        begins = or_(*(_in_range(connection, value, beginning) for beginning in beginnings))
        ids += connection.scalars(select(customer_contacts.c.customer_id).where(begins).limit(limit))
    return list(dict.fromkeys(ids))


def _with_leading_zeros(connection: Connection, text: str) -> list[str]:
    """The account number that somebody shortens to this: `C-42` or `42` for `C-00000042`, as the highest one here."""
    entered = _NUMBER.fullmatch(text.upper())
    if entered is None:
        return []
    highest = _NUMBER.fullmatch(connection.scalar(select(func.max(customers.c.account_number))) or "")
    if highest is None or entered[1] not in ("", highest[1].upper()):
        return []
    return [highest[1] + entered[2].lstrip("0").zfill(len(highest[2]))]


def _contact_beginnings(text: str, country: str) -> set[str]:
    """The stored forms of an e-mail address or a phone number of which this is the beginning."""
    if "@" in text and " " not in text:
        local, _, domain = text.partition("@")
        return {f"{name}@{domain.lower()}" for name in (local, local.lower())}
    digits = "".join(filter(str.isdecimal, text))
    if not _PHONE_BEGINNING.fullmatch(text) or len(digits) < _PHONE_DIGITS_MIN:
        return set()
    if text.startswith("+"):
        return {f"+{digits}"}
    trunk = phonenumbers.ndd_prefix_for_region(country, True) or ""
    return {f"+{phonenumbers.country_code_for_region(country)}{digits.removeprefix(trunk)}"}


def _in_range(connection: Connection, column: Column[str], beginning: str) -> ColumnElement[bool]:
    """The condition that the text begins like this, as a range of the column's index."""
    if connection.dialect.name == "postgresql":
        return column.startswith(beginning, autoescape=True)
    return and_(column >= beginning, column < beginning + _LAST_CHARACTER)


def _by_reference(connection: Connection, text: str) -> list[str]:
    """The ids of customers with this reference: of those without a number, then of those whom the outbox knows, so
    that a reference on paper is good for a month after the number has arrived.
    """
    wanted = entered_reference(text)
    if wanted is None:
        return []
    pending = select(customers.c.customer_id).where(customers.c.account_number.is_(None))
    ids = _with_reference(connection, pending, customers.c.customer_id, wanted)
    if not ids and not text.strip().isalpha():
        # Not for five letters that begin a name: it reads an index of the whole outbox.
        ids = _with_reference(connection, select(outbox.c.aggregateid).distinct(), outbox.c.aggregateid, wanted)
    return ids


def _with_reference(connection: Connection, query: Select[str], column: Column[str], wanted: str) -> list[str]:
    # A text in both databases: PostgreSQL has GUIDs of its own.
    ending = query.where(cast(column, Text).endswith(ending_of(wanted)))
    return [found for found in connection.scalars(ending) if reference(found) == wanted]


def _by_name(connection: Connection, words: Sequence[str], limit: int) -> list[str]:
    """The ids of customers with these names, best first."""
    # Names that begin with one of the words: one range of the index per word.
    leading = [and_(_begins(connection, word), *_contain(words)) for word in words]
    matches = _matches(connection, or_(*leading), limit)
    if len(matches) < limit:
        # Then other names: scans all names until there are enough.
        matches += _matches(connection, and_(*_contain(words)), limit)
    text = _loose(" ".join(words))

    def rank(match: tuple[str, str]) -> tuple[bool, bool, str]:
        name = _loose(match[1])
        return name != text, not name.startswith(text), name

    return list(dict.fromkeys(customer_id for customer_id, _ in sorted(matches, key=rank)))


def _matches(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[tuple[str, str]]:
    """Ids and names of the first matches by name, in the order of the index: by code point."""
    in_order = (
        literal_column("search_name USING ~<~") if connection.dialect.name == "postgresql" else customers.c.search_name
    )
    query = select(customers.c.customer_id, customers.c.search_name).where(condition).order_by(in_order).limit(limit)
    return [(row.customer_id, row.search_name) for row in connection.execute(query)]


def _begins(connection: Connection, word: str) -> ColumnElement[bool]:
    """The condition that the names begin with this word, in a form that uses the index."""
    name = customers.c.search_name
    if connection.dialect.name == "postgresql":
        return name.startswith(word, autoescape=True)
    return and_(name >= word, name < word + _LAST_CHARACTER)


def _contain(words: Sequence[str]) -> list[ColumnElement[bool]]:
    """One condition per word: a word of the names begins with it. Apostrophes do not count, and hyphens separate."""
    name: ColumnElement[str] = customers.c.search_name
    for apostrophe in _APOSTROPHES:
        name = func.replace(name, apostrophe, "")
    spaced = literal(" ") + func.replace(name, "-", " ")
    parts = [part for word in words for part in _loose(word).split()]
    return [spaced.contains(" " + part, autoescape=True) for part in parts]


def _loose(name: str) -> str:
    """The name without apostrophes and hyphens."""
    for apostrophe in _APOSTROPHES:
        name = name.replace(apostrophe, "")
    return name.replace("-", " ")
