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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    json: Json = False,
) -> None:
    """Create missing topics, correct the settings of the others, and publish the Avro schemas.

    Without a schema registry the schemas go to the topic `schemas`, so that other programs can read values before any
    tenten process has run. Partitions are never added to a keyed topic: it is refused, with advice and exit code 1.
    Idempotent.
    """
    from tenten.kafka.schema_registry import publish_schemas
    from tenten.kafka.topics_admin import apply_topics

    settings = connected(context)
    changes = apply_topics(settings, dry_run)
    if not dry_run and settings.schema_registry_url is None:
        publish_schemas(settings)
    if json:
        print_json([asdict(change) for change in changes])
    else:
        print_table(("topic", "action", "detail"), [(change.topic, change.action, change.detail) for change in changes])
    if any(change.action == "refuse" for change in changes):
        raise typer.Exit(FAILED)
