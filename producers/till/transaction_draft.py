"""Compute an order or a sale from the caller's input: amounts and total, not yet validated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from tenten.producers.till.customer_input import AttributeValue
from tenten.producers.till.customer_merge import attribute_of
from tenten.producers.till.customers import new_id
from tenten.producers.till.ids import invalid_id, parse_id
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.operators import operator_of
from tenten.rules.customer import plain_decimal
from tenten.rules.definitions import as_defined, with_initial_attributes
from tenten.rules.transaction_rules import AMOUNT_MAX, is_currency, line_amount, total_of
from tenten.runtime.errors import TransactionRejected
from tenten.schemas.messages import (
    Attribute,
    AttributeDefinition,
    CodedAmount,
    Payment,
    RetailTransaction,
    TransactionKind,
    TransactionLine,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An article that is sold, or returned where the quantity is negative."""

    sku: str
    quantity: Decimal
    price: Decimal
    """The unit price, without taxes."""


def draft_transaction(
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
    attributes: Mapping[str, AttributeValue],
    business_date: date | None,
    operator: str | None,
    transaction_id: str | None,
) -> RetailTransaction:
    """The transaction of this input, without the parts that only the database knows.

    Raises: `TransactionRejected` for a malformed transaction id.
    """
    default_currency = channel.settings.legal_entity_of(channel.name).currency
    currency = default_currency if currency is None else currency
    rounding_currency = currency if is_currency(currency) else default_currency
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
        lines=tuple(_line(item, rounding_currency) for item in items),
        charges=_coded_amounts(charges),
        taxes=_coded_amounts(taxes),
        payments=tuple(Payment(method=payment.method, amount=_plain(payment.amount)) for payment in payments),
        operator=operator_of(channel, operator),
        attributes=_attributes(channel.transaction_definitions.of_kind(kind), attributes),
    )
    return replace(draft, total=_total(draft))


def today(channel: OpenChannel) -> date:
    """The channel's business day: until its cut-off hour that of yesterday, in its time zone."""
    settings = channel.settings.channel(channel.name)
    return (datetime.now(ZoneInfo(settings.time_zone)) - timedelta(hours=settings.cut_off_hour)).date()


def _coded_amounts(amounts: Sequence[CodedAmount]) -> tuple[CodedAmount, ...]:
    return tuple(CodedAmount(code=amount.code, amount=_plain(amount.amount)) for amount in amounts)


def _attributes(
    defined: Mapping[str, AttributeDefinition], values: Mapping[str, AttributeValue]
) -> tuple[Attribute, ...]:
    """The attributes in the kinds that are defined, with the initial values of those that are missing, by name."""
    entered = (as_defined(defined.get(name), attribute_of(name, value)) for name, value in sorted(values.items()))
    return with_initial_attributes(defined, tuple(entered))


def _line(item: Item, currency: str) -> TransactionLine:
    """The line; its amount is 0 where quantity or price are too large to be multiplied."""
    quantity, price = _plain(item.quantity), _plain(item.price)
    amount = Decimal(0)
    if _is_in_range(quantity) and _is_in_range(price):
        amount = quantity * price
        amount = line_amount(quantity, price, currency) if _is_in_range(amount) else amount
    return TransactionLine(sku=item.sku, quantity=quantity, price=price, amount=amount)


def _total(draft: RetailTransaction) -> Decimal:
    """The sum of lines, charges and taxes; out of range if one of them is, 0 if one is not a number."""
    amounts = [entry.amount for part in (draft.lines, draft.charges, draft.taxes) for entry in part]
    if all(_is_in_range(amount) for amount in amounts):
        return total_of(draft)
    return AMOUNT_MAX if all(amount.is_finite() for amount in amounts) else Decimal(0)


def _plain(number: Decimal) -> Decimal:
    """The number without trailing zeros, which could exceed the scale of the Avro type."""
    return Decimal(plain_decimal(number)) if _is_in_range(number) else number


def _is_in_range(number: Decimal) -> bool:
    return number.is_finite() and abs(number) < AMOUNT_MAX


def _guid(text: str) -> str:
    guid = parse_id(text)
    if guid is None:
        raise TransactionRejected([invalid_id("transaction_id")])
    return str(guid)
