"""`tenten demo`: headquarters and three stores on this machine, to watch."""

from pathlib import Path
from typing import Annotated

import typer

from tenten.cli.exit_codes import FAILED


def demo(
    directory: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            file_okay=False,
            show_default=False,
            help="A new or empty directory for its files, which is kept.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary directory.")] = False,
    web: Annotated[
        bool, typer.Option("--web/--no-web", help="Serve headquarters' dashboard and the stores' screens meanwhile.")
    ] = True,
) -> None:
    """Headquarters and three stores on this machine, from till to account number and back, with a check at the end.

    Starts its own servers and ends them. Exit code 0 only if every check passes.
    """
    from tenten.demo import run

    if not run(directory, keep=keep, web=web):
        raise typer.Exit(FAILED)
