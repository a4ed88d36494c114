"""The clerks at the tills: they register customers and sell to them, with or without a connection to headquarters.

Most sales go to a customer who was just registered and has no account number yet. Each clerk records the sales in a
ledger.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from threading import Event, Thread
from typing import Final

from tenten.demo.ledger import Ledger, Sold
from tenten.demo.people import Person, people
from tenten.demo.stage import DemoFailed
from tenten.producers import (
    PENDING_SYNC,
    CustomerView,
    Item,
    NewAddress,
    OpenChannel,
    create_customer,
    edit_customer,
    open_channel,
    record_order,
    record_sale,
    show_customer,
)
from tenten.runtime.settings import Settings
from tenten.schemas.messages import CodedAmount, Payment, TransactionKind

CUSTOMERS_PER_SECOND: Final = 10
"""Per store; each of them buys something."""

_ARTICLES: Final = (
    Item(sku="TEA", quantity=Decimal(1), price=Decimal("4.50")),
    Item(sku="COFFEE", quantity=Decimal(1), price=Decimal("11.25")),
    Item(sku="CUP", quantity=Decimal(1), price=Decimal("7.99")),
    Item(sku="KETTLE", quantity=Decimal(1), price=Decimal("89.95")),
    Item(sku="BISCUIT", quantity=Decimal(1), price=Decimal("0.35")),
)
_FREIGHT: Final = Decimal("6.90")
_TAX_RATE: Final = Decimal("0.0825")
_CENT: Final = Decimal("0.01")
_CASH_AT_MOST: Final = Decimal("5.00")
"""Of a sale that is paid partly in cash."""


@contextmanager
def clerks(
    settings_of: Mapping[str, Settings], day: date, ledgers: Mapping[str, Ledger], *, first: int = 0
) -> Iterator[None]:
    """Clerks in every store that has a ledger, until the block ends. `first`: the number of the first clerk.

    Raises: `DemoFailed` if a clerk fails.
    """
    stop = Event()
    failed: list[BaseException] = []

    def clerk(number: int, name: str) -> None:
        try:
            with open_channel(settings_of[name], name) as till:
                _serve(till, number, day, ledgers[name], stop)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [Thread(target=clerk, args=(row, name), name=f"clerk-{name}") for row, name in enumerate(ledgers, first)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failed:
        raise DemoFailed(f"a clerk failed: {failed[0]}") from failed[0]


def _serve(till: OpenChannel, number: int, day: date, ledger: Ledger, stop: Event) -> None:
    """Serve people: every fourth orders, the others buy cash-and-carry."""
    random = Random(number)
    regulars: list[str] = []
    for person in people(seed=100 + number):
        if stop.wait(1 / CUSTOMERS_PER_SECOND):
            return
        customer = _register(till, person)
        ledger.customers += 1
        if person.number % 4 == 0:
            ledger.sold.append(_order(till, day, customer, random, delivered=person.number % 8 == 0))
        elif person.number % 10 == 1:
            ledger.sold.append(_sell(till, day, None, random))
        elif person.number % 10 == 7:
            regular = show_customer(till, random.choice(regulars))
            ledger.sold.append(_sell(till, day, regular, random, returned=True))
        else:
            ledger.sold.append(_sell(till, day, customer, random))
        if person.number % 10 == 0:
            edit_customer(till, customer.customer_id, title="Dr.")
        regulars.append(customer.customer_id)


def _register(till: OpenChannel, person: Person) -> CustomerView:
    return create_customer(
        till,
        first_name=person.first_name,
        last_name=person.last_name,
        email=person.email,
        phone=person.phone,
        address=NewAddress(street=person.street, city=person.city, state=person.state, postal_code=person.postal_code),
    )


def _order(till: OpenChannel, day: date, customer: CustomerView, random: Random, *, delivered: bool) -> Sold:
    """Record an order without payment; a delivery costs freight."""
    basket = _basket(random)
    freight = _FREIGHT if delivered else Decimal(0)
    tax = _tax(basket)
    total = _net(basket) + freight + tax
    view = record_order(
        till,
        lines=basket,
        customer_id=customer.customer_id,
        deliver_to=customer.state.primary_address if delivered else None,
        delivery_mode="PARCEL" if delivered else "PICKUP",
        charges=[CodedAmount(code="FREIGHT", amount=freight)] if delivered else [],
        taxes=[CodedAmount(code="SALES", amount=tax)],
        business_date=day,
    )
    return Sold(
        transaction_id=view.transaction_id,
        kind=TransactionKind.ORDER,
        customer_id=customer.customer_id,
        customer_pending=view.customer_number == PENDING_SYNC,
        currency="USD",
        total=total,
        paid={},
        returned=False,
        delivered=delivered,
    )


def _sell(
    till: OpenChannel, day: date, customer: CustomerView | None, random: Random, *, returned: bool = False
) -> Sold:
    """Record a cash-and-carry sale, sometimes in euros, perhaps with a return."""
    basket = _basket(random)
    if returned:
        basket[0] = replace(basket[0], quantity=-basket[0].quantity)
    currency = "EUR" if random.random() < 0.1 else "USD"
    tax = _tax(basket)
    total = _net(basket) + tax
    paid = _payment(total, random)
    view = record_sale(
        till,
        lines=basket,
        customer_id=None if customer is None else customer.customer_id,
        currency=currency,
        taxes=[CodedAmount(code="SALES", amount=tax)],
        payments=[Payment(method=method, amount=amount) for method, amount in paid.items()],
        business_date=day,
    )
    return Sold(
        transaction_id=view.transaction_id,
        kind=TransactionKind.CASH_AND_CARRY,
        customer_id=None if customer is None else customer.customer_id,
        customer_pending=view.customer_number == PENDING_SYNC,
        currency=currency,
        total=total,
        paid=paid,
        returned=returned,
        delivered=False,
    )


def _basket(random: Random) -> list[Item]:
    chosen = random.sample(_ARTICLES, random.randint(1, 3))
    return [replace(item, quantity=Decimal(random.randint(1, 4))) for item in chosen]


def _net(basket: list[Item]) -> Decimal:
    """Exact to the cent: whole articles at prices in cents."""
    return sum((item.quantity * item.price for item in basket), Decimal(0))


def _tax(basket: list[Item]) -> Decimal:
    return (_net(basket) * _TAX_RATE).quantize(_CENT, rounding=ROUND_HALF_UP)


def _payment(total: Decimal, random: Random) -> dict[str, Decimal]:
    """Amounts by payment method: by card, in cash, or both."""
    way = random.choice(("card", "cash", "both"))
    if way == "both" and total > _CASH_AT_MOST:
        return {"CASH": _CASH_AT_MOST, "CARD": total - _CASH_AT_MOST}
    return {"CARD" if way == "card" else "CASH": total}
