"""`tenten order`: goods that are delivered later; each becomes a sales order at headquarters."""

from typing import Annotated

import typer

from tenten.cli import selling
from tenten.cli.options import ChannelName, Json, examples, noun
from tenten.cli.selling import (
    Charges,
    CurrencyOption,
    CustomerOption,
    DateOption,
    Limit,
    Lines,
    OwnId,
    Taxes,
    TransactionId,
)
from tenten.cli.wiring import opened_channel

app = noun(
    "The orders of a channel. Works on its own database, with or without a line to headquarters.",
    "tenten order list houston",
)


@app.command(
    epilog=examples(
        "tenten order create houston --customer 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f --line TEA:2:4.50 --line CUP:1:12",
        "tenten order create houston --line TEA:2:4.50 --charge FREIGHT:5.00 --tax TX:0.74 --payment CARD:14.74",
    )
)
def create(
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
            help="One of the customer's addresses, as `tenten customer show` has it.",
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
            help="What is paid already, CARD:10.00. Repeatable.",
        ),
    ] = None,
    currency: CurrencyOption = None,
    delivery_mode: Annotated[str, typer.Option(metavar="M", show_default=False, help="How it is delivered.")] = "",
    date: DateOption = None,
    transaction_id: OwnId = None,
    json: Json = False,
) -> None:
    """Record an order, whether its customer has an account number yet or not.

    The order brings a customer that headquarters does not have along. What breaks a rule is refused with every reason,
    and nothing is written: exit code 1.
    """
    from tenten.producers import record_order

    with opened_channel(context, channel) as opened, selling.refusals(json):
        view = record_order(
            opened,
            lines=selling.items(lines),
            customer_id=customer_id,
            deliver_to=deliver_to,
            currency=currency,
            charges=selling.coded_amounts(charges, "--charge"),
            taxes=selling.coded_amounts(taxes, "--tax"),
            payments=selling.payments(payments),
            delivery_mode=delivery_mode,
            business_date=selling.business_date(date),
            transaction_id=transaction_id,
        )
    selling.show_recorded(view, json)


@app.command(epilog=examples("tenten order show houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"))
def show(context: typer.Context, channel: ChannelName, transaction_id: TransactionId, json: Json = False) -> None:
    """Show an order, with its sales order number once headquarters has given it, or what it waits for."""
    from tenten.producers import show_transaction

    with opened_channel(context, channel) as opened:
        selling.show(show_transaction(opened, transaction_id), json)


@app.command("list", epilog=examples("tenten order list houston", "tenten order list houston --date 2026-03-31"))
def list_command(
    context: typer.Context, channel: ChannelName, date: DateOption = None, limit: Limit = 50, json: Json = False
) -> None:
    """List the channel's orders, the newest first; of every date unless one is said."""
    from tenten.producers import list_transactions
    from tenten.schemas.messages import TransactionKind

    on = selling.business_date(date)
    with opened_channel(context, channel) as opened:
        selling.show_list(list_transactions(opened, TransactionKind.ORDER, business_date=on, limit=limit), json)


@app.command(epilog=examples("tenten order resend houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"))
def resend(context: typer.Context, channel: ChannelName, transaction_id: TransactionId, json: Json = False) -> None:
    """Send an order that headquarters has rejected once more; any other is left alone and shown."""
    from tenten.producers import resend_transaction

    with opened_channel(context, channel) as opened, selling.refusals(json):
        view = resend_transaction(opened, transaction_id)
    selling.show_recorded(view, json)
