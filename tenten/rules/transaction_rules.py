"""The rules for orders, cash-and-carry sales and end-of-day events, the same in stores and at headquarters.

Money is Decimal. A reason names the field and the rule, never the value.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from functools import cache
from itertools import chain, islice
from typing import Final

from iso4217 import Currency

from tenten.rules.customer import plain_decimal
from tenten.rules.customer_rules import attribute_reasons
from tenten.rules.definitions import TransactionDefinitions, attribute_violations
from tenten.rules.field_rules import Text
from tenten.rules.field_violations import violations
from tenten.rules.limits import (
    DECIMAL_FRACTION_DIGITS_MAX,
    REASONS_MAX,
    TIME_MAX,
    TIME_MIN,
    currencies,
    is_guid,
)
from tenten.rules.operator_rule import operator_violations
from tenten.schemas.messages import (
    ControlTotal,
    Payment,
    Reason,
    RetailTransaction,
    TransactionKind,
    TransactionLine,
)

AMOUNT_MAX: Final = Decimal(10) ** 15
"""Amounts, prices and quantities are smaller than this, so that spreadsheets show them exactly, too."""

_EXACT: Final = Context(prec=80)
"""Precise enough for the product of any two numbers of a transaction."""

LINES_MAX: Final = 1_000
"""Maximum number of lines, charges, taxes and payments, each."""

BUSINESS_DATE_MIN: Final = TIME_MIN.date()
BUSINESS_DATE_MAX: Final = TIME_MAX.date()
"""What headquarters can read. No clock is so wrong: a store whose clock is must still sell."""

LISTED_MAX: Final = 20_000
"""Maximum number of transactions of one end of day, so that its record fits the topic."""

CHARACTERS_MAX: Final = {"sku": 60, "code": 60, "method": 60, "delivery_mode": 60}

_ADDRESS_CHARACTERS_MAX: Final = 250

_ID_TEXT: Final = "Not a valid id: it must be a GUID in lower case with hyphens."
_CURRENCY_TEXT: Final = "Not a valid currency: it must be a code of ISO 4217, such as USD."


@cache
def minor_unit(currency: str) -> Decimal:
    """The smallest amount of a currency: 0.01 for USD, 1 for JPY. Raises: `ValueError` if unknown.

    Source: ISO 4217; a currency without a minor unit, such as gold, is counted in whole units.
    """
    return Decimal(1).scaleb(-(Currency(currency).exponent or 0))


def is_currency(currency: str) -> bool:
    """Whether this is a code of ISO 4217."""
    return currency in currencies()


def money(amount: Decimal, currency: str) -> str:
    """The amount as text with the digits of its currency; with more if it has more.

    >>> money(Decimal("4.5"), "USD"), money(Decimal("0.335"), "USD"), money(Decimal("4"), "JPY")
    ('4.50', '0.335', '4')
    """
    if not is_currency(currency):
        return plain_decimal(amount)
    rounded = amount.quantize(minor_unit(currency))
    return str(rounded) if rounded == amount else plain_decimal(amount)


def line_amount(quantity: Decimal, price: Decimal, currency: str) -> Decimal:
    """Quantity times price, rounded half up, away from zero, to the currency's minor unit.

    >>> line_amount(Decimal(3), Decimal("0.335"), "USD"), line_amount(Decimal(-1), Decimal("0.005"), "USD")
    (Decimal('1.01'), Decimal('-0.01'))
    """
    with localcontext(_EXACT):
        return (quantity * price).quantize(minor_unit(currency), rounding=ROUND_HALF_UP)


def total_of(transaction: RetailTransaction) -> Decimal:
    """The sum of lines, charges and taxes."""
    lines = sum((line.amount for line in transaction.lines), Decimal(0))
    return lines + sum((item.amount for item in (*transaction.charges, *transaction.taxes)), Decimal(0))


def control_totals(paid: Iterable[tuple[str, Sequence[Payment]]]) -> tuple[ControlTotal, ...]:
    """The sums of these payments, given with their currency: one per currency and payment method, sorted.

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


def transaction_violations(
    transaction: RetailTransaction,
    legal_entity_by_channel: Mapping[str, str],
    definitions: Mapping[str, TransactionDefinitions],
) -> tuple[Reason, ...]:
    """The violated rules, at most `REASONS_MAX`; empty for a valid transaction. Of a list that is too long, the first
    members are checked. `definitions`: by legal entity, of those that have defined something.
    """
    checks = _END_OF_DAY if transaction.kind is TransactionKind.END_OF_DAY else _SALE
    outside = (
        _channel(transaction, legal_entity_by_channel),
        operator_violations(transaction.operator),
        _business_date(transaction),
        _definitions(transaction, definitions.get(transaction.legal_entity)),
    )
    return tuple(islice(chain(*outside, *(check(transaction) for check in checks)), REASONS_MAX))


