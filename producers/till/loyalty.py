"""Loyalty cards: issued to customers with an account number, and on wish kept for those who still wait for theirs.

    with open_channel(load_settings(), "houston") as houston:
        issue_card(houston, ada.customer_id, "LC-1001", keep=True)     # kept, or issued where the number is there

An issued card is a row of `loyalty_cards` and, by an ordinary edit in the same SQL transaction, the customer's
attribute `loyalty_card`: so headquarters and every channel learn of it as of any other change. A customer's newest
card is the one in the attribute; earlier ones stay his. The relay issues kept cards as soon as their customers have
account numbers, each in one SQL transaction that takes the card from kept to issued: a crash repeats none, and two
processes at once issue it once.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Text, cast, exists, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tenten.producers import outbox
from tenten.producers.till import customer_change as changes
from tenten.producers.till.customer_input import Entering, with_fields
from tenten.producers.till.customers import CustomerStatus, new_id, reading, refuse, views, writing
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules.customer_rules import reasons
from tenten.runtime.errors import NoSuchCustomer
from tenten.schemas.messages import Reason
from tenten.schemas.tables.channel import customers, loyalty_cards
from tenten.schemas.tables.channel import outbox as outbox_rows
from tenten.sql.customer_rows import CHANNEL_TABLES, StoredCustomer, read_customers

ATTRIBUTE: Final = "loyalty_card"
"""The attribute that carries a customer's card, and the field of reasons about cards."""

CARDS_MAX: Final = 100
"""So many kept cards are issued at a time, so that the outbox does not wait for more."""

_HOLDERS_MAX: Final = 100
_CARD_NUMBER: Final = re.compile("[A-Za-z0-9-]{4,30}")


class CardStatus(StrEnum):
    """What became of a card that was asked for."""

    KEPT = "kept"
    ISSUED = "issued"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardView:
    """A loyalty card as the channel shows it."""

    card_number: str
    customer_id: str
    status: CardStatus
    reasons: tuple[Reason, ...] = ()
    """Why a kept card is not issued yet, or never will be."""


_MALFORMED: Final = Reason(
    field=ATTRIBUTE, code="card_number", text="A card number has 4 to 30 letters, digits and hyphens."
)
_PENDING: Final = Reason(
    field=ATTRIBUTE,
    code="pending",
    text="This customer has no account number yet: issue the card when it is there, or have it kept until then.",
)
_TAKEN: Final = Reason(
    field=ATTRIBUTE, code="taken", text="Another customer of this channel has this card: take another one."
)
_WAITS: Final = Reason(
    field=ATTRIBUTE,
    code="pending",
    text="This customer has no account number yet: the card is issued by itself when it is there.",
)
_WAITS_FOR_THE_CLERK: Final = Reason(
    field=ATTRIBUTE,
    code="rejected",
    text="Headquarters has rejected this customer: correct the customer, and the card is issued by itself.",
)
_GONE: Final = Reason(
    field=ATTRIBUTE,
    code="unknown_customer",
    text="The customer is no longer in this channel (discarded, erased, or outside its filter): while that is so the "
    "card is not issued.",
)


def issue_card(channel: OpenChannel, customer_id: str, card_number: str, *, keep: bool = False) -> CardView:
    """Give a customer a card. While the account number is not there that is refused; or, with `keep`, the card is kept
    and issued by the relay when the number has come.

    The same card for the same customer again changes nothing; one that was kept is issued if it can be by now.

    Raises: `NoSuchCustomer`; `CustomerRejected` with every reason (`pending`, `taken`, `card_number`, or what is wrong
    with the customer), `DatabaseRefused`; nothing is written then.
    """
    refuse(() if _CARD_NUMBER.fullmatch(card_number.strip()) else (_MALFORMED,))
    number = normal_card_number(card_number)
    with reading(channel) as connection:
        holders = holders_of(connection, number)
    now = datetime.now(UTC)
    with writing(channel) as connection:
        customer = _locked(connection, customer_id)
        is_pending = customer.account_number is None
        # Nobody else asks for a card of this customer meanwhile: the row is locked.
        is_known = owners_of(connection, number) == [customer.customer_id]
        _claim(connection, number, customer.customer_id, now)
        is_taken = bool({*owners_of(connection, number), *holders} - {customer.customer_id})
        is_early = is_pending and not keep and not is_known
        refuse([*([_TAKEN] if is_taken else []), *([_PENDING] if is_early else [])])
        if not is_pending:
            _issue(connection, channel, customer, number, now, judged=True)
    return show_card(channel, number)


