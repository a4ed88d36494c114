"""Customers at headquarters: search them, and everything that happened to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, func, select, text

from tenten.rules.contact_points import normal_email, normal_phone
from tenten.rules.customer import fold_for_search
from tenten.rules.limits import is_guid
from tenten.rules.reference import ending_of, entered_reference, reference
from tenten.schemas.tables.headquarters import (
    customer_audit,
    customer_contacts,
    customers,
    held_events,
    legal_entities,
    synchronization_log,
)
from tenten.sql.customer_rows import HEADQUARTERS_TABLES, StoredCustomer, read_customers

FOUND_MAX: Final = 50
_WORDS_MAX: Final = 6
_HISTORY_MAX: Final = 200
_GUID_BYTES: Final = 16
_SEARCH_MILLISECONDS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """An event of a customer, with the decision of headquarters."""

    event_id: str
    kind: str
    outcome: str
    reasons: Sequence[Mapping[str, str]]
    """Each with field, code and text."""
    channel_id: str
    operator: str | None
    version: int | None
    """The version that it made; None if it made none."""
    repeats: int
    conflicts: int
    occurred_at: datetime
    """By the channel's clock."""
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedPath:
    """What an edit changed."""

    event_id: str
    version: int
    path: str
    old_value: Any
    new_value: Any
    operator: str | None
    channel_id: str
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerHistory:
    """A customer with its past, the newest first, at most 200 rows of each."""

    customer_id: str
    customer: StoredCustomer | None
    """None: headquarters has only decided about its events, or holds them."""
    events: tuple[LoggedEvent, ...]
    audit: tuple[AuditedPath, ...]
    held: int
    """Its events that headquarters cannot judge yet."""


def find_by_id(headquarters: Connection, words: str) -> list[StoredCustomer]:
    """The customers with this account number or GUID."""
    wanted = words.strip()
    if is_guid(wanted.lower()):
        return list(read_customers(headquarters, HEADQUARTERS_TABLES, [wanted.lower()]).values())
    entities = headquarters.scalars(select(legal_entities.c.legal_entity)).all()
    # By legal entity, because the unique key begins with it.
    query = select(customers.c.customer_id).where(
        customers.c.legal_entity.in_(entities), customers.c.account_number.in_({wanted, wanted.upper()})
    )
    return list(read_customers(headquarters, HEADQUARTERS_TABLES, headquarters.scalars(query)).values())


def find_by_reference(headquarters: Connection, words: str) -> list[StoredCustomer]:
    """The customers whose short reference this is; seldom more than one. Reads the index of ids to its end, a second
    for some millions; ended after ten.

    Raises: `DBAPIError`.
    """
    wanted = entered_reference(words)
    if wanted is None:
        return []
    headquarters.execute(text(f"SET LOCAL statement_timeout = {_SEARCH_MILLISECONDS}"))
    columns, ending = customers.c, bytes.fromhex(ending_of(wanted))
    # The last bytes of an id, in its binary form.
    last = func.substr(func.uuid_send(columns.customer_id), _GUID_BYTES - len(ending) + 1)
    ids = headquarters.scalars(select(columns.customer_id).where(last == ending))
    matching = [each for each in ids if reference(each) == wanted][:FOUND_MAX]
    return list(read_customers(headquarters, HEADQUARTERS_TABLES, matching).values())


def search(headquarters: Connection, words: str) -> list[StoredCustomer]:
    """The customers with this account number, GUID, phone number or e-mail address; else those with these names.

    At most `FOUND_MAX`. The database ends a search that takes longer than ten seconds: only account numbers and ids
    have an index at headquarters, which registers customers faster without others.
    Raises: `DBAPIError`.
    """
    words = words.replace("\x00", " ")
    found = find_by_id(headquarters, words)
    if found or not words.strip():
        return found
    headquarters.execute(text(f"SET LOCAL statement_timeout = {_SEARCH_MILLISECONDS}"))
    ids = _by_contact(headquarters, words) or _by_name(headquarters, words)
    return list(read_customers(headquarters, HEADQUARTERS_TABLES, ids).values())


def _by_contact(headquarters: Connection, words: str) -> list[str]:
    countries = headquarters.scalars(select(legal_entities.c.country).distinct()).all()
    phones = {normal_phone(words, country) for country in countries} if any(map(str.isdigit, words)) else set()
    values = {value for value in (*phones, normal_email(words)) if value}
    if not values:
        return []
    query = select(customer_contacts.c.customer_id).where(customer_contacts.c.value.in_(values)).distinct()
    return list(headquarters.scalars(query.limit(FOUND_MAX)))


def _by_name(headquarters: Connection, words: str) -> list[str]:
    """The ids of customers of whose names some word begins with each of these words, in any case."""
    wanted = words.replace(",", " ").split()[:_WORDS_MAX]
    if not wanted:
        return []
    columns = customers.c
    parts = (columns.first_name, columns.middle_name, columns.last_name, columns.organization_name, columns.known_as)
    name = func.concat_ws(" ", "", *parts)
    plain = and_(*(func.lower(name).contains(f" {word.lower()}", autoescape=True) for word in wanted))
    folded = [fold_for_search(word) for word in wanted]
    # Without accents, which takes ten times as long, only names that have letters beyond ASCII.
    decomposed = func.regexp_replace(func.normalize(func.lower(name), text("NFKD")), "[\u0300-\u036f]", "", "g")
    is_ascii = func.octet_length(name) == func.char_length(name)
    accented = and_(~is_ascii, *(decomposed.contains(f" {word}", autoescape=True) for word in folded))
    query = select(columns.customer_id).where(columns.erased_at.is_(None), plain | accented)
    return list(headquarters.scalars(query.limit(FOUND_MAX)))


def read_history(headquarters: Connection, customer_id: str) -> CustomerHistory | None:
    """The customer of this id with its history; None if headquarters has never heard of it."""
    if not is_guid(customer_id):
        return None
    customer = read_customers(headquarters, HEADQUARTERS_TABLES, [customer_id]).get(customer_id)
    log, audit = synchronization_log.c, customer_audit.c
    events = select(synchronization_log).where(log.customer_id == customer_id)
    paths = select(customer_audit).where(audit.customer_id == customer_id)
    held = select(func.count()).where(held_events.c.customer_id == customer_id, held_events.c.judged_at.is_(None))
    logged = headquarters.execute(events.order_by(log.received_at.desc()).limit(_HISTORY_MAX)).mappings().all()
    if customer is None and not logged:
        return None
    changed = headquarters.execute(paths.order_by(audit.audit_id.desc()).limit(_HISTORY_MAX)).mappings()
    return CustomerHistory(
        customer_id=customer_id,
        customer=customer,
        events=tuple(LoggedEvent(**{name: row[name] for name in LoggedEvent.__slots__}) for row in logged),
        audit=tuple(AuditedPath(**{name: row[name] for name in AuditedPath.__slots__}) for row in changed),
        held=headquarters.scalars(held).one(),
    )
