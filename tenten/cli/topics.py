"""`tenten topics`: the topics as the catalogue declares them."""

from typing import TYPE_CHECKING, Annotated

import typer

from tenten.cli.acls import StrimziAuthentication, print_acls, print_changes, print_quotas, print_strimzi
from tenten.cli.exit_codes import FAILED
from tenten.cli.options import Json, examples, noun
from tenten.cli.output import print_json, print_table, report
from tenten.cli.wiring import connected

if TYPE_CHECKING:
    from tenten.runtime.settings import Settings

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
        print_json(changes)
    else:
        print_table(("topic", "action", "detail"), [(change.topic, change.action, change.detail) for change in changes])
    if any(change.action == "refuse" for change in changes):
        raise typer.Exit(FAILED)


@app.command(
    epilog=examples(
        "tenten topics acls",
        "tenten topics acls --channel houston --apply",
        "tenten topics acls --channel houston --quotas",
        "tenten topics acls --strimzi --strimzi-cluster retail",
    )
)
def acls(
    context: typer.Context,
    *,
    channel: Annotated[
        str | None,
        typer.Option(
            "--channel",
            metavar="NAME",
            show_default=False,
            help="Only those of this channel, which need not be in tenten.toml.",
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Create them; needs ALTER and DESCRIBE on the cluster.")
    ] = False,
    quotas: Annotated[
        bool, typer.Option("--quotas", help="Print the commands that set the quotas of channels instead.")
    ] = False,
    strimzi: Annotated[bool, typer.Option("--strimzi", help="Print KafkaUser resources instead.")] = False,
    strimzi_cluster: Annotated[
        str, typer.Option("--strimzi-cluster", metavar="NAME", help="The name of Strimzi's Kafka resource.")
    ] = "kafka",
    strimzi_authentication: Annotated[
        StrimziAuthentication,
        typer.Option("--strimzi-authentication", metavar="scram-sha-512|tls", help="How the users log in."),
    ] = "scram-sha-512",
    principal: Annotated[
        str | None,
        typer.Option(
            "--principal",
            metavar="TEMPLATE",
            show_default=False,
            help="The principals of the users, with {name} for the name. Default: User:{name}.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Print the access control lists of Kafka that tenten needs: of headquarters and of each channel.

    The users are `headquarters` (its workers), `operator` (a person with any command there), and each channel by its
    name. Nothing else is allowed. --apply creates what is missing and shows what is surplus; it deletes nothing.
    Idempotent.
    """
    if sum((apply, quotas, strimzi)) > 1:
        raise typer.BadParameter("give only one of --apply, --quotas and --strimzi")
    if strimzi and (json or principal is not None):
        raise typer.BadParameter(
            "--strimzi prints YAML, and Strimzi names the principals: give neither --json nor --principal"
        )
    from tenten.kafka.acls import PRINCIPAL, apply_acls, users

    settings = connected(context)
    names = _all_channels(settings) if channel is None else [channel]
    wanted = users(settings, names, principal or PRINCIPAL, only_channels=channel is not None)
    if apply:
        print_changes(apply_acls(settings, wanted), as_json=json)
    elif quotas:
        print_quotas(wanted, settings.kafka.get("bootstrap.servers") or "HOST:PORT", as_json=json)
    elif strimzi:
        print_strimzi(wanted, strimzi_cluster, strimzi_authentication)
    else:
        print_acls(wanted, as_json=json)


def _all_channels(settings: "Settings") -> list[str]:
    """The channels of tenten.toml and of headquarters' settings."""
    from sqlalchemy.exc import DBAPIError

    from tenten.runtime.errors import TentenError
    from tenten.status.databases import read_channel_names

    names = dict.fromkeys(settings.channels)
    if settings.headquarters.database is not None:
        try:
            names.update(dict.fromkeys(read_channel_names(settings)))
        except (TentenError, DBAPIError):
            report("Only the channels of tenten.toml: headquarters' database cannot be read yet")
    return list(names)
