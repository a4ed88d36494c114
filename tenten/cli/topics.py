"""`tenten topics`: the topics as the catalogue declares them."""

from dataclasses import asdict
from typing import Annotated

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import Json, examples, noun
from tenten.cli.output import print_json, print_table
from tenten.cli.wiring import connected

app = noun("The topics, as schemas/topics.py declares them.", "tenten topics apply")


@app.callback()
def topics() -> None:
    """The topics, as schemas/topics.py declares them."""


@app.command(epilog=examples("tenten topics apply --dry-run", "tenten topics apply"))
def apply(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    json: Json = False,
) -> None:
    """Create the topics that are missing and correct the settings of the others.

    Partitions are never added to a topic whose keys have to stay where they are: such a topic is refused, with advice
    and exit code 1. Applying twice changes nothing.
    """
    from tenten.kafka.topics_admin import apply_topics

    changes = apply_topics(connected(context), dry_run)
    if json:
        print_json([asdict(change) for change in changes])
    else:
        print_table(("topic", "action", "detail"), [(change.topic, change.action, change.detail) for change in changes])
    if any(change.action == "refuse" for change in changes):
        raise typer.Exit(FAILED)
