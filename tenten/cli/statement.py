"""`tenten statement`: headquarters' statements of the channels' end-of-day events."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tenten.cli import formats
from tenten.cli.options import ChannelName, Json, Newest, OfChannel, check_status, examples, noun
from tenten.cli.output import print_fields, print_json, print_line, print_reasons, print_table, reason_codes, report
from tenten.cli.selling_input import business_date
from tenten.cli.wiring import at_headquarters

app = noun("Statements: the channels' end-of-day events, as headquarters posts them.", "tenten statement list")


@app.command(
    "list",
    epilog=examples(
        "tenten statement list",
        "tenten statement list --channel houston --status blocked",
        "tenten statement list --json",
    ),
)
def list_command(
    context: typer.Context,
    *,
    channel: OfChannel = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS", show_default=False, help="Only those that are waiting, blocked, rejected or posted."
        ),
    ] = None,
    limit: Newest = 100,
    json: Json = False,
) -> None:
    """List statements, newest first."""
    from tenten.headquarters_views.statements import STATUSES, list_statements

    check_status(status, STATUSES)
    with at_headquarters(context) as headquarters:
        statements = list_statements(headquarters, channel=channel, status=status, statements_max=limit)
    if json:
        rows = [asdict(statement) for statement in statements]
        for row in rows:
            del row["listed"]
        print_json(rows)
    elif statements:
        print_table(
            ("channel", "date", "number", "kind", "status", "listed", "reasons"),
            [
                (
                    statement.channel_id,
                    statement.business_date,
                    statement.number,
                    formats.word(statement.kind),
                    statement.status,
                    statement.listed_count,
                    reason_codes(statement.reasons),
                )
                for statement in statements
            ],
        )
    else:
        report("No statements")


@app.command(
    epilog=examples(
        "tenten statement show houston 2026-10-10",
        "tenten statement show houston 2026-10-10 --number 1 --json",
    )
)
def show(
    context: typer.Context,
    channel: ChannelName,
    day: Annotated[str, typer.Argument(metavar="DATE", help="The business date, as 2026-10-10.", show_default=False)],
    number: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=1_000_000, show_default=False, help="Its number on that date. Default: the newest."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show a statement: whether it is posted or the reasons why not, its totals, and the transactions that it lists."""
    from tenten.headquarters_views.statements import find_statement

    on = business_date(day, "DATE")
    assert on is not None
    with at_headquarters(context) as headquarters:
        statement = find_statement(headquarters, channel, on, number)
    if json:
        print_json(statement)
        return
    shown = asdict(statement) | {
        "kind": formats.word(statement.kind),
        "control_totals": _amounts(statement.control_totals or ()),
        "totals": _amounts(statement.totals.get("amounts", [])),
    }
    del shown["listed"], shown["reasons"]
    print_fields(shown.items())
    print_reasons(statement.reasons)
    if statement.listed:
        print_line("")
        print_table(
            ("transaction", "status", "account number", "total", "owned", "posted"),
            [
                (
                    listed.transaction_id,
                    listed.status,
                    listed.account_number,
                    listed.total and formats.amount(listed.total, listed.currency or ""),
                    listed.owned,
                    listed.posted,
                )
                for listed in statement.listed
            ],
        )


def _amounts(totals: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"{formats.amount(total['amount'], total['currency'])} {total['payment_method']}" for total in totals]
