"""The commands that run a worker of `tenten/workers.py`: one for each, from its declaration."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from tenten.cli.http import HttpAddressText, HttpOptions, WithoutTls, http_served
from tenten.cli.options import ChannelArgument, EndsWith, LogFormatOption, Started, examples
from tenten.cli.processes import collect_rarely, run_together, stop_on_signals
from tenten.cli.wiring import connected
from tenten.workers import STORE_FAILPOINTS, Start, Worker, channel_threads

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from tenten.runtime.logs import LogFormat
    from tenten.runtime.settings import Settings
    from tenten.web.apps import Served

SlotNumber = Annotated[
    int | None,
    typer.Option(
        "--slot",
        metavar="N",
        min=0,
        max=999,
        show_default=False,
        help="Number of the transactional id. Default: the first free one.",
    ),
]


def command_with(failpoints: Sequence[str]) -> type[TyperCommand]:
    """A command whose help ends with these failpoints."""

    class WithFailpoints(TyperCommand):
        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            """Write the examples, then the failpoints."""
            super().format_epilog(ctx, formatter)
            formatter.write_paragraph()
            with formatter.indentation():
                names = "\n".join(f"  {name}" for name in failpoints)
                formatter.write_text(
                    f"\b\nFor tests, TENTEN_FAILPOINT=NAME[@N] kills the process at the N-th pass of:\n{names}"
                )

    return WithFailpoints


def add_headquarters_worker(app: typer.Typer, worker: Worker, more: str = "") -> None:
    """Add the command that runs a worker of headquarters."""
    words = f"tenten {' '.join(worker.command)}"
    text = (
        f"{worker.sentence}, until SIGTERM, which commits what is under way.\n\n{more} Start as many as there are "
        "partitions, on any machine."
    )

    @app.command(
        worker.command[-1],
        cls=command_with(worker.failpoints),
        help=text.strip(),
        epilog=examples(words, f"{words} --slot 0"),
    )
    def run(
        context: typer.Context,
        *,
        slot: SlotNumber = None,
        http: HttpAddressText = None,
        without_tls: WithoutTls = False,
        log_format: LogFormatOption = None,
        ends_with: EndsWith = None,
        started: Started = None,
    ) -> None:
        stop = stop_on_signals(ends_with)
        settings = begin(context, worker.failpoints, log_format)
        export_spans(f"tenten-{worker.name}")
        run_worker = worker.load()
        with http_served(settings, HttpOptions(address=http, without_tls=without_tls), partial(_worker_app, worker)):
            collect_rarely()
            tell(started)
            run_worker(Start(settings=settings, stop=stop, slot=slot))


def add_channel_worker(app: typer.Typer, worker: Worker) -> None:
    """Add the command that runs a channel's worker alone."""

    @app.command(
        worker.command[-1],
        cls=command_with(worker.failpoints),
        help=f"{worker.sentence}, until SIGTERM; the other parts of `run` not.",
        epilog=examples(f"tenten {' '.join(worker.command)} houston"),
    )
    def run(
        context: typer.Context,
        *,
        name: ChannelArgument,
        http: HttpAddressText = None,
        without_tls: WithoutTls = False,
        log_format: LogFormatOption = None,
    ) -> None:
        options = HttpOptions(address=http, without_tls=without_tls)
        run_channel(context, name, [worker], stop=stop_on_signals(), http=options, log_format=log_format)


def run_channel(
    context: typer.Context,
    name: str,
    workers: Sequence[Worker],
    *,
    stop: Event,
    http: HttpOptions,
    log_format: "LogFormat | None",
    started: Path | None = None,
) -> None:
    """Run these workers of a channel until `stop` is set, or until one of them fails. Raises: its error."""
    failpoints = [*(point for worker in workers for point in worker.failpoints), *STORE_FAILPOINTS]
    settings = begin(context, failpoints, log_format)
    settings.channel(name)
    export_spans(f"tenten-{name}")
    start = Start(settings=settings, stop=stop, channel=name)
    parts = {part: partial(run, start) for part, run in channel_threads(workers).items()}
    with http_served(settings, http, partial(_channel_app, name)):
        tell(started)
        run_together(parts, stop)


def _worker_app(worker: Worker, served: "Served") -> "ASGIApp":
    """What a worker of headquarters serves."""
    from tenten.sql.engine import open_database
    from tenten.web.apps import headquarters_app

    return headquarters_app(served, worker, open_database(served.settings.headquarters_database()))


def _channel_app(channel: str, served: "Served") -> "ASGIApp":
    """What a process of a channel serves."""
    from tenten.sql.engine import open_database
    from tenten.web.apps import channel_app

    return channel_app(served, channel, open_database(served.settings.channel(channel).database))


def export_spans(service: str) -> None:
    """Export the spans of this process, if the environment asks for it."""
    from tenten.runtime import span_export

    span_export.export_spans(service)


def begin(context: typer.Context, failpoints: Sequence[str], log_format: "LogFormat | None") -> "Settings":
    """Check the failpoint, configure the logs, and load the settings. Raises: `SettingsError`."""
    from tenten.runtime.failpoints import check_failpoint
    from tenten.runtime.logs import configure_logs

    check_failpoint(failpoints)
    configure_logs(log_format=log_format)
    return connected(context)


def tell(started: Path | None) -> None:
    """Create the file that tells the supervisor that this process has started."""
    if started is not None:
        started.touch()
