"""`tenten store`: commands in a store, before it has a tenten.toml."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import Json, examples, noun
from tenten.cli.output import print_json, report
from tenten.cli.processes import stop_on_signals
from tenten.cli.progress import progress_shown
from tenten.cli.workers import command_with
from tenten.workers import JOIN_FAILPOINTS

app = noun("A store: how it becomes one of headquarters'.", "tenten store join TOKEN")

_TOKEN_CHARACTERS_MAX = 100_000


@app.callback()
def store() -> None:
    """A store: how it becomes one of headquarters'."""


@app.command(
    cls=command_with(JOIN_FAILPOINTS),
    epilog=examples(
        "tenten store join TOKEN", "tenten store join - < token.txt", "tenten store join TOKEN --directory shop"
    ),
)
def join(
    token: Annotated[
        str,
        typer.Argument(
            metavar="TOKEN",
            show_default=False,
            help="From `tenten channel enroll`. -: read it from stdin, where other users do not see it.",
        ),
    ],
    *,
    directory: Annotated[
        Path,
        typer.Option("--directory", metavar="DIR", file_okay=False, help="Where the store is; created if missing."),
    ] = Path(),
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="URL",
            show_default=False,
            help="postgresql://user@host/database. Default: a SQLite file beside tenten.toml.",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=1, max=3_600, help="How long to wait for headquarters.")
    ] = 60.0,
    json: Json = False,
) -> None:
    """Make this directory a store of headquarters: its settings, its key, its database, its customers.

    Needs a token of headquarters, and no settings: an existing tenten.toml of the store stays as it is. Idempotent:
    interrupted at any point, it continues when it is run again with the same token. After that start the store with
    `tenten channel run`.
    """
    stop = stop_on_signals()
    from tenten.consumers.channel.joining.join import join as join_store
    from tenten.runtime.failpoints import check_failpoint
    from tenten.runtime.logs import configure_logs

    check_failpoint(JOIN_FAILPOINTS)
    configure_logs()
    text = sys.stdin.read(_TOKEN_CHARACTERS_MAX) if token == "-" else token  # noqa: S105 - not one
    with progress_shown("customers", "records") as bar:
        joined = join_store(text, directory, database=database, seconds_max=wait, tell=report, progress=bar, stop=stop)
    if json:
        print_json(
            {
                "channel_id": joined.channel_id,
                "kid": joined.kid,
                "directory": str(joined.directory),
                "suspended": joined.suspended,
            }
        )
    if not joined.is_loaded:
        report("Interrupted while the customers were loaded: run the same command again, it continues")
        raise typer.Exit(FAILED)
    if joined.suspended is not None:
        report(f"Headquarters has suspended {joined.channel_id}, and accepts none of its records: {joined.suspended}")
    where = "" if directory == Path() else f"cd {directory}; "
    report(f"{joined.channel_id} is ready. Start it: {where}tenten channel run {joined.channel_id}")
