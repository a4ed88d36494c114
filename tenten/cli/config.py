"""`tenten config`: the effective settings."""

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from tenten.cli.options import Json, examples, noun
from tenten.cli.output import print_fields, print_json
from tenten.cli.wiring import connected

app = noun("The settings.", "tenten config show")


@app.callback()
def config() -> None:
    """The settings."""


@app.command(epilog=examples("tenten config show", "tenten config show --kafka security.protocol=SASL_SSL --json"))
def show(context: typer.Context, json: Json = False) -> None:
    """Show the effective settings. Precedence: flags, environment, tenten.toml, local servers. Secrets are masked."""
    from tenten.runtime.settings import masked

    shown = masked(connected(context))
    if json:
        print_json(shown)
    else:
        print_fields(_flat(shown), names_as_given=True)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value) if type(value) is int else value
