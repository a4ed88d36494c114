"""`tenten order` and `tenten sale`: one definition of the commands that both have, and `create` of each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypedDict

import typer

from tenten.cli import selling_input, selling_output
from tenten.cli.options import ChannelName, Json, Operator, examples, noun, pairs
from tenten.cli.selling_input import (
    Attributes,
    Charges,
    CurrencyOption,
    CustomerOption,
    DateOption,
    Limit,
    Lines,
    OfDate,
    OwnId,
    Taxes,
    TransactionId,
)
from tenten.cli.wiring import opened_channel

if TYPE_CHECKING:
    from datetime import date

    from tenten.producers import Item
    from tenten.schemas.messages import CodedAmount, Payment

_ID: Final = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """A kind of transaction, with its names in commands and texts."""

    name: str
    kind: str
    """The value of `TransactionKind`."""
    article_and_name: str
    plural: str
    show: str

    def as_typer(self) -> typer.Typer:
        """The noun with its commands, without `create`."""
        app = noun(
            f"The {self.plural} of a channel. Works on its own database, without a connection to headquarters.",
            f"tenten {self.name} list houston",
        )
        _add_show(app, self)
        _add_list(app, self)
        _add_resend(app, self)
        return app


def _add_show(app: typer.Typer, of: Noun) -> None:
    @app.command(help=of.show, epilog=examples(f"tenten {of.name} show houston {_ID}"))
    def show(context: typer.Context, channel: ChannelName, transaction_id: TransactionId, json: Json = False) -> None:
        from tenten.producers import show_transaction

        with opened_channel(context, channel) as opened:
            selling_output.show(show_transaction(opened, transaction_id), json)


def _add_list(app: typer.Typer, of: Noun) -> None:
    words = f"tenten {of.name} list houston"

    @app.command(
        "list",
        help=f"List the channel's {of.plural}, newest first.",
        epilog=examples(words, f"{words} --date 2026-03-31"),
    )
    def list_command(
        context: typer.Context, channel: ChannelName, date: OfDate = None, limit: Limit = 50, json: Json = False
    ) -> None:
        from tenten.producers import list_transactions
        from tenten.schemas.messages import TransactionKind

        on = selling_input.business_date(date)
        with opened_channel(context, channel) as opened:
            views = list_transactions(opened, TransactionKind(of.kind), business_date=on, limit=limit)
            selling_output.show_list(views, json)


def _add_resend(app: typer.Typer, of: Noun) -> None:
    @app.command(
        help=f"Send {of.article_and_name} that headquarters has rejected again. Any other is shown unchanged.",
        epilog=examples(f"tenten {of.name} resend houston {_ID}"),
    )
    def resend(context: typer.Context, channel: ChannelName, transaction_id: TransactionId, json: Json = False) -> None:
        from tenten.producers import resend_transaction

        with opened_channel(context, channel) as opened, selling_output.refusals(json):
            view = resend_transaction(opened, transaction_id)
        selling_output.show_recorded(view, json)


order = Noun(
    name="order",
    kind="ORDER",
    article_and_name="an order",
    plural="orders",
    show="Show an order, with its sales order number once headquarters has assigned it, or the reason for waiting.",
).as_typer()
sale = Noun(
    name="sale",
    kind="CASH_AND_CARRY",
    article_and_name="a cash-and-carry sale",
    plural="cash-and-carry sales",
    show="Show a cash-and-carry sale and its status at headquarters.",
).as_typer()


class _Input(TypedDict):
    """The arguments that `record_order` and `record_sale` share."""

    lines: "list[Item]"
    customer_id: str | None
    currency: str | None
    charges: "list[CodedAmount]"
    taxes: "list[CodedAmount]"
    payments: "list[Payment]"
    attributes: dict[str, str]
    business_date: "date | None"
    transaction_id: str | None


def _input(
    *,
    lines: list[str],
    customer_id: str | None,
    charges: list[str] | None,
    taxes: list[str] | None,
    payments: list[str] | None,
    attributes: list[str] | None,
    currency: str | None,
    date: str | None,
    transaction_id: str | None,
) -> _Input:
    """The options as arguments. Raises: `typer.BadParameter`."""
    return {
        "lines": selling_input.items(lines),
        "customer_id": customer_id,
        "currency": currency,
        "charges": selling_input.coded_amounts(charges, "--charge"),
        "taxes": selling_input.coded_amounts(taxes, "--tax"),
        "payments": selling_input.payments(payments),
        "attributes": pairs(attributes or [], "--attribute"),
        "business_date": selling_input.business_date(date),
        "transaction_id": transaction_id,
    }


@order.command(
    "create",
    epilog=examples(
        f"tenten order create houston --customer {_ID} --line TEA:2:4.50 --line CUP:1:12",
        "tenten order create houston --line TEA:2:4.50 --charge FREIGHT:5.00 --tax TX:0.74 --payment CARD:14.74",
    ),
)
def create_order(
    context: typer.Context,
    *,
    channel: ChannelName,
    lines: Lines,
    customer_id: CustomerOption = None,
    deliver_to: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS_ID",
            show_default=False,
            help="One of the customer's addresses; `tenten customer show` prints their ids.",
        ),
    ] = None,
    charges: Charges = None,
    taxes: Taxes = None,
    payments: Annotated[
        list[str] | None,
        typer.Option(
            "--payment",
            metavar="METHOD:AMOUNT",
            show_default=False,
            help="A payment made in advance, CARD:10.00. Repeatable.",
        ),
    ] = None,
    attributes: Attributes = None,
    currency: CurrencyOption = None,
    delivery_mode: Annotated[str, typer.Option(metavar="M", show_default=False, help="How it is delivered.")] = "",
    date: DateOption = None,
    transaction_id: OwnId = None,
    operator: Operator = None,
    json: Json = False,
) -> None:
    """Record an order, whether its customer has an account number yet or not.

    A customer that headquarters does not know yet is sent with the order. An order that breaks a rule is refused with
    every reason, and nothing is written: exit code 1.
    """
    from tenten.producers import record_order

    with opened_channel(context, channel, operator) as opened, selling_output.refusals(json):
        entered = _input(
            lines=lines,
            customer_id=customer_id,
            charges=charges,
            taxes=taxes,
            payments=payments,
            attributes=attributes,
            currency=currency,
            date=date,
            transaction_id=transaction_id,
        )
        view = record_order(opened, **entered, deliver_to=deliver_to, delivery_mode=delivery_mode)
    selling_output.show_recorded(view, json)


@sale.command(
    "create",
    epilog=examples(
        "tenten sale create houston --line TEA:2:4.50",
        "tenten sale create houston --line TEA:2:4.50 --payment CARD:5.00 --payment CASH:4.00",
        f"tenten sale create houston --customer {_ID} --line CUP:-1:4.50",
    ),
)
def create_sale(
    context: typer.Context,
    *,
    channel: ChannelName,
    lines: Lines,
    customer_id: CustomerOption = None,
    charges: Charges = None,
    taxes: Taxes = None,
    payments: Annotated[
        list[str] | None,
        typer.Option(
            "--payment",
            metavar="METHOD:AMOUNT",
            show_default=False,
            help="A payment. Default: the total as CASH. Repeatable.",
        ),
    ] = None,
    attributes: Attributes = None,
    currency: CurrencyOption = None,
    date: DateOption = None,
    transaction_id: OwnId = None,
    operator: Operator = None,
    json: Json = False,
) -> None:
    """Record a cash-and-carry sale. A negative quantity is a return.

    A sale that breaks a rule is refused with every reason, and nothing is written: exit code 1. A sale of a date that
    is already closed is listed when the date is closed again.
    """
    from tenten.producers import record_sale

    with opened_channel(context, channel, operator) as opened, selling_output.refusals(json):
        entered = _input(
            lines=lines,
            customer_id=customer_id,
            charges=charges,
            taxes=taxes,
            payments=payments,
            attributes=attributes,
            currency=currency,
            date=date,
            transaction_id=transaction_id,
        )
        view = record_sale(opened, **entered)
    selling_output.show_recorded(view, json)
