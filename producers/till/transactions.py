"""Orders and cash-and-carry of a channel: record them, and send a rejected one again. transaction_views.py shows them.

    with open_channel(load_settings(), "houston") as houston:
        tea = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))
        sale = record_sale(houston, lines=[tea], payments=[Payment(method="CARD", amount=Decimal("9.00"))])
        order = record_order(houston, lines=[tea], customer_id=ada.customer_id, deliver_to=ada.state.primary_address)
        print(order.status, order.customer_number)                    # pending Pending sync

Nothing here needs Kafka or headquarters: transaction and outbox row are written in one SQL transaction. While the
customer has an event that headquarters has not settled, the transaction carries the newest one along, so that it
arrives with its customer. What breaks a rule is refused with every reason before anything is written.

Recording holds the days open, closing a day (end_of_day.py) holds them shut: in the order of the outbox everything that
comes before an end of day of its date is listed by it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Column, Connection, insert, null, select, text, update

from tenten.avro.wire import contract, encode
from tenten.producers import outbox
from tenten.producers.till.customers import AlreadyThere, locked_customer, new_id, writing
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.transaction_views import (
    TransactionView,
    as_row,
    from_row,
    normal_ids,
    only_view,
    read_views,
    show_transaction,
)
from tenten.rules.customer import plain_decimal
from tenten.rules.transaction_rules import AMOUNT_MAX, is_currency, line_amount, total_of, transaction_reasons
from tenten.runtime.errors import NoSuchCustomer, TransactionRejected
from tenten.schemas.messages import (
    CodedAmount,
    DeliveryAddress,
    Payment,
    Reason,
    RetailTransaction,
    TransactionKind,
    TransactionLine,
    TransactionStatus,
    to_avro,
)
from tenten.schemas.tables.channel import transactions
from tenten.sql.customer_rows import StoredCustomer

CASH: Final = "CASH"
"""How a sale is paid unless said otherwise."""

_TOO_LARGE: Final = Reason(
    field="lines",
    code="too_large",
    text="Customer and lines are too large to be sent together: take lines away, or addresses and contacts of his.",
)

_NOT_UNICODE: Final = Reason(
    field="lines", code="not_unicode", text="A text has half a character (a surrogate), which is no text."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One article that is sold; returned where the quantity is negative."""

    sku: str
    quantity: Decimal
    price: Decimal
    """Of one, without taxes."""


def record_order(
    channel: OpenChannel,
    *,
    lines: Sequence[Item],
    customer_id: str | None = None,
    deliver_to: str | None = None,
    currency: str | None = None,
    charges: Sequence[CodedAmount] = (),
    taxes: Sequence[CodedAmount] = (),
    payments: Sequence[Payment] = (),
    delivery_mode: str = "",
    business_date: date | None = None,
    transaction_id: str | None = None,
) -> TransactionView:
    """Record an order, whether its customer has an account number yet or not. Needs no line to anywhere.

    `deliver_to` is the id of one of the customer's addresses, which is copied as it is now. What is not said: the
    legal entity's currency, no payment, today in the channel's time zone. Who may have to repeat the call gives a
    `transaction_id` (a GUID of his own): where it is there already, nothing is written and it is returned as it is.

    Blocks while another process changes the same customer or closes a day.
    Raises: `TransactionRejected` with every reason, `NoSuchCustomer`, `DatabaseRefused`; nothing is written then.
    """
    draft = _draft(
        channel,
        TransactionKind.ORDER,
        lines,
        customer_id=customer_id,
        currency=currency,
        charges=charges,
        taxes=taxes,
        payments=payments,
        delivery_mode=delivery_mode,
        business_date=business_date,
        transaction_id=transaction_id,
    )
    return _record(channel, draft, deliver_to, repeatable=transaction_id is not None)


