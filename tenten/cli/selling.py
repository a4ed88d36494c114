"""What `tenten order`, `tenten sale` and `tenten day` share: options, how they are understood, and what is shown."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.output import print_fields, print_json, print_line, print_table, report, report_reasons
from tenten.schemas.messages import reasons_as_json

if TYPE_CHECKING:
    from tenten.producers import Item, TransactionView
    from tenten.schemas.messages import CodedAmount, DeliveryAddress, Payment

Lines = Annotated[
    list[str],
    typer.Option(
        "--line",
        metavar="SKU:QUANTITY:PRICE",
        show_default=False,
        help="An article, how many, and the price of one, for example TEA:2:4.50. Repeatable.",
    ),
]
CustomerOption = Annotated[
    str | None,
    typer.Option("--customer", metavar="ID", show_default=False, help="The customer's GUID, pending or not."),
]
Charges = Annotated[
    list[str] | None,
    typer.Option(
        "--charge",
        metavar="CODE:AMOUNT",
        show_default=False,
        help="Freight, wrapping; negative for a discount on the whole. Repeatable.",
    ),
]
Taxes = Annotated[
    list[str] | None,
    typer.Option("--tax", metavar="CODE:AMOUNT", show_default=False, help="A tax on it all. Repeatable."),
]
CurrencyOption = Annotated[
    str | None,
    typer.Option("--currency", metavar="C", show_default=False, help="ISO 4217. Unless said, the legal entity's."),
]
DateOption = Annotated[
    str | None,
    typer.Option(
        "--date",
        metavar="YYYY-MM-DD",
        show_default=False,
        help="The business date. Unless said, today in the channel's time zone.",
    ),
]
OwnId = Annotated[
    str | None,
    typer.Option(
        "--transaction-id",
        metavar="GUID",
        show_default=False,
        help="An id of your own: the same call again then records nothing more.",
    ),
]
TransactionId = Annotated[str, typer.Argument(metavar="ID", help="The GUID that `create` gave.", show_default=False)]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="At most so many.")]


def _refused_order(reasons: list[dict[str, str]]) -> dict[str, Any]:
    return {"transaction_id": None, "status": "rejected", "sales_order": None, "reasons": reasons}


@contextmanager
def refusals(json: bool, as_json: Callable[[list[dict[str, str]]], Any] = _refused_order) -> Generator[None]:
    """Show every reason of what is refused, as JSON in the form of the command's answer, and end with exit code 1."""
    from tenten.runtime.errors import TransactionRejected

    try:
        yield
    except TransactionRejected as refusal:
        if json:
            print_json(as_json(reasons_as_json(refusal.reasons)))
        else:
            report("Refused, nothing was written:")
            report_reasons(refusal.reasons)
        raise typer.Exit(FAILED) from refusal


def items(said: Sequence[str]) -> "list[Item]":
    """`TEA:2:4.50` as articles; a colon may be part of the SKU. Raises: `typer.BadParameter`."""
    from tenten.producers import Item

    found = []
    for one in said:
        sku, quantity, price = _parts(one, "SKU:QUANTITY:PRICE", "--line")
        found.append(Item(sku=sku, quantity=_number(quantity, "--line"), price=_number(price, "--line")))
    return found


def coded_amounts(said: Sequence[str] | None, option: str) -> "list[CodedAmount]":
    """`FREIGHT:5.00` as charges or taxes. Raises: `typer.BadParameter`."""
    from tenten.schemas.messages import CodedAmount

    split = (_parts(one, "CODE:AMOUNT", option) for one in said or ())
    return [CodedAmount(code=code, amount=_number(amount, option)) for code, amount in split]


def payments(said: Sequence[str] | None) -> "list[Payment]":
    """`CARD:9.00` as payments. Raises: `typer.BadParameter`."""
    from tenten.schemas.messages import Payment

    split = (_parts(one, "METHOD:AMOUNT", "--payment") for one in said or ())
    return [Payment(method=method, amount=_number(amount, "--payment")) for method, amount in split]


def business_date(said: str | None) -> date | None:
    """The date that was said. Raises: `typer.BadParameter`."""
    try:
        return None if said is None else date.fromisoformat(said)
    except ValueError:
        raise typer.BadParameter(f"{said!r} is no date such as 2026-03-31", param_hint="--date") from None


def _parts(said: str, form: str, option: str) -> list[str]:
    parts = said.rsplit(":", form.count(":"))
    if len(parts) <= form.count(":"):
        raise typer.BadParameter(f"{said!r} is not {form}", param_hint=option)
    return parts


