"""The rules for orders, cash-and-carry transactions and ends of days. Stores and headquarters judge by the same ones.

Money is Decimal. A reason says which field and which rule, never what stands in the field.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from functools import cache
from itertools import chain
from typing import Any, Final

from iso4217 import Currency

from tenten.rules.customer import plain_decimal
from tenten.rules.limits import DECIMAL_FRACTION_DIGITS_MAX, GUID, currencies
from tenten.schemas.messages import (
    CodedAmount,
    ControlTotal,
    Payment,
    Reason,
    RetailTransaction,
    TransactionKind,
    TransactionLine,
)

AMOUNT_MAX: Final = Decimal(10) ** 15
"""Amounts, prices and quantities stay below; what is exact here is exact in every spreadsheet, too."""

_EXACT: Final = Context(prec=80)
"""Room for the product of any two numbers that a transaction can hold."""

LINES_MAX: Final = 1_000
"""Lines, charges, taxes and payments of a transaction, each."""

LISTED_MAX: Final = 20_000
"""Transactions of one end of day: its record fits the topic."""

CHARACTERS_MAX: Final = {"sku": 60, "code": 60, "method": 60, "delivery_mode": 60}

_ADDRESS_CHARACTERS_MAX: Final = 250


@cache
def minor_unit(currency: str) -> Decimal:
    """The smallest amount of a currency: 0.01 for USD, 1 for JPY. Raises: `ValueError` for no currency.

    Source: ISO 4217; a currency without a minor unit, such as gold, is counted in whole units.
    """
    return Decimal(1).scaleb(-(Currency(currency).exponent or 0))


def is_currency(currency: str) -> bool:
    """Whether it is a code of ISO 4217."""
    return currency in currencies()


def line_amount(quantity: Decimal, price: Decimal, currency: str) -> Decimal:
    """Quantity times price, rounded half up, away from zero, to the currency's minor unit.

    >>> line_amount(Decimal(3), Decimal("0.335"), "USD"), line_amount(Decimal(-1), Decimal("0.005"), "USD")
    (Decimal('1.01'), Decimal('-0.01'))
    """
    with localcontext(_EXACT):
        return (quantity * price).quantize(minor_unit(currency), rounding=ROUND_HALF_UP)


def total_of(transaction: RetailTransaction) -> Decimal:
    """What the lines, charges and taxes add up to."""
    lines = sum((line.amount for line in transaction.lines), Decimal(0))
    return lines + sum((one.amount for one in (*transaction.charges, *transaction.taxes)), Decimal(0))


def control_totals(paid: Iterable[tuple[str, Sequence[Payment]]]) -> tuple[ControlTotal, ...]:
    """The sums of these payments, given with their currency: one a currency and payment method, sorted.

    >>> control_totals([("USD", [Payment(method="CASH", amount=Decimal("1.10"))])] * 2)
    (ControlTotal(currency='USD', payment_method='CASH', amount=Decimal('2.20')),)
    """
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for currency, payments in paid:
        for payment in payments:
            sums[currency, payment.method] += payment.amount
    return tuple(
        ControlTotal(currency=currency, payment_method=method, amount=amount)
        for (currency, method), amount in sorted(sums.items())
    )


def content_of(transaction: RetailTransaction) -> dict[str, Any]:
    """What both databases keep of an order or a cash-and-carry beside its columns. Fit for JSON: decimals as text."""
    address = transaction.delivery_address
    return {
        "lines": [
            {
                "sku": one.sku,
                "quantity": plain_decimal(one.quantity),
                "price": plain_decimal(one.price),
                "amount": plain_decimal(one.amount),
            }
            for one in transaction.lines
        ],
        "charges": [_coded(one) for one in transaction.charges],
        "taxes": [_coded(one) for one in transaction.taxes],
        "payments": [{"method": one.method, "amount": plain_decimal(one.amount)} for one in transaction.payments],
        "delivery_mode": transaction.delivery_mode,
        "delivery_address": None if address is None else {name: getattr(address, name) for name in address.__slots__},
    }


def _coded(one: CodedAmount) -> dict[str, str]:
    return {"code": one.code, "amount": plain_decimal(one.amount)}


def totals_as_json(totals: Iterable[ControlTotal]) -> list[dict[str, str]]:
    """Control totals fit for JSON."""
    return [
        {"currency": one.currency, "payment_method": one.payment_method, "amount": plain_decimal(one.amount)}
        for one in totals
    ]


def transaction_reasons(
    transaction: RetailTransaction, legal_entity_by_channel: Mapping[str, str]
) -> tuple[Reason, ...]:
    """Every rule that it breaks; empty for a valid one. Of a list that is too long only the first are looked at."""
    checks = _END_OF_DAY if transaction.kind is TransactionKind.END_OF_DAY else _SALE
    return tuple(chain(_channel(transaction, legal_entity_by_channel), *(check(transaction) for check in checks)))


def _channel(transaction: RetailTransaction, legal_entity_by_channel: Mapping[str, str]) -> Iterator[Reason]:
    owner = legal_entity_by_channel.get(transaction.channel_id)
    if owner is None:
        text = "Headquarters knows no channel of this name."
        yield Reason(field="channel_id", code="unknown_channel", text=text)
    elif owner != transaction.legal_entity:
        text = "The legal entity is not the one of this channel."
        yield Reason(field="legal_entity", code="other_legal_entity", text=text)


def _customer(transaction: RetailTransaction) -> Iterator[Reason]:
    for field in ("customer_id", "customer_event_id"):
        value = getattr(transaction, field)
        if value is not None and GUID.fullmatch(value) is None:
            yield Reason(field=field, code="invalid_id", text="An id is a GUID in lower case, with hyphens.")
    if (transaction.customer_event_id is None) != (transaction.customer_event is None):
        yield Reason(field="customer_event", code="incomplete", text="An event comes with its id.")
    if transaction.customer_event is not None and transaction.customer_id is None:
        yield Reason(field="customer_id", code="required", text="An event is of a customer.")


def _delivery(transaction: RetailTransaction) -> Iterator[Reason]:
    yield from _text("delivery_mode", transaction.delivery_mode, CHARACTERS_MAX["delivery_mode"], required=False)
    address = transaction.delivery_address
    if address is None:
        return
    if transaction.customer_id is None:
        yield Reason(field="delivery_address", code="no_customer", text="An address is one of a customer's.")
    if transaction.kind is TransactionKind.CASH_AND_CARRY:
        yield Reason(field="delivery_address", code="carried", text="What is taken along is not delivered.")
    if GUID.fullmatch(address.address_id) is None:
        text = "An id is a GUID in lower case, with hyphens."
        yield Reason(field="delivery_address/address_id", code="invalid_id", text=text)
    for name in ("name", "street", "city", "county", "state", "postal_code", "country"):
        value = getattr(address, name)
        yield from _text(f"delivery_address/{name}", value, _ADDRESS_CHARACTERS_MAX, required=False)


def _currency(transaction: RetailTransaction) -> Iterator[Reason]:
    if not is_currency(transaction.currency):
        text = "A currency is the three letters of ISO 4217, for example USD."
        yield Reason(field="currency", code="unknown_currency", text=text)


def _lists(transaction: RetailTransaction) -> Iterator[Reason]:
    if not transaction.lines:
        yield Reason(field="lines", code="required", text="There must be at least one line.")
    for field in ("lines", "charges", "taxes", "payments"):
        if len(getattr(transaction, field)) > LINES_MAX:
            yield Reason(field=field, code="too_many", text=f"There may be {LINES_MAX} at most.")


def _lines(transaction: RetailTransaction) -> Iterator[Reason]:
    returns = transaction.kind is TransactionKind.CASH_AND_CARRY
    for number, line in enumerate(transaction.lines[:LINES_MAX], 1):
        place = f"lines/{number}"
        yield from _text(f"{place}/sku", line.sku, CHARACTERS_MAX["sku"])
        numbers = [*_number(f"{place}/quantity", line.quantity), *_number(f"{place}/price", line.price)]
        yield from numbers
        if numbers:
            continue
        if line.quantity == 0 or (line.quantity < 0 and not returns):
            text = "A quantity is not 0, and only in cash-and-carry negative, for what is returned."
            yield Reason(field=f"{place}/quantity", code="out_of_range", text=text)
        if line.price < 0:
            yield Reason(field=f"{place}/price", code="out_of_range", text="A price is not negative.")
        yield from _line_amount(place, line, transaction.currency)


def _line_amount(place: str, line: TransactionLine, currency: str) -> Iterator[Reason]:
    wrong = list(_number(f"{place}/amount", line.amount))
    yield from wrong
    if not wrong and is_currency(currency) and line.amount != line_amount(line.quantity, line.price, currency):
        text = "The amount of a line is its quantity times its price, rounded half up."
        yield Reason(field=f"{place}/amount", code="does_not_add_up", text=text)


def _amounts(transaction: RetailTransaction) -> Iterator[Reason]:
    """Charges, taxes and payments."""
    named = [(f"charges/{row}", one.code, one.amount) for row, one in enumerate(transaction.charges[:LINES_MAX], 1)]
    named += [(f"taxes/{row}", one.code, one.amount) for row, one in enumerate(transaction.taxes[:LINES_MAX], 1)]
    for place, code, amount in named:
        yield from _text(f"{place}/code", code, CHARACTERS_MAX["code"])
        yield from _money(f"{place}/amount", amount, transaction.currency)
    for row, payment in enumerate(transaction.payments[:LINES_MAX], 1):
        yield from _text(f"payments/{row}/method", payment.method, CHARACTERS_MAX["method"])
        yield from _money(f"payments/{row}/amount", payment.amount, transaction.currency)


def _totals(transaction: RetailTransaction) -> Iterator[Reason]:
    numbers = [line.amount for line in transaction.lines]
    numbers += [one.amount for one in (*transaction.charges, *transaction.taxes)]
    numbers += [payment.amount for payment in transaction.payments]
    wrong = list(_number("total", transaction.total))
    yield from wrong
    if wrong or not all(number.is_finite() for number in numbers):
        return
    if transaction.total != total_of(transaction):
        text = "The total is the sum of lines, charges and taxes."
        yield Reason(field="total", code="does_not_add_up", text=text)
    paid = sum((payment.amount for payment in transaction.payments), Decimal(0))
    if transaction.kind is TransactionKind.CASH_AND_CARRY and paid != transaction.total:
        text = "What is taken along is paid: the payments are as much as the total."
        yield Reason(field="payments", code="does_not_add_up", text=text)
    if transaction.kind is TransactionKind.ORDER and not 0 <= paid <= max(transaction.total, Decimal(0)):
        text = "What is paid of an order lies between nothing and its total."
        yield Reason(field="payments", code="does_not_add_up", text=text)


def _no_day(transaction: RetailTransaction) -> Iterator[Reason]:
    for field in ("listed", "control_totals"):
        if getattr(transaction, field):
            yield Reason(field=field, code="misplaced", text="Only the end of a day has this.")


def _only_day(transaction: RetailTransaction) -> Iterator[Reason]:
    for field in ("customer_id", "customer_event", "delivery_address", "lines", "charges", "taxes", "payments"):
        if getattr(transaction, field):
            yield Reason(field=field, code="misplaced", text="The end of a day does not have this.")


def _listed(transaction: RetailTransaction) -> Iterator[Reason]:
    if len(transaction.listed) > LISTED_MAX:
        yield Reason(field="listed", code="too_many", text=f"There may be {LISTED_MAX} at most.")
    if not all(GUID.fullmatch(one) for one in transaction.listed):
        yield Reason(field="listed", code="invalid_id", text="An id is a GUID in lower case, with hyphens.")
    elif len(set(transaction.listed)) < len(transaction.listed):
        yield Reason(field="listed", code="duplicate", text="A transaction is listed once.")


def _control_totals(transaction: RetailTransaction) -> Iterator[Reason]:
    if len(transaction.control_totals) > LINES_MAX:
        yield Reason(field="control_totals", code="too_many", text=f"There may be {LINES_MAX} at most.")
    names = [(one.currency, one.payment_method) for one in transaction.control_totals]
    if len(set(names)) < len(names):
        text = "There is one total for a currency and payment method."
        yield Reason(field="control_totals", code="duplicate", text=text)
    for row, one in enumerate(transaction.control_totals[:LINES_MAX], 1):
        if not is_currency(one.currency):
            text = "A currency is the three letters of ISO 4217, for example USD."
            yield Reason(field=f"control_totals/{row}/currency", code="unknown_currency", text=text)
        yield from _text(f"control_totals/{row}/payment_method", one.payment_method, CHARACTERS_MAX["method"])
        yield from _number(f"control_totals/{row}/amount", one.amount)


_SALE: Final = (_customer, _delivery, _currency, _lists, _lines, _amounts, _totals, _no_day)
_END_OF_DAY: Final = (_only_day, _listed, _control_totals)


def _text(field: str, value: str, characters_max: int, *, required: bool = True) -> Iterator[Reason]:
    if required and not value.strip():
        yield Reason(field=field, code="required", text="This must be said.")
    if len(value) > characters_max:
        yield Reason(field=field, code="too_long", text=f"It may have {characters_max} characters at most.")
    if "\x00" in value:
        yield Reason(field=field, code="nul", text="Contains a NUL character.")


def _number(field: str, value: Decimal) -> Iterator[Reason]:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(value) >= AMOUNT_MAX:
        yield Reason(field=field, code="out_of_range", text=f"It is a number below {AMOUNT_MAX:,}.")
    elif value != round(value, DECIMAL_FRACTION_DIGITS_MAX):
        text = f"It may have {DECIMAL_FRACTION_DIGITS_MAX} digits behind the point at most."
        yield Reason(field=field, code="too_precise", text=text)


def _money(field: str, value: Decimal, currency: str) -> Iterator[Reason]:
    """An amount that somebody pays: of whole minor units."""
    wrong = list(_number(field, value))
    yield from wrong
    if not wrong and is_currency(currency) and value % minor_unit(currency):
        text = "An amount has no smaller part than the currency's minor unit."
        yield Reason(field=field, code="too_precise", text=text)
