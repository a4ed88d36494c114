"""Options of `tenten order`, `tenten sale` and `tenten day`, and their values."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tenten.producers import Item
    from tenten.schemas.messages import CodedAmount, Payment

Lines = Annotated[
    list[str],
    typer.Option(
        "--line",
        metavar="SKU:QUANTITY:PRICE",
        show_default=False,
        help="An article, its quantity and its unit price, for example TEA:2:4.50. Repeatable.",
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
        help="Freight or wrapping; negative for a discount on the total. Repeatable.",
    ),
]
Taxes = Annotated[
    list[str] | None,
    typer.Option("--tax", metavar="CODE:AMOUNT", show_default=False, help="A tax on the total. Repeatable."),
]
Attributes = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute",
        metavar="NAME=VALUE",
        show_default=False,
        help="An additional field, as headquarters has defined it. Repeatable.",
    ),
]
CurrencyOption = Annotated[
    str | None,
    typer.Option("--currency", metavar="C", show_default=False, help="ISO 4217. Default: the legal entity's currency."),
]
DateOption = Annotated[
    str | None,
    typer.Option(
        "--date",
        metavar="YYYY-MM-DD",
        show_default=False,
        help="The business date. Default: today in the channel's time zone.",
    ),
]
OfDate = Annotated[
    str | None,
    typer.Option("--date", metavar="YYYY-MM-DD", show_default=False, help="Only those of this business date."),
]
OwnId = Annotated[
    str | None,
    typer.Option(
        "--transaction-id",
        metavar="GUID",
        show_default=False,
        help="Your own id: a repeated call with the same id records nothing.",
    ),
]
TransactionId = Annotated[
    str, typer.Argument(metavar="ID", help="The GUID that `create` returned.", show_default=False)
]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Maximum number of results.")]


def items(texts: Sequence[str]) -> "list[Item]":
    """`TEA:2:4.50` as articles; the SKU may contain colons. Raises: `typer.BadParameter`."""
    from tenten.producers import Item

    parsed = (_parts(text, "SKU:QUANTITY:PRICE", "--line") for text in texts)
    return [
        Item(sku=sku, quantity=_number(quantity, "--line"), price=_number(price, "--line"))
        for sku, quantity, price in parsed
    ]


def coded_amounts(texts: Sequence[str] | None, option: str) -> "list[CodedAmount]":
    """`FREIGHT:5.00` as charges or taxes. Raises: `typer.BadParameter`."""
    from tenten.schemas.messages import CodedAmount

    parsed = (_parts(text, "CODE:AMOUNT", option) for text in texts or ())
    return [CodedAmount(code=code, amount=_number(amount, option)) for code, amount in parsed]


def payments(texts: Sequence[str] | None) -> "list[Payment]":
    """`CARD:9.00` as payments. Raises: `typer.BadParameter`."""
    from tenten.schemas.messages import Payment

    parsed = (_parts(text, "METHOD:AMOUNT", "--payment") for text in texts or ())
    return [Payment(method=method, amount=_number(amount, "--payment")) for method, amount in parsed]


def business_date(text: str | None, option: str = "--date") -> date | None:
    """The date of an option. Raises: `typer.BadParameter`."""
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date such as 2026-03-31", param_hint=option) from None


def _parts(text: str, form: str, option: str) -> list[str]:
    parts = text.rsplit(":", form.count(":"))
    if len(parts) <= form.count(":"):
        raise typer.BadParameter(f"{text!r} is not {form}", param_hint=option)
    return parts


def _number(text: str, option: str) -> Decimal:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise typer.BadParameter(f"{text!r} is not a number such as 4.50", param_hint=option)
    return number
