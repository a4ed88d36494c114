"""The commands that run a worker of `tenten/workers.py`: one for each, from its declaration."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from tenten.cli.options import ChannelArgument, EndsWith, LogFormatOption, Started, examples
from tenten.cli.processes import collect_rarely, run_together, stop_on_signals
from tenten.cli.wiring import connected
from tenten.workers import Start, Worker, channel_threads

if TYPE_CHECKING:
    from tenten.runtime.logs import LogFormat
    from tenten.runtime.settings import Settings

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
        log_format: LogFormatOption = None,
        ends_with: EndsWith = None,
        started: Started = None,
    ) -> None:
        stop = stop_on_signals(ends_with)
        settings = begin(context, worker.failpoints, log_format)
        run_worker = worker.load()
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
    def run(context: typer.Context, name: ChannelArgument, log_format: LogFormatOption = None) -> None:
        run_channel(context, name, [worker], stop=stop_on_signals(), log_format=log_format)


def run_channel(
    context: typer.Context,
    name: str,
    workers: Sequence[Worker],
    *,
    stop: Event,
    log_format: "LogFormat | None",
    started: Path | None = None,
) -> None:
    """Run these workers of a channel until `stop` is set, or until one of them fails. Raises: its error."""
    settings = begin(context, [point for worker in workers for point in worker.failpoints], log_format)
    settings.channel(name)
    start = Start(settings=settings, stop=stop, channel=name)
    parts = {part: partial(run, start) for part, run in channel_threads(workers).items()}
    tell(started)
    run_together(parts, stop)


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
