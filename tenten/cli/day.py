"""`tenten day`: end-of-day events of a channel; each becomes a statement at headquarters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenten.cli import formats, selling_input, selling_output
from tenten.cli.options import ChannelName, Json, Operator, examples, noun
from tenten.cli.output import print_json, print_table, report, report_reasons
from tenten.cli.selling_input import DateOption, Limit
from tenten.cli.wiring import opened_channel

if TYPE_CHECKING:
    from tenten.producers import EndOfDayView

app = noun(
    "End of day. Works on the channel's own database, without a connection to headquarters.",
    "tenten day close houston",
)

EndOfDayId = Annotated[str, typer.Argument(metavar="ID", help="The GUID that `close` returned.", show_default=False)]


@app.command(epilog=examples("tenten day close houston", "tenten day close houston --date 2026-03-31"))
def close(
    context: typer.Context,
    *,
    channel: ChannelName,
    date: DateOption = None,
    operator: Operator = None,
    json: Json = False,
) -> None:
    """Close a business date: list its cash-and-carry transactions, with control totals.

    Closing a date again lists the transactions recorded since; without any, nothing is written and the last end of day
    is shown.
    """
    from tenten.producers import close_day

    with opened_channel(context, channel, operator) as opened, selling_output.refusals(json, _refused):
        ends = close_day(opened, selling_input.business_date(date))
    _show(ends, json)


@app.command(epilog=examples("tenten day show houston", "tenten day show houston --date 2026-03-31"))
def show(context: typer.Context, channel: ChannelName, date: DateOption = None, json: Json = False) -> None:
    """Show the end-of-day events of a business date and their status at headquarters; none while the date is open."""
    from tenten.producers import show_day

    with opened_channel(context, channel) as opened:
        _show(show_day(opened, selling_input.business_date(date)), json)


@app.command("list", epilog=examples("tenten day list houston"))
def list_command(context: typer.Context, channel: ChannelName, limit: Limit = 50, json: Json = False) -> None:
    """List the end-of-day events of every business date, newest first."""
    from tenten.producers import list_days

    with opened_channel(context, channel) as opened:
        _show(list_days(opened, limit), json)


@app.command(epilog=examples("tenten day resend houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"))
def resend(context: typer.Context, channel: ChannelName, end_of_day_id: EndOfDayId, json: Json = False) -> None:
    """Send an end of day that headquarters has rejected again. Any other is shown unchanged."""
    from tenten.producers import resend_day

    with opened_channel(context, channel) as opened, selling_output.refusals(json, _refused):
        end = resend_day(opened, end_of_day_id)
    _show([end], json)


def _show(ends: "Sequence[EndOfDayView]", json: bool) -> None:
    if json:
        from tenten.producers.till.documents import end_of_day_document

        print_json([end_of_day_document(end) for end in ends])
        return
    if not ends:
        report("Not closed yet")
        return
    rows = [
        (
            end.business_date,
            end.status,
            end.transactions,
            [f"{total.payment_method} {formats.amount(total.amount, total.currency)}" for total in end.control_totals],
            end.end_of_day_id,
        )
        for end in ends
    ]
    print_table(("date", "status", "sales", "paid", "id"), rows)
    for end in ends:
        report_reasons(end.reasons)


def _refused(reasons: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{"end_of_day_id": None, "status": "rejected", "reasons": reasons}]
