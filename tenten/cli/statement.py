"""`tenten statement`: what became of the ends of days, as headquarters has them."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Final

import typer

from tenten.cli.options import ChannelName, Json, Newest, OfChannel, check_status, examples, noun
from tenten.cli.output import print_fields, print_json, print_line, print_table, report
from tenten.cli.wiring import at_headquarters

app = noun("Statements: the ends of the channels' days, as headquarters posts them.", "tenten statement list")

_LISTED_COLUMNS: Final = ("transaction_id", "status", "account_number", "currency", "total", "owned", "posted")


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
        typer.Option(metavar="STATUS", show_default=False, help="Only waiting, blocked, rejected or posted ones."),
    ] = None,
    limit: Newest = 100,
    json: Json = False,
) -> None:
    """List statements, the newest first."""
    from tenten.headquarters_views.statements import STATUSES, list_statements

    check_status(status, STATUSES)
    with at_headquarters(context) as headquarters:
        found = list_statements(headquarters, channel=channel, status=status, statements_max=limit)
    if json:
        rows = [asdict(one) for one in found]
        for row in rows:
            del row["listed"]
        print_json(rows)
    elif found:
        print_table(
            ("channel", "date", "number", "kind", "status", "listed", "reasons"),
            [
                (
                    one.channel_id,
                    one.business_date,
                    one.number,
                    one.kind,
                    one.status,
                    one.listed_count,
                    ", ".join(sorted({reason["code"] for reason in one.reasons})),
                )
                for one in found
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
            metavar="N", min=1, max=1_000_000, show_default=False, help="Which one of that day; else the newest."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show a statement: whether it is posted or why not, its totals, and every transaction that it lists."""
    from tenten.headquarters_views.statements import find_statement

    with at_headquarters(context) as headquarters:
        found = find_statement(headquarters, channel, _day(day), number)
    if json:
        print_json(asdict(found))
        return
    shown = asdict(found)
    listed = shown.pop("listed")
    reasons = shown.pop("reasons")
    control, totals = shown.pop("control_totals") or [], shown.pop("totals")
    shown |= {"control_totals": [_amount(one) for one in control]}
    shown |= {"totals": [_amount(one) for one in totals.get("amounts", [])]}
    print_fields(shown.items())
    if reasons:
        print_line("")
        print_table(("field", "code", "text"), [(one["field"], one["code"], one["text"]) for one in reasons])
    if listed:
        print_line("")
        print_table(_LISTED_COLUMNS, [tuple(one[column] for column in _LISTED_COLUMNS) for one in listed])


def _day(text: str) -> date:
    """Raises: `typer.BadParameter`."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date such as 2026-10-10", param_hint="DATE") from None


def _amount(one: Mapping[str, Any]) -> str:
    return f"{one['amount']} {one['currency']} {one['payment_method']}"