def issue_kept_cards(channel: OpenChannel, look: Connection | None = None) -> int:
    """Issue kept cards whose customers have account numbers by now, those asked for first, 100 at most; how many.

    `look` asks whether there are any, in one statement, and is all that is used where there are none; a connection of
    the channel's own where none is given. Other processes may do the same at the same moment. What is wrong with a
    customer besides does not stop it: headquarters judges the edit, as any.
    Raises: what the database raises.
    """
    if look is not None:
        due = _due(look)
    else:
        with channel.reading() as connection:
            due = _due(connection)
    return sum(_issue_kept(channel, number, customer_id) for number, customer_id in due)


def show_card(channel: OpenChannel, card_number: str) -> CardView:
    """The card, kept or issued here, or issued elsewhere and brought by its customer.

    Raises: `NoSuchCustomer` where nobody has it, `DatabaseRefused`.
    """
    number = normal_card_number(card_number)
    with reading(channel) as connection:
        card = _card(connection, number)
        if card is not None:
            customer_id, status = card
            why = _why_kept(connection, customer_id) if status is CardStatus.KEPT else ()
            return CardView(card_number=number, customer_id=customer_id, status=status, reasons=why)
        for holder in holders_of(connection, number):
            return CardView(card_number=number, customer_id=holder, status=CardStatus.ISSUED)
    raise NoSuchCustomer("no customer of this channel has this card: it was never asked for, or its customer has left")


def normal_card_number(text: str) -> str:
    """A card number as it is kept, however it is written.

    >>> normal_card_number(" lc-1001 ")
    'LC-1001'
    """
    return text.strip().upper()


def could_be_card(text: str) -> bool:
    """Whether a clerk who searches for this may mean a card: names have no digits."""
    return _CARD_NUMBER.fullmatch(text.strip()) is not None and any(one.isdigit() for one in text)


def owners_of(connection: Connection, number: str) -> list[str]:
    """Whose card this is by what was asked for in this channel: one customer, or none."""
    card = _card(connection, number)
    return [] if card is None else [card[0]]


def holders_of(connection: Connection, number: str) -> list[str]:
    """The customers who carry this card, wherever it was issued. Reads the attributes of every customer once."""
    if not _CARD_NUMBER.fullmatch(number):
        return []
    # The text of the attributes finds candidates the same way on both databases; the value itself decides.
    carries = cast(customers.c.attributes, Text).like(f'%"{ATTRIBUTE}"%"{number}"%')
    query = select(customers.c.customer_id, customers.c.attributes).where(carries).limit(_HOLDERS_MAX)
    return [
        row.customer_id
        for row in connection.execute(query)
        if any(one["name"] == ATTRIBUTE and one.get("text") == number for one in row.attributes)
    ]


def _card(connection: Connection, number: str) -> tuple[str, CardStatus] | None:
    """Who asked for the card in this channel, and what became of it; None where nobody did, or it is no card."""
    if not _CARD_NUMBER.fullmatch(number):
        return None
    query = select(loyalty_cards.c.customer_id, loyalty_cards.c.status).where(loyalty_cards.c.card_number == number)
    row = connection.execute(query).first()
    return None if row is None else (row.customer_id, CardStatus(row.status))


