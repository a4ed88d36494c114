"""`tenten headquarters web`: the dashboard, a process of its own."""

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.http import HttpOptions, WithoutTls, http_served
from tenten.cli.options import EndsWith, LogFormatOption, Started, examples
from tenten.cli.output import report
from tenten.cli.processes import stop_on_signals
from tenten.cli.workers import begin, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp

    from tenten.runtime.settings import Settings
    from tenten.web.apps import Served

ADDRESS: Final = "127.0.0.1:8700"

_ROLES: Final = ("viewer", "operator")


def add_dashboard_command(app: typer.Typer) -> None:
    """Add the command to `tenten headquarters`."""

    @app.command(
        epilog=examples(
            "tenten headquarters web", "tenten headquarters web --http 0.0.0.0:8700 --token-directory tokens"
        )
    )
    def web(
        context: typer.Context,
        *,
        http: Annotated[
            str, typer.Option("--http", metavar="HOST:PORT", help="Serve there; port 0: any free one.")
        ] = ADDRESS,
        without_tls: WithoutTls = False,
        token_directory: Annotated[
            Path | None,
            typer.Option(
                "--token-directory",
                metavar="DIR",
                file_okay=False,
                show_default=False,
                help="Where viewer.token and operator.token are. Default: beside the directory `data`.",
            ),
        ] = None,
        log_format: LogFormatOption = None,
        ends_with: EndsWith = None,
        started: Started = None,
    ) -> None:
        """Serve headquarters' dashboard, until SIGTERM: stores, customers, changes, statements, dead letters, channels.

        Its pages need a token, which is made at the first start: viewer.token shows no personal data and acts on
        nothing, operator.token does. What operators do, and whose personal data they see, is recorded under their name.
        """
        stop = stop_on_signals(ends_with)
        settings = begin(context, (), log_format)
        settings.headquarters_database()
        tokens = _tokens(settings, token_directory)
        options = HttpOptions(address=http, without_tls=without_tls)
        failed = Event()

        def fail() -> None:
            failed.set()
            stop.set()

        with http_served(settings, options, lambda served: _app(served, tokens), fail) as address:
            scheme = "http" if settings.http.certificate is None else "https"
            report(f"The dashboard is at {scheme}://{address}")
            tell(started)
            stop.wait()
        if failed.is_set():
            raise typer.Exit(FAILED)


def _app(served: "Served", tokens: "Mapping[str, str]") -> "ASGIApp":
    from tenten.sql.engine import open_database
    from tenten.web.apps import dashboard_app

    return dashboard_app(served, open_database(served.settings.headquarters_database()), tokens)


def _tokens(settings: "Settings", directory: Path | None) -> "dict[str, str]":
    """The token of each role, made at the first start. Raises: `SettingsError`, `NotInstalled`."""
    from tenten.runtime.private_files import create_private_directory
    from tenten.web.serving.tokens import access_token, role_token_file

    files = {role: role_token_file(settings, role, directory) for role in _ROLES}
    create_private_directory(files["operator"].parent)
    tokens = {role: access_token(file) for role, file in files.items()}
    report(f"Sign in with the token in {files['operator']}, or to look only with that in {files['viewer']}")
    return tokens