def _number(said: str, option: str) -> Decimal:
    try:
        number = Decimal(said.strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise typer.BadParameter(f"{said!r} is no number such as 4.50", param_hint=option)
    return number


def show_recorded(view: "TransactionView", json: bool) -> None:
    """What has just been recorded."""
    if json:
        print_json(as_json(view))
    else:
        print_line("  ".join((view.status, _total(view), _customer(view), view.transaction_id)))


def show(view: "TransactionView", json: bool) -> None:
    """Everything about one."""
    sale = view.transaction
    if json:
        print_json(as_json(view))
        return
    print_fields(
        (
            ("id", view.transaction_id),
            ("kind", sale.kind.lower().replace("_", " ")),
            ("status", view.status),
            ("sales order", view.sales_order),
            ("business date", sale.business_date),
            ("recorded at", sale.occurred_at.isoformat(timespec="seconds")),
            ("customer", _customer(view)),
            ("total", _total(view)),
            ("delivery mode", sale.delivery_mode),
            ("deliver to", _address(sale.delivery_address)),
            ("end of day", view.end_of_day_id),
        )
    )
    shown = as_json(view)
    for line in shown["lines"]:
        print_line(f"line     {line['sku']}: {line['quantity']} at {line['price']} = {line['amount']}")
    for name in ("charge", "tax"):
        for one in shown["charges" if name == "charge" else "taxes"]:
            print_line(f"{name:<7}  {one['code']}: {one['amount']}")
    for one in shown["payments"]:
        print_line(f"payment  {one['method']}: {one['amount']}")
    report_reasons(view.reasons)


def show_list(views: "Sequence[TransactionView]", json: bool) -> None:
    """One line each."""
    if json:
        print_json([as_json(view) for view in views])
    elif views:
        rows = [
            (
                view.transaction.business_date,
                view.status,
                _total(view),
                _customer(view),
                view.sales_order,
                view.transaction_id,
            )
            for view in views
        ]
        print_table(("date", "status", "total", "customer", "sales order", "id"), rows)
    else:
        report("None found")


def as_json(view: "TransactionView") -> dict[str, Any]:
    """An order or a cash-and-carry as one object; money as text, with the digits of its currency."""
    from tenten.rules.customer import plain_decimal
    from tenten.rules.transaction_rules import content_of

    sale, customer = view.transaction, view.customer
    content = content_of(sale)
    lines = [
        {
            "sku": one.sku,
            "quantity": plain_decimal(one.quantity),
            "price": money(one.price, sale.currency),
            "amount": money(one.amount, sale.currency),
        }
        for one in sale.lines
    ]
    return {
        "transaction_id": view.transaction_id,
        "status": view.status.value,
        "sales_order": view.sales_order,
        "reasons": reasons_as_json(view.reasons),
        "kind": sale.kind.lower(),
        "business_date": sale.business_date.isoformat(),
        "customer_id": sale.customer_id,
        "customer": None
        if customer is None
        else {"account_number": customer.account_number, "display_name": customer.display_name},
        "currency": sale.currency,
        "total": money(sale.total, sale.currency),
        "lines": lines,
        "charges": [{"code": one.code, "amount": money(one.amount, sale.currency)} for one in sale.charges],
        "taxes": [{"code": one.code, "amount": money(one.amount, sale.currency)} for one in sale.taxes],
        "payments": [{"method": one.method, "amount": money(one.amount, sale.currency)} for one in sale.payments],
        "delivery_mode": sale.delivery_mode,
        "delivery_address": content["delivery_address"],
        "end_of_day_id": view.end_of_day_id,
        "occurred_at": sale.occurred_at.isoformat(),
        "updated_at": view.updated_at.isoformat(),
    }


def money(amount: Decimal, currency: str) -> str:
    """The amount with the digits of its currency; with more where it has more.

    >>> money(Decimal("4.5"), "USD"), money(Decimal("0.335"), "USD"), money(Decimal("4"), "JPY")
    ('4.50', '0.335', '4')
    """
    from tenten.rules.customer import plain_decimal
    from tenten.rules.transaction_rules import minor_unit

    counted = amount.quantize(minor_unit(currency))
    return str(counted) if counted == amount else plain_decimal(amount)


def _total(view: "TransactionView") -> str:
    return f"{money(view.transaction.total, view.transaction.currency)} {view.transaction.currency}"


def _customer(view: "TransactionView") -> str:
    """Number and name; a clerk never sees the GUID."""
    if view.customer is not None:
        return f"{view.customer.display_number} {view.customer.display_name}".rstrip()
    return "-" if view.transaction.customer_id is None else "no longer here"


def _address(address: "DeliveryAddress | None") -> str:
    if address is None:
        return ""
    parts = (address.name, address.street, address.city, address.state, address.postal_code, address.country)
    return ", ".join(filter(None, parts))