def _locked(connection: Connection, customer_id: str) -> StoredCustomer:
    """The customer, locked until the transaction ends. Raises: `NoSuchCustomer`."""
    try:
        wanted = [str(UUID(customer_id))]
    except ValueError:
        wanted = []
    for stored in read_customers(connection, CHANNEL_TABLES, wanted, for_update=True).values():
        return stored
    raise NoSuchCustomer(
        f"there is no customer {customer_id} in this channel: it was never here, was erased, or left its filter"
    )


def _claim(connection: Connection, number: str, customer_id: str, now: datetime) -> None:
    """Keep the card for the customer, unless somebody has it. Waits for who is just claiming it."""
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(loyalty_cards)
    claimed = insert.values(card_number=number, customer_id=customer_id, status=CardStatus.KEPT.value, asked_at=now)
    connection.execute(claimed.on_conflict_do_nothing())


def _issue(
    connection: Connection,
    channel: OpenChannel,
    customer: StoredCustomer,
    number: str,
    now: datetime,
    *,
    judged: bool,
) -> bool:
    """Take the card from kept to issued and give it to the customer, whose row is locked; False, and nothing written,
    where it is not kept any more. Raises: with `judged`, `CustomerRejected`.
    """
    issued = update(loyalty_cards).values(status=CardStatus.ISSUED.value, issued_at=now)
    kept = (loyalty_cards.c.card_number == number, loyalty_cards.c.status == CardStatus.KEPT.value)
    if connection.execute(issued.where(*kept)).rowcount != 1:
        return False
    events = outbox.events_of(connection, [customer.customer_id], channel.writers).get(customer.customer_id, [])
    entering = Entering(country=channel.country, now=now, new_id=new_id)
    state = with_fields(customer.state, {"attributes": {ATTRIBUTE: number}}, entering)
    change = changes.edited(
        channel_id=channel.name, event_id=new_id(), before=customer, events=events, state=state, now=now
    )
    if changes.says_something(change, events):
        refuse(reasons(state) if judged else ())
        changes.write(connection, [change], now)
    return True


def _due(connection: Connection) -> list[tuple[str, str]]:
    """Card numbers and customers of kept cards whose customers have account numbers."""
    return [(row.card_number, row.customer_id) for row in connection.execute(_DUE)]


_DUE: Final = (
    select(loyalty_cards.c.card_number, loyalty_cards.c.customer_id)
    .join(customers, customers.c.customer_id == loyalty_cards.c.customer_id)
    # Written out, so that an index of kept cards alone can serve.
    .where(loyalty_cards.c.status == literal_column("'kept'"), customers.c.account_number.is_not(None))
    # On top of what headquarters has rejected the card would be rejected, too.
    .where(
        ~exists().where(
            outbox_rows.c.aggregateid == loyalty_cards.c.customer_id,
            outbox_rows.c.aggregatetype == outbox.CUSTOMER,
            outbox_rows.c.settled_at.is_(None),
            outbox_rows.c.outcome == outbox.REJECTED,
        )
    )
    .order_by(loyalty_cards.c.asked_at, loyalty_cards.c.card_number)
    .limit(CARDS_MAX)
)
"""Made once: a relay asks a hundred times a second, and making it took longer than answering it."""


def _issue_kept(channel: OpenChannel, number: str, customer_id: str) -> bool:
    """Issue one kept card, in one SQL transaction; whether this call did."""
    with channel.engine.begin() as connection:
        found = read_customers(connection, CHANNEL_TABLES, [customer_id], for_update=True)
        customer = found.get(customer_id)
        if customer is None or customer.account_number is None:
            return False
        return _issue(connection, channel, customer, number, datetime.now(UTC), judged=False)


def _why_kept(connection: Connection, customer_id: str) -> tuple[Reason, ...]:
    """Why a kept card is not issued yet."""
    for customer in views(connection, [customer_id]):
        if customer.account_number is not None and customer.status is not CustomerStatus.REJECTED:
            return ()
        return (_WAITS_FOR_THE_CLERK if customer.status is CustomerStatus.REJECTED else _WAITS,)
    return (_GONE,)
