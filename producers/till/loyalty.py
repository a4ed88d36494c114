"""Loyalty cards: issued to customers with an account number, or reserved for pending customers.

    with open_channel(load_settings(), "houston") as houston:
        issue_card(houston, ada.customer_id, "LC-1001", keep=True)     # reserved, or issued to a numbered customer

An issued card is a row of `loyalty_cards` and, by an ordinary edit in the same SQL transaction, the customer's
attribute `loyalty_card`, which reaches headquarters and every channel as any change does. The attribute has the
customer's newest card; earlier cards remain the customer's. The relay issues reserved cards once their customers have
account numbers, each in one SQL transaction that changes the card's status: each card is issued exactly once, even
after a crash or by two processes.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Text, cast, exists, literal_column, select, update

from tenten.producers.outbox.folding import foldable
from tenten.producers.outbox.table import CUSTOMER, REJECTED
from tenten.producers.till import customer_change
from tenten.producers.till.customer_merge import merge_input
from tenten.producers.till.customer_views import CustomerStatus, lock_customer, read_view, read_views
from tenten.producers.till.customers import (
    context,
    new_id,
    overlay_events_of,
    reject,
    reject_customer,
    reject_too_large,
)
from tenten.producers.till.database_session import reading, writing
from tenten.producers.till.ids import normal_ids
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.operators import operator_of
from tenten.rules.definitions import LOYALTY_CARD
from tenten.rules.operator_rule import operator_violations
from tenten.runtime.errors import NoSuchCustomer
from tenten.schemas.messages import Reason
from tenten.schemas.tables.channel import customers, loyalty_cards, outbox
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, read_customers
from tenten.sql.upsert import insert_into

ATTRIBUTE: Final = LOYALTY_CARD
"""The attribute with a customer's card, and the field of reasons about cards."""

CARDS_MAX: Final = 100
"""The most reserved cards that are issued at a time, so that the outbox is not delayed."""

_HOLDERS_MAX: Final = 100
_CARD_NUMBER: Final = re.compile("[A-Za-z0-9-]{4,30}")


class CardStatus(StrEnum):
    """The status of a requested card; a reserved card is `kept`."""

    KEPT = "kept"
    ISSUED = "issued"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardView:
    """A loyalty card as the channel shows it."""

    card_number: str
    customer_id: str
    status: CardStatus
    reasons: tuple[Reason, ...] = ()
    """Why a reserved card is not issued yet."""


_MALFORMED: Final = Reason(
    field=ATTRIBUTE, code="card_number", text="A card number has 4 to 30 letters, digits and hyphens."
)
_PENDING: Final = Reason(
    field=ATTRIBUTE,
    code="pending",
    text="This customer has no account number yet: issue the card once the number arrives, or reserve it until then.",
)
_TAKEN: Final = Reason(
    field=ATTRIBUTE, code="taken", text="Another customer of this channel has this card: choose another card."
)
_RESERVED: Final = Reason(
    field=ATTRIBUTE,
    code="pending",
    text="This customer has no account number yet: the card is issued automatically once the number arrives.",
)
_CUSTOMER_REJECTED: Final = Reason(
    field=ATTRIBUTE,
    code="rejected",
    text="Headquarters has rejected this customer: correct the customer, and the card is issued automatically.",
)
_NO_CUSTOMER: Final = Reason(
    field=ATTRIBUTE,
    code="unknown_customer",
    text="The customer is no longer in this channel (discarded, erased, or outside its filter), so the card cannot be "
    "issued.",
)


def issue_card(
    channel: OpenChannel, customer_id: str, card_number: str, *, keep: bool = False, operator: str | None = None
) -> CardView:
    """Issue a card to a customer. For a pending customer this is rejected; with `keep`, the card is reserved instead,
    and the relay issues it once the account number arrives.

    Idempotent; a reserved card is issued if the customer has an account number by now. `operator` is the person who
    issues or reserves it (default: that of the channel); a card that the relay issues keeps that of its reservation.

    Raises: `NoSuchCustomer`; `CustomerRejected` with every reason (`pending`, `taken`, `card_number`, or the rules that
    the customer breaks), `DatabaseRefused`; nothing is written then.
    """
    operator = operator_of(channel, operator)
    malformed = () if _CARD_NUMBER.fullmatch(card_number.strip()) else (_MALFORMED,)
    reject([*malformed, *operator_violations(operator)])
    number = normal_card_number(card_number)
    with reading(channel) as connection:
        holders = holders_of(connection, number)
    now = datetime.now(UTC)
    with writing(channel) as connection:
        customer = lock_customer(connection, customer_id)
        is_pending = customer.account_number is None
        # No other process requests a card for this customer meanwhile: the row is locked.
        is_requested = owners_of(connection, number) == [customer.customer_id]
        _reserve(connection, number, customer.customer_id, operator, now)
        is_taken = bool({*owners_of(connection, number), *holders} - {customer.customer_id})
        is_too_early = is_pending and not keep and not is_requested
        reject([*([_TAKEN] if is_taken else []), *([_PENDING] if is_too_early else [])])
        if not is_pending:
            _issue(connection, channel, customer, number, now, operator=operator, validated=True)
    return show_card(channel, number)


