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
    """Start both servers and wait until they answer; what runs already stays as it is.

    Their data lies in `data` of tenten.toml (.tenten), and is there again at the next start. Commands use these servers
    wherever the settings name no broker or no database for headquarters.
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
    """Where the servers are. Exit code 3 unless both run."""
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
