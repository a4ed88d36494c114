"""`tenten loyalty`: customers' cards, on the channel's own database, without a connection to headquarters."""

from typing import TYPE_CHECKING, Annotated

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import ChannelName, Json, Operator, examples, noun
from tenten.cli.output import print_json, print_line, report, report_reasons
from tenten.cli.wiring import opened_channel
from tenten.schemas.messages import reasons_as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenten.producers.till.loyalty import CardView
    from tenten.schemas.messages import Reason

app = noun(
    "Loyalty cards, issued to customers with an account number, or reserved for pending ones.",
    "tenten loyalty issue houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f LC-1001",
)

Owner = Annotated[str, typer.Argument(metavar="CUSTOMER_ID", help="The customer's GUID.", show_default=False)]
Card = Annotated[
    str,
    typer.Argument(metavar="CARD", help="The card's number: 4 to 30 letters, digits, hyphens.", show_default=False),
]


@app.command(
    epilog=examples(
        "tenten loyalty issue houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f LC-1001",
        "tenten loyalty issue houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f LC-1001 --keep",
    )
)
def issue(
    context: typer.Context,
    *,
    channel: ChannelName,
    customer_id: Owner,
    card: Card,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Reserve the card for a pending customer; it is issued when the account number arrives."
        ),
    ] = False,
    operator: Operator = None,
    json: Json = False,
) -> None:
    """Issue a loyalty card to a customer.

    A customer without an account number is refused, exit code 1; with --keep the card is reserved, and `tenten channel
    run` issues it when the number arrives. A card that another customer has is refused. Idempotent.
    """
    from tenten.producers.till.loyalty import issue_card, normal_card_number
    from tenten.runtime.errors import CustomerRejected

    with opened_channel(context, channel, operator) as opened:
        try:
            view = issue_card(opened, customer_id, card, keep=keep)
        except CustomerRejected as refusal:
            _show_refused(normal_card_number(card), customer_id, refusal.reasons, json)
            raise typer.Exit(FAILED) from refusal
    _show(view, json)


@app.command(epilog=examples("tenten loyalty show houston LC-1001"))
def show(context: typer.Context, channel: ChannelName, card: Card, json: Json = False) -> None:
    """Show a card: its customer, whether it is issued or reserved, and why. Exit code 1 if no customer has it."""
    from tenten.producers.till.loyalty import show_card

    with opened_channel(context, channel) as opened:
        view = show_card(opened, card)
    _show(view, json)


def _show(view: "CardView", json: bool) -> None:
    if json:
        _print_card(view.card_number, view.customer_id, view.status.value, view.reasons)
    else:
        print_line(f"{view.card_number}  {view.status.value}  {view.customer_id}")
        report_reasons(view.reasons)


def _show_refused(card_number: str, customer_id: str, reasons: "Sequence[Reason]", json: bool) -> None:
    if json:
        _print_card(card_number, customer_id, "refused", reasons)
    else:
        report("Refused, nothing was written:")
        report_reasons(reasons)


def _print_card(card_number: str, customer_id: str, status: str, reasons: "Sequence[Reason]") -> None:
    print_json(
        {
            "card_number": card_number,
            "customer_id": customer_id,
            "status": status,
            "reasons": reasons_as_json(reasons),
        }
    )