def issue_reserved_cards(channel: OpenChannel, connection: Connection | None = None) -> int:
    """Issue at most 100 reserved cards of customers with account numbers, oldest request first; return how many.

    `connection` (default: one of the channel's) is used for one query for such cards; each card is issued on a
    connection of its own. Several processes may do this at the same time. The customers are not validated: headquarters
    validates the edit, as any other.
    Raises: the database's errors.
    """
    if connection is not None:
        issuable = _issuable(connection)
    else:
        with channel.reading() as own_connection:
            issuable = _issuable(own_connection)
    return sum(_issue_reserved(channel, *card) for card in issuable)


def show_card(channel: OpenChannel, card_number: str) -> CardView:
    """The card, reserved or issued in this channel, or issued in another one.

    Raises: `NoSuchCustomer` when no customer has it, `DatabaseRefused`.
    """
    number = normal_card_number(card_number)
    with reading(channel) as connection:
        card = _card(connection, number)
        if card is not None:
            customer_id, status = card
            reasons = _why_reserved(connection, customer_id) if status is CardStatus.KEPT else ()
            return CardView(card_number=number, customer_id=customer_id, status=status, reasons=reasons)
        for holder in holders_of(connection, number):
            return CardView(card_number=number, customer_id=holder, status=CardStatus.ISSUED)
    raise NoSuchCustomer(
        "no customer of this channel has this card: it was never requested, or its customer has left the channel"
    )


def cards_of(channel: OpenChannel, customer_id: str) -> list[CardView]:
    """The customer's cards, the newest first: those requested in this channel, and the one that the customer has from
    another one. Raises: `NoSuchCustomer`, `DatabaseRefused`.
    """
    requested = (
        select(loyalty_cards.c.card_number, loyalty_cards.c.status)
        .where(loyalty_cards.c.customer_id.in_(normal_ids(customer_id)))
        .order_by(loyalty_cards.c.asked_at.desc(), loyalty_cards.c.card_number)
    )
    with reading(channel) as connection:
        customer = read_view(connection, customer_id)
        status = {row.card_number: CardStatus(row.status) for row in connection.execute(requested)}
        reasons = _why_reserved(connection, customer.customer_id)
    for attribute in customer.state.attributes:
        if attribute.name == ATTRIBUTE and attribute.text is not None:
            status.setdefault(attribute.text, CardStatus.ISSUED)
    return [
        CardView(
            card_number=number,
            customer_id=customer.customer_id,
            status=each,
            reasons=reasons if each is CardStatus.KEPT else (),
        )
        for number, each in status.items()
    ]


def normal_card_number(text: str) -> str:
    """The stored form of a card number.

    >>> normal_card_number(" lc-1001 ")
    'LC-1001'
    """
    return text.strip().upper()


def could_be_card(text: str) -> bool:
    """True if a searched text could be a card number: names have no digits."""
    return _CARD_NUMBER.fullmatch(text.strip()) is not None and any(character.isdigit() for character in text)


def owners_of(connection: Connection, number: str) -> list[str]:
    """The customer for whom the card was requested in this channel, at most one."""
    card = _card(connection, number)
    return [] if card is None else [card[0]]


def holders_of(connection: Connection, number: str) -> list[str]:
    """The customers whose attribute has this card, wherever it was issued. Scans the attributes of all customers."""
    if not _CARD_NUMBER.fullmatch(number):
        return []
    # Matching the text of the attributes finds candidates on both databases; the exact value decides.
    has_card = cast(customers.c.attributes, Text).like(f'%"{ATTRIBUTE}"%"{number}"%')
    query = select(customers.c.customer_id, customers.c.attributes).where(has_card).limit(_HOLDERS_MAX)
    return [
        row.customer_id
        for row in connection.execute(query)
        if any(attribute["name"] == ATTRIBUTE and attribute.get("text") == number for attribute in row.attributes)
    ]