def _definitions(transaction: RetailTransaction, definitions: TransactionDefinitions | None) -> Iterator[Reason]:
    if definitions is not None:
        whose = "Orders" if transaction.kind is TransactionKind.ORDER else "Sales"
        yield from attribute_violations(definitions.of_kind(transaction.kind), transaction.attributes, whose)


def _channel(transaction: RetailTransaction, legal_entity_by_channel: Mapping[str, str]) -> Iterator[Reason]:
    owner = legal_entity_by_channel.get(transaction.channel_id)
    if owner is None:
        text = "Headquarters has no channel of this name."
        yield Reason(field="channel_id", code="unknown_channel", text=text)
    elif owner != transaction.legal_entity:
        text = "The legal entity is not that of this channel."
        yield Reason(field="legal_entity", code="other_legal_entity", text=text)


def _business_date(transaction: RetailTransaction) -> Iterator[Reason]:
    if not BUSINESS_DATE_MIN <= transaction.business_date <= BUSINESS_DATE_MAX:
        text = f"The business date must be from {BUSINESS_DATE_MIN} to {BUSINESS_DATE_MAX}."
        yield Reason(field="business_date", code="out_of_range", text=text)


def _customer(transaction: RetailTransaction) -> Iterator[Reason]:
    for field in ("customer_id", "customer_event_id"):
        value = getattr(transaction, field)
        if value is not None and not is_guid(value):
            yield Reason(field=field, code="invalid_id", text=_ID_TEXT)
    if (transaction.customer_event_id is None) != (transaction.customer_event is None):
        yield Reason(
            field="customer_event",
            code="incomplete",
            text="customer_event and customer_event_id must be given together.",
        )
    if transaction.customer_event is not None and transaction.customer_id is None:
        yield Reason(field="customer_id", code="required", text="customer_id is required when customer_event is set.")


def _delivery(transaction: RetailTransaction) -> Iterator[Reason]:
    yield from _text("delivery_mode", transaction.delivery_mode, CHARACTERS_MAX["delivery_mode"], required=False)
    address = transaction.delivery_address
    if address is None:
        return
    if transaction.customer_id is None:
        yield Reason(field="delivery_address", code="no_customer", text="A delivery address requires a customer.")
    if transaction.kind is TransactionKind.CASH_AND_CARRY:
        yield Reason(field="delivery_address", code="carried", text="A cash-and-carry sale has no delivery address.")
    if not is_guid(address.address_id):
        yield Reason(field="delivery_address.address_id", code="invalid_id", text=_ID_TEXT)
    for name in ("name", "street", "city", "county", "state", "postal_code", "country"):
        value = getattr(address, name)
        yield from _text(f"delivery_address.{name}", value, _ADDRESS_CHARACTERS_MAX, required=False)


def _attributes(transaction: RetailTransaction) -> Iterator[Reason]:
    yield from attribute_reasons(transaction.attributes)


def _currency(transaction: RetailTransaction) -> Iterator[Reason]:
    if not is_currency(transaction.currency):
        yield Reason(field="currency", code="unknown_currency", text=_CURRENCY_TEXT)


def _lists(transaction: RetailTransaction) -> Iterator[Reason]:
    if not transaction.lines:
        yield Reason(field="lines", code="required", text="At least one line is required.")
    for field in ("lines", "charges", "taxes", "payments"):
        if len(getattr(transaction, field)) > LINES_MAX:
            yield Reason(field=field, code="too_many", text=f"At most {LINES_MAX:,} are allowed.")


def _lines(transaction: RetailTransaction) -> Iterator[Reason]:
    returns = transaction.kind is TransactionKind.CASH_AND_CARRY
    for index, line in enumerate(transaction.lines[:LINES_MAX]):
        path = f"lines[{index}]"
        yield from _text(f"{path}.sku", line.sku, CHARACTERS_MAX["sku"])
        numbers = [*_number(f"{path}.quantity", line.quantity), *_number(f"{path}.price", line.price)]
        yield from numbers
        if numbers:
            continue
        if line.quantity == 0 or (line.quantity < 0 and not returns):
            text = "Quantity must not be 0. Negative quantities (returns) are allowed only in cash-and-carry sales."
            yield Reason(field=f"{path}.quantity", code="out_of_range", text=text)
        if line.price < 0:
            yield Reason(field=f"{path}.price", code="out_of_range", text="Price must not be negative.")
        yield from _line_amount(path, line, transaction.currency)


def _line_amount(path: str, line: TransactionLine, currency: str) -> Iterator[Reason]:
    wrong = list(_number(f"{path}.amount", line.amount))
    yield from wrong
    if not wrong and is_currency(currency) and line.amount != line_amount(line.quantity, line.price, currency):
        text = "Amount must be quantity times price, rounded half up."
        yield Reason(field=f"{path}.amount", code="does_not_add_up", text=text)