def record_sale(
    channel: OpenChannel,
    *,
    lines: Sequence[Item],
    customer_id: str | None = None,
    currency: str | None = None,
    charges: Sequence[CodedAmount] = (),
    taxes: Sequence[CodedAmount] = (),
    payments: Sequence[Payment] = (),
    business_date: date | None = None,
    transaction_id: str | None = None,
) -> TransactionView:
    """Record a cash-and-carry: what is taken along and paid at once. A negative quantity is a return.

    Without payments all of it is paid in cash. Everything else as `record_order` has it. A sale of a business date
    that is closed already is listed when the date is closed again.
    Raises: as `record_order`.
    """
    draft = _draft(
        channel,
        TransactionKind.CASH_AND_CARRY,
        lines,
        customer_id=customer_id,
        currency=currency,
        charges=charges,
        taxes=taxes,
        payments=payments,
        business_date=business_date,
        transaction_id=transaction_id,
    )
    paid = draft.payments or (Payment(method=CASH, amount=draft.total),)
    return _record(channel, replace(draft, payments=paid), None, repeatable=transaction_id is not None)


def _draft(
    channel: OpenChannel,
    kind: TransactionKind,
    items: Sequence[Item],
    *,
    customer_id: str | None,
    currency: str | None,
    charges: Sequence[CodedAmount],
    taxes: Sequence[CodedAmount],
    payments: Sequence[Payment],
    delivery_mode: str = "",
    business_date: date | None,
    transaction_id: str | None,
) -> RetailTransaction:
    """What was said, computed and not judged; without what only the database knows."""
    own_currency = channel.settings.legal_entity_of(channel.name).currency
    currency = own_currency if currency is None else currency
    counted_in = currency if is_currency(currency) else own_currency
    draft = RetailTransaction(
        channel_id=channel.name,
        transaction_id=new_id() if transaction_id is None else _guid(transaction_id),
        kind=kind,
        occurred_at=datetime.now(UTC),
        business_date=today(channel) if business_date is None else business_date,
        legal_entity=channel.legal_entity_id,
        customer_id=customer_id,
        currency=currency,
        delivery_mode=delivery_mode,
        lines=tuple(_line(item, counted_in) for item in items),
        charges=tuple(CodedAmount(code=one.code, amount=_plain(one.amount)) for one in charges),
        taxes=tuple(CodedAmount(code=one.code, amount=_plain(one.amount)) for one in taxes),
        payments=tuple(Payment(method=one.method, amount=_plain(one.amount)) for one in payments),
    )
    return replace(draft, total=_total(draft))


def today(channel: OpenChannel) -> date:
    """The business date, as the channel's clock has it."""
    return datetime.now(ZoneInfo(channel.settings.channel(channel.name).time_zone)).date()


def _line(item: Item, currency: str) -> TransactionLine:
    """The line; its amount is 0 where quantity or price are too large for anything to be computed."""
    quantity, price = _plain(item.quantity), _plain(item.price)
    amount = Decimal(0)
    if _is_sound(quantity) and _is_sound(price):
        amount = quantity * price
        amount = line_amount(quantity, price, currency) if _is_sound(amount) else amount
    return TransactionLine(sku=item.sku, quantity=quantity, price=price, amount=amount)


def _total(draft: RetailTransaction) -> Decimal:
    """The sum; where a part is out of range so is it, and where one is no number it does not matter."""
    amounts = [one.amount for part in (draft.lines, draft.charges, draft.taxes) for one in part]
    if all(_is_sound(amount) for amount in amounts):
        return total_of(draft)
    return AMOUNT_MAX if all(amount.is_finite() for amount in amounts) else Decimal(0)


def _plain(number: Decimal) -> Decimal:
    """The number without needless zeros, which Avro's scale has no room for."""
    return Decimal(plain_decimal(number)) if _is_sound(number) else number


def _is_sound(number: Decimal) -> bool:
    return number.is_finite() and abs(number) < AMOUNT_MAX


def _record(
    channel: OpenChannel, draft: RetailTransaction, deliver_to: str | None, *, repeatable: bool
) -> TransactionView:
    try:
        with writing(channel) as connection:
            if repeatable and (there := read_views(connection, channel, [draft.transaction_id])):
                return there[0]
            customer = None if draft.customer_id is None else locked_customer(connection, draft.customer_id)
            # Last, so that whoever waits for a customer keeps no day from being closed.
            lock_days(connection, shared=True)
            wanted = _for_customer(draft, customer, deliver_to)
            append(connection, channel, wanted, _delivery_reasons(wanted, deliver_to))
            connection.execute(insert(transactions), as_row(wanted))
            return only_view(connection, channel, draft.transaction_id)
    except AlreadyThere:
        return show_transaction(channel, draft.transaction_id)


