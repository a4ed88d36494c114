"""`tenten transactions`: the worker that makes sales orders and statements, and views of transactions."""

from dataclasses import asdict
from typing import Annotated

import typer

from tenten.cli import formats
from tenten.cli.options import Json, Newest, OfChannel, check_status, examples, noun
from tenten.cli.output import print_fields, print_json, print_line, print_reasons, print_table, reason_codes, report
from tenten.cli.wiring import at_headquarters
from tenten.cli.workers import add_headquarters_worker
from tenten.workers import TRANSACTIONS

app = noun("Orders, sales and end-of-day events at headquarters.", "tenten transactions run")


add_headquarters_worker(
    app,
    TRANSACTIONS,
    "A transaction waits until `tenten headquarters run` has synchronized its customer.",
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
            metavar="STATUS",
            show_default=False,
            help="Only those that are waiting, blocked, rejected or synchronized.",
        ),
    ] = None,
    limit: Newest = 100,
    json: Json = False,
) -> None:
    """List orders and sales as headquarters has them, newest first."""
    from tenten.headquarters_views.transactions import STATUSES, list_transactions

    check_status(status, STATUSES)
    with at_headquarters(context) as headquarters:
        transactions = list_transactions(headquarters, channel=channel, status=status, transactions_max=limit)
    if json:
        print_json(transactions)
    elif transactions:
        print_table(
            ("transaction", "channel", "kind", "status", "sales order", "account number", "total", "reasons"),
            [
                (
                    transaction.transaction_id,
                    transaction.channel_id,
                    formats.word(transaction.kind),
                    transaction.status,
                    transaction.sales_order,
                    transaction.account_number,
                    formats.amount(transaction.total, transaction.currency),
                    reason_codes(transaction.reasons),
                )
                for transaction in transactions
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
    """Show an order or a sale as headquarters has it: status, reasons, and its sales order or statement."""
    from tenten.headquarters_views.transactions import find_transaction

    with at_headquarters(context) as headquarters:
        transaction = find_transaction(headquarters, transaction_id)
    if json:
        print_json(transaction)
        return
    shown = asdict(transaction) | {
        "kind": formats.word(transaction.kind),
        "total": formats.amount(transaction.total, transaction.currency),
    }
    del shown["reasons"], shown["currency"], shown["attributes"]
    print_fields(shown.items())
    for attribute in transaction.attributes:
        print_line(f"attribute  {attribute['name']}: {[*attribute.values()][-1]}")
    print_reasons(transaction.reasons)