def _card(connection: Connection, number: str) -> tuple[str, CardStatus] | None:
    """The customer and the status of a card that was requested in this channel; None for any other text."""
    if not _CARD_NUMBER.fullmatch(number):
        return None
    query = select(loyalty_cards.c.customer_id, loyalty_cards.c.status).where(loyalty_cards.c.card_number == number)
    row = connection.execute(query).first()
    return None if row is None else (row.customer_id, CardStatus(row.status))


def _reserve(connection: Connection, number: str, customer_id: str, operator: str | None, now: datetime) -> None:
    """Reserve the card for the customer, unless a customer has it. Blocks while another process is reserving it."""
    insert = insert_into(connection, loyalty_cards)
    reserved = insert.values(
        card_number=number, customer_id=customer_id, status=CardStatus.KEPT.value, asked_at=now, operator=operator
    )
    connection.execute(reserved.on_conflict_do_nothing())


def _issue(
    connection: Connection,
    channel: OpenChannel,
    customer: StoredCustomer,
    number: str,
    now: datetime,
    *,
    operator: str | None,
    validated: bool,
) -> bool:
    """Change the card from reserved to issued and add it to the customer, whose row is locked; False, with nothing
    written, if the card is no longer reserved. Raises: if `validated`, `CustomerRejected`.
    """
    issued = update(loyalty_cards).values(status=CardStatus.ISSUED.value, issued_at=now)
    reserved = (loyalty_cards.c.card_number == number, loyalty_cards.c.status == CardStatus.KEPT.value)
    if connection.execute(issued.where(*reserved)).rowcount != 1:
        return False
    events = overlay_events_of(connection, channel, customer)
    state = merge_input(customer.state, {"attributes": {ATTRIBUTE: number}}, context(channel, now))
    change = customer_change.edited(
        channel_id=channel.name,
        event_id=new_id(),
        operator=operator,
        before=customer,
        events=events,
        state=state,
        now=now,
        folded=foldable(connection, customer.customer_id, events, operator),
    )
    if customer_change.must_be_sent(change, events):
        if validated:
            reject_customer(channel, customer.state, state, operator)
            reject_too_large(change.event)
        customer_change.write(connection, [change], now)
    return True


def _issuable(connection: Connection) -> list[tuple[str, str, str | None]]:
    """Card numbers, customers and operators of reserved cards whose customers have account numbers."""
    return [(row.card_number, row.customer_id, row.operator) for row in connection.execute(_ISSUABLE)]


_ISSUABLE: Final = (
    select(loyalty_cards.c.card_number, loyalty_cards.c.customer_id, loyalty_cards.c.operator)
    .join(customers, customers.c.customer_id == loyalty_cards.c.customer_id)
    # A literal, so that the partial index of reserved cards applies.
    .where(loyalty_cards.c.status == literal_column("'kept'"), customers.c.account_number.is_not(None))
    # An edit that follows a rejected change would be rejected, too.
    .where(
        ~exists().where(
            outbox.c.aggregateid == loyalty_cards.c.customer_id,
            outbox.c.aggregatetype == CUSTOMER,
            outbox.c.settled_at.is_(None),
            outbox.c.outcome == REJECTED,
        )
    )
    .order_by(loyalty_cards.c.asked_at, loyalty_cards.c.card_number)
    .limit(CARDS_MAX)
)
"""Built once: the relay runs it about a hundred times a second, and building takes longer than executing."""


def _issue_reserved(channel: OpenChannel, number: str, customer_id: str, operator: str | None) -> bool:
    """Issue one reserved card in one SQL transaction; True if this call did."""
    with channel.engine.begin() as connection:
        customer = read_customers(connection, CHANNEL_TABLES, [customer_id], for_update=True).get(customer_id)
        if customer is None or customer.account_number is None:
            return False
        return _issue(connection, channel, customer, number, datetime.now(UTC), operator=operator, validated=False)


def _why_reserved(connection: Connection, customer_id: str) -> tuple[Reason, ...]:
    """Why a reserved card is not issued yet."""
    for customer in read_views(connection, [customer_id]):
        if customer.account_number is not None and customer.status is not CustomerStatus.REJECTED:
            return ()
        return (_CUSTOMER_REJECTED if customer.status is CustomerStatus.REJECTED else _RESERVED,)
    return (_NO_CUSTOMER,)