def _amounts(transaction: RetailTransaction) -> Iterator[Reason]:
    """Charges, taxes and payments."""
    for name, items in (("charges", transaction.charges), ("taxes", transaction.taxes)):
        for index, item in enumerate(items[:LINES_MAX]):
            yield from _text(f"{name}[{index}].code", item.code, CHARACTERS_MAX["code"])
            yield from _money(f"{name}[{index}].amount", item.amount, transaction.currency)
    for index, payment in enumerate(transaction.payments[:LINES_MAX]):
        yield from _text(f"payments[{index}].method", payment.method, CHARACTERS_MAX["method"])
        yield from _money(f"payments[{index}].amount", payment.amount, transaction.currency)


def _totals(transaction: RetailTransaction) -> Iterator[Reason]:
    numbers = [line.amount for line in transaction.lines]
    numbers += [item.amount for item in (*transaction.charges, *transaction.taxes)]
    numbers += [payment.amount for payment in transaction.payments]
    wrong = list(_number("total", transaction.total))
    yield from wrong
    if wrong or not all(number.is_finite() for number in numbers):
        return
    if transaction.total != total_of(transaction):
        text = "Total must be the sum of lines, charges and taxes."
        yield Reason(field="total", code="does_not_add_up", text=text)
    paid = sum((payment.amount for payment in transaction.payments), Decimal(0))
    if transaction.kind is TransactionKind.CASH_AND_CARRY and paid != transaction.total:
        text = "Payments must equal the total of a cash-and-carry sale."
        yield Reason(field="payments", code="does_not_add_up", text=text)
    if transaction.kind is TransactionKind.ORDER and not 0 <= paid <= max(transaction.total, Decimal(0)):
        text = "Payments of an order must be between 0 and its total."
        yield Reason(field="payments", code="does_not_add_up", text=text)


def _not_end_of_day(transaction: RetailTransaction) -> Iterator[Reason]:
    for field in ("listed", "control_totals"):
        if getattr(transaction, field):
            yield Reason(field=field, code="misplaced", text="Allowed only in an end of day.")


def _only_end_of_day(transaction: RetailTransaction) -> Iterator[Reason]:
    for field in (
        *("customer_id", "customer_event", "delivery_address", "lines", "charges", "taxes", "payments", "attributes"),
    ):
        if getattr(transaction, field):
            yield Reason(field=field, code="misplaced", text="Not allowed in an end of day.")


def _listed(transaction: RetailTransaction) -> Iterator[Reason]:
    if len(transaction.listed) > LISTED_MAX:
        yield Reason(field="listed", code="too_many", text=f"At most {LISTED_MAX:,} are allowed.")
    if not all(map(is_guid, transaction.listed)):
        yield Reason(field="listed", code="invalid_id", text=_ID_TEXT)
    elif len(set(transaction.listed)) < len(transaction.listed):
        yield Reason(field="listed", code="duplicate", text="A transaction is listed more than once.")


def _control_totals(transaction: RetailTransaction) -> Iterator[Reason]:
    if len(transaction.control_totals) > LINES_MAX:
        yield Reason(field="control_totals", code="too_many", text=f"At most {LINES_MAX:,} are allowed.")
    names = [(total.currency, total.payment_method) for total in transaction.control_totals]
    if len(set(names)) < len(names):
        text = "A currency and payment method has more than one total."
        yield Reason(field="control_totals", code="duplicate", text=text)
    for index, total in enumerate(transaction.control_totals[:LINES_MAX]):
        if not is_currency(total.currency):
            yield Reason(field=f"control_totals[{index}].currency", code="unknown_currency", text=_CURRENCY_TEXT)
        yield from _text(f"control_totals[{index}].payment_method", total.payment_method, CHARACTERS_MAX["method"])
        yield from _number(f"control_totals[{index}].amount", total.amount)


_SALE: Final = (_customer, _delivery, _attributes, _currency, _lists, _lines, _amounts, _totals, _not_end_of_day)
_END_OF_DAY: Final = (_only_end_of_day, _listed, _control_totals)


def _text(field: str, value: str, characters_max: int, *, required: bool = True) -> Iterator[Reason]:
    if required and not value.strip():
        yield Reason(field=field, code="required", text="This field is required.")
    yield from violations(Text(characters_max), field, value)


def _number(field: str, value: Decimal) -> Iterator[Reason]:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(value) >= AMOUNT_MAX:
        yield Reason(field=field, code="out_of_range", text=f"Must be a number below {AMOUNT_MAX:,}.")
    elif value != round(value, DECIMAL_FRACTION_DIGITS_MAX):
        text = f"At most {DECIMAL_FRACTION_DIGITS_MAX} decimal places are allowed."
        yield Reason(field=field, code="too_precise", text=text)


def _money(field: str, value: Decimal, currency: str) -> Iterator[Reason]:
    """Violations of an amount of money: it has whole minor units."""
    wrong = list(_number(field, value))
    yield from wrong
    if not wrong and is_currency(currency) and value % minor_unit(currency):
        text = "Amounts must be whole multiples of the currency's minor unit."
        yield Reason(field=field, code="too_precise", text=text)
