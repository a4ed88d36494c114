"""`tenten sale`: cash-and-carry, what is taken along and paid at once; each goes into the statement of its day."""

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
    "The cash-and-carry transactions of a channel. Works on its own database, with or without a line to headquarters.",
    "tenten sale list houston",
)


@app.command(
    epilog=examples(
        "tenten sale create houston --line TEA:2:4.50",
        "tenten sale create houston --line TEA:2:4.50 --payment CARD:5.00 --payment CASH:4.00",
        "tenten sale create houston --customer 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f --line CUP:-1:4.50",
    )
)
def create(
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
            help="How it is paid. Unless said, all of it as CASH. Repeatable.",
        ),
    ] = None,
    currency: CurrencyOption = None,
    date: DateOption = None,
    transaction_id: OwnId = None,
    json: Json = False,
) -> None:
    """Record a cash-and-carry. A negative quantity is a return.

    What breaks a rule is refused with every reason, and nothing is written: exit code 1. A sale of a date that is
    closed already is listed when the date is closed again.
    """
    from tenten.producers import record_sale

    with opened_channel(context, channel) as opened, selling.refusals(json):
        view = record_sale(
            opened,
            lines=selling.items(lines),
            customer_id=customer_id,
            currency=currency,
            charges=selling.coded_amounts(charges, "--charge"),
            taxes=selling.coded_amounts(taxes, "--tax"),
            payments=selling.payments(payments),
            business_date=selling.business_date(date),
            transaction_id=transaction_id,
        )
    selling.show_recorded(view, json)


@app.command(epilog=examples("tenten sale show houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"))
def show(context: typer.Context, channel: ChannelName, transaction_id: TransactionId, json: Json = False) -> None:
    """Show a cash-and-carry, and what headquarters has said of it."""
    from tenten.producers import show_transaction

    with opened_channel(context, channel) as opened:
        selling.show(show_transaction(opened, transaction_id), json)


@app.command("list", epilog=examples("tenten sale list houston", "tenten sale list houston --date 2026-03-31"))
def list_command(
    context: typer.Context, channel: ChannelName, date: DateOption = None, limit: Limit = 50, json: Json = False
) -> None:
    """List the channel's cash-and-carry transactions, the newest first; of every date unless one is said."""
    from tenten.producers import list_transactions
    from tenten.schemas.messages import TransactionKind

    on = selling.business_date(date)
    with opened_channel(context, channel) as opened:
        found = list_transactions(opened, TransactionKind.CASH_AND_CARRY, business_date=on, limit=limit)
        selling.show_list(found, json)


@app.command(epilog=examples("tenten sale resend houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"))
def resend(context: typer.Context, channel: ChannelName, transaction_id: TransactionId, json: Json = False) -> None:
    """Send a cash-and-carry that headquarters has rejected once more; any other is left alone and shown."""
    from tenten.producers import resend_transaction

    with opened_channel(context, channel) as opened, selling.refusals(json):
        view = resend_transaction(opened, transaction_id)
    selling.show_recorded(view, json)
