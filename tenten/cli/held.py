"""`tenten headquarters held`: events that headquarters cannot judge yet."""

from typing import Annotated

import typer

from tenten.cli.options import Json, OfChannel, Operator, examples, noun
from tenten.cli.output import print_json, print_table, report
from tenten.cli.wiring import at_headquarters, headquarters_engine

app = noun("Events that headquarters cannot judge yet.", "tenten headquarters held list")


@app.command(
    "list",
    epilog=examples(
        "tenten headquarters held list",
        "tenten headquarters held list --code unknown_legal_entity --older-than 86400 --json",
    ),
)
def list_command(
    context: typer.Context,
    *,
    channel: OfChannel = None,
    code: Annotated[
        str | None,
        typer.Option("--code", metavar="CODE", show_default=False, help="Only those that are held for this reason."),
    ] = None,
    older_than: Annotated[
        int, typer.Option("--older-than", metavar="SECONDS", min=0, help="Only those that are held for this long.")
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="Show the N oldest.")] = 100,
    json: Json = False,
) -> None:
    """List held events, the oldest first: what each waits for, and since when.

    `subject` is the channel or the legal entity that must change. Nothing of the customers is shown but their ids.
    """
    from tenten.headquarters_views.held import list_held

    with at_headquarters(context) as headquarters:
        held = list_held(headquarters, channel=channel, code=code, older_than_seconds=older_than, events_max=limit)
    if json:
        print_json(held)
    elif held:
        columns = ("event_id", "customer_id", "channel_id", "code", "subject", "held_at", "is_to_be_rejected")
        print_table(columns, [tuple(getattr(event, column) for column in columns) for event in held])
    else:
        report("Headquarters holds no event")


@app.command(
    epilog=examples(
        'tenten headquarters held reject 01a2199b-5665-76b7-b13f-2764a322a309 --reason "The company frrt was sold"'
    )
)
def reject(
    context: typer.Context,
    event_ids: Annotated[
        list[str], typer.Argument(metavar="EVENT_ID...", help="As `list` shows them.", show_default=False)
    ],
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="TEXT", show_default=False, help="A sentence for the clerk in the store."),
    ],
    operator: Operator = None,
    json: Json = False,
) -> None:
    """Reject held events that will never be judged, such as those of a legal entity that does not exist.

    A worker of headquarters does it within about ten seconds, and answers the store: it shows the change as rejected
    with this reason, and the clerk corrects or discards it. All or none of the events are rejected.
    """
    from tenten.consumers.headquarters.customers.held_decisions import reject_held

    if not reason.strip():
        raise typer.BadParameter("A reason is required: the clerk reads it", param_hint="--reason")
    with headquarters_engine(context) as (_, engine):
        reject_held(engine, event_ids, reason, operator)
    if json:
        print_json({"rejected": len(event_ids)})
    else:
        report(f"{len(event_ids)} to be rejected by the workers of headquarters")
