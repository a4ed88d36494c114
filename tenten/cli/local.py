"""`tenten local`: Kafka and PostgreSQL on this machine, in the background."""

from typing import TYPE_CHECKING

import typer

from tenten.cli.exit_codes import UNHEALTHY
from tenten.cli.options import Json, examples, noun
from tenten.cli.output import print_fields, print_json, report
from tenten.cli.wiring import configured

if TYPE_CHECKING:
    from tenten.local import LocalServices

app = noun("Kafka and PostgreSQL on this machine, in the background.", "tenten local start")


@app.command(epilog=examples("tenten local start", "tenten local start --json"))
def start(context: typer.Context, json: Json = False) -> None:
    """Start both servers and wait until they answer. A running server is left as it is.

    They keep their data in `data` of tenten.toml (default: .tenten). Commands use these servers for a broker or a
    database of headquarters that is not configured.
    """
    from tenten import local

    _show(local.start(configured(context).data, report), json)


@app.command(epilog=examples("tenten local stop"))
def stop(context: typer.Context) -> None:
    """Stop both servers and keep their data."""
    from tenten import local

    report("Stopped" if local.stop(configured(context).data) else "Nothing was running")


@app.command(epilog=examples("tenten local status", "tenten local status --json"))
def status(context: typer.Context, json: Json = False) -> None:
    """Show the servers' addresses. Exit code 3 unless both run."""
    from tenten import local

    data = configured(context).data
    services = local.status(data)
    if services is not None:
        _show(services, json)
        return
    if json:
        print_json({"bootstrap_servers": None, "postgresql": None, "directory": str(data)})
    else:
        report(f"Not running in {data}: run `tenten local start`")
    raise typer.Exit(UNHEALTHY)


def _show(services: "LocalServices", json: bool) -> None:
    shown = {
        "bootstrap_servers": services.bootstrap_servers,
        "postgresql": services.postgresql,
        "directory": str(services.directory),
    }
    if json:
        print_json(shown)
    else:
        print_fields(shown.items())