def lock_days(connection: Connection, *, shared: bool) -> None:
    """Hold every day open (shared) or shut until the transaction ends; in SQLite it is the only writer as it is.

    Taken before the outbox gives a row its sequence.
    """
    if connection.dialect.name == "postgresql":
        lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        connection.execute(text(f"SELECT {lock}(hashtextextended('tenten.days', 0))"))


def _for_customer(
    draft: RetailTransaction, customer: StoredCustomer | None, deliver_to: str | None
) -> RetailTransaction:
    """The transaction with the customer's id in its normal form and, where it is one of his, the address."""
    if customer is None:
        return draft
    named = (one for one in customer.state.addresses if deliver_to is not None and one.address_id == deliver_to.lower())
    addresses = [
        DeliveryAddress(
            address_id=one.address_id,
            name=one.name,
            street=one.street,
            city=one.city,
            county=one.county,
            state=one.state,
            postal_code=one.postal_code,
            country=one.country,
        )
        for one in named
    ]
    return replace(draft, customer_id=customer.customer_id, delivery_address=next(iter(addresses), None))


def _delivery_reasons(transaction: RetailTransaction, deliver_to: str | None) -> list[Reason]:
    """What is wrong with the wish to deliver to that address."""
    if deliver_to is None or transaction.delivery_address is not None:
        return []
    if transaction.customer_id is None:
        return [Reason(field="delivery_address", code="no_customer", text="An address is one of a customer's.")]
    return [Reason(field="delivery_address", code="unknown_reference", text="The customer has no address of this id.")]


def append(
    connection: Connection, channel: OpenChannel, transaction: RetailTransaction, broken: Sequence[Reason] = ()
) -> None:
    """Judge a transaction and put it into the outbox, with the customer's newest unsettled event.

    The customer's row is locked. `broken` is what is known to be wrong with it. Raises: `TransactionRejected`.
    """
    event = None if transaction.customer_id is None else outbox.newest_unsettled(connection, transaction.customer_id)
    if event is not None:
        transaction = replace(transaction, customer_event_id=event[0], customer_event=event[1])
    _refuse([*broken, *transaction_reasons(transaction, {channel.name: channel.legal_entity_id})])
    try:
        payload = encode(contract("RetailTransaction"), to_avro(transaction))
    except UnicodeEncodeError:
        raise TransactionRejected([_NOT_UNICODE]) from None
    _refuse([_TOO_LARGE] if len(payload) > outbox.PAYLOAD_BYTES_MAX else [])
    outbox.append_transaction(connection, transaction, payload, datetime.now(UTC))


def resend_transaction(channel: OpenChannel, transaction_id: str) -> TransactionView:
    """Send a rejected order or cash-and-carry once more, with the customer's newest event; show any other as it is.

    Headquarters judges it anew. Raises: `NoSuchTransaction`, `TransactionRejected`, `DatabaseRefused`.
    """
    chosen = select(transactions).where(transactions.c.transaction_id.in_(normal_ids(transaction_id)))
    with writing(channel) as connection:
        for row in connection.execute(chosen).mappings():
            _lock_if_here(connection, row["customer_id"])
        lock_days(connection, shared=True)
        for row in connection.execute(chosen.with_for_update()).mappings():
            if row["status"] == TransactionStatus.REJECTED:
                outbox.take_out(connection, row["transaction_id"])
                append(connection, channel, from_row(channel, row))
                pending_again(connection, transactions.c.transaction_id, row["transaction_id"])
        return only_view(connection, channel, transaction_id)


def _lock_if_here(connection: Connection, customer_id: str | None) -> None:
    """Lock the customer's row before the transaction's, as settlement does; one who is gone has no events any more."""
    if customer_id is not None:
        with suppress(NoSuchCustomer):
            locked_customer(connection, customer_id)


def pending_again(connection: Connection, key: Column[str], value: str) -> None:
    """Take headquarters' word off the row with this key; its answers go on counting up."""
    table = key.table
    again = {"status": TransactionStatus.PENDING, "reasons": null(), "updated_at": datetime.now(UTC)}
    connection.execute(update(table).where(key == value).values(again))


def _guid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        said = "is no GUID such as 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
        raise TransactionRejected([Reason(field="transaction_id", code="invalid_id", text=said)]) from None


def _refuse(broken: Sequence[Reason]) -> None:
    if broken:
        raise TransactionRejected(broken)
