"""`tenten demo`: the whole way on this machine, to look at."""

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
            help="Where to play, a new or empty directory; it is kept.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary directory.")] = False,
) -> None:
    """Headquarters and three stores on this machine, from till to account number and back; it checks itself.

    Starts servers of its own and ends them. Exit code 0 only when everything it checks at the end holds.
    """
    from tenten.demo import run

    if not run(directory, keep):
        raise typer.Exit(FAILED)
