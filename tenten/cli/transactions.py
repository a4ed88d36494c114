"""`tenten transactions`: the consumer that makes sales orders and statements of what the channels have sold."""

from dataclasses import asdict
from typing import Annotated

import typer

from tenten.cli.options import Json, Newest, OfChannel, check_status, examples, noun
from tenten.cli.output import print_fields, print_json, print_line, print_table, report
from tenten.cli.wiring import at_headquarters
from tenten.cli.workers import add_headquarters_worker
from tenten.workers import TRANSACTIONS

app = noun("Orders, sales and ends of days at headquarters.", "tenten transactions run")


add_headquarters_worker(
    app,
    TRANSACTIONS,
    "A transaction waits until headquarters knows its customer, who comes from `tenten headquarters run`.",
)


@app.command(
    "list",
    epilog=examples(
        "tenten transactions list --status blocked",
        "tenten transactions list --channel houston --limit 10 --json",
    ),
)
def list_command(
    context: typer.Context,
    *,
    channel: OfChannel = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS", show_default=False, help="Only waiting, blocked, rejected or synchronized ones."
        ),
    ] = None,
    limit: Newest = 100,
    json: Json = False,
) -> None:
    """List orders and sales as headquarters has them, the newest first."""
    from tenten.headquarters_views.transactions import STATUSES, list_transactions

    check_status(status, STATUSES)
    with at_headquarters(context) as headquarters:
        found = list_transactions(headquarters, channel=channel, status=status, transactions_max=limit)
    if json:
        print_json([asdict(one) for one in found])
    elif found:
        print_table(
            ("transaction", "channel", "kind", "status", "sales order", "account number", "total", "reasons"),
            [
                (
                    one.transaction_id,
                    one.channel_id,
                    one.kind,
                    one.status,
                    one.sales_order,
                    one.account_number,
                    f"{one.total} {one.currency}",
                    ", ".join(sorted({reason["code"] for reason in one.reasons})),
                )
                for one in found
            ],
        )
    else:
        report("No transactions")


@app.command(epilog=examples("tenten transactions show 0190b5d2-7c1e-7000-8000-000000000001"))
def show(
    context: typer.Context,
    transaction_id: Annotated[str, typer.Argument(metavar="TRANSACTION_ID", show_default=False)],
    json: Json = False,
) -> None:
    """Show an order or a sale as headquarters has it: its status, why, and what became of it."""
    from tenten.headquarters_views.transactions import find_transaction

    with at_headquarters(context) as headquarters:
        found = asdict(find_transaction(headquarters, transaction_id))
    if json:
        print_json(found)
        return
    reasons = found.pop("reasons")
    print_fields(found.items())
    if reasons:
        print_line("")
        print_table(("field", "code", "text"), [(one["field"], one["code"], one["text"]) for one in reasons])
