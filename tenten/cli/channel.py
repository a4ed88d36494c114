"""`tenten channel`: the processes of a channel, its full sync, and how it stands."""

from collections.abc import Callable
from dataclasses import asdict
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import ChannelCommand, EndsWith, Json, examples, noun
from tenten.cli.output import print_fields, print_json, progress_bar, report
from tenten.cli.processes import run_together, stop_on_signals
from tenten.cli.wiring import connected

if TYPE_CHECKING:
    from tenten.runtime.settings import Settings

app = noun(
    "A channel: brings its customers to headquarters, and headquarters' customers to it.", "tenten channel run houston"
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A channel of tenten.toml.", show_default=False)]
Part = Callable[["Settings", str], Callable[[Event], None]]
"""Imports what it needs, and gives what runs until the event is set."""


@app.command(cls=ChannelCommand, epilog=examples("tenten channel run houston"))
def run(context: typer.Context, name: Name, ends_with: EndsWith = None) -> None:
    """Relay, settlement and distribution of a channel in one process, until SIGTERM.

    An error that waiting cannot mend in one of them ends the process. Each can also run as a process of its own: see
    `relay`, `settle` and `distribute`.
    """
    _run(context, name, ends_with, {"relay": _relay, "settlement": _settle, "distribution": _distribute})


@app.command(cls=ChannelCommand, epilog=examples("tenten channel relay houston"))
def relay(context: typer.Context, name: Name, ends_with: EndsWith = None) -> None:
    """Only bring the outbox to headquarters, until SIGTERM."""
    _run(context, name, ends_with, {"relay": _relay})


@app.command(cls=ChannelCommand, epilog=examples("tenten channel settle houston"))
def settle(context: typer.Context, name: Name, ends_with: EndsWith = None) -> None:
    """Only settle what headquarters has answered, until SIGTERM."""
    _run(context, name, ends_with, {"settlement": _settle})


@app.command(cls=ChannelCommand, epilog=examples("tenten channel distribute houston"))
def distribute(context: typer.Context, name: Name, ends_with: EndsWith = None) -> None:
    """Only apply headquarters' customers to the channel, until SIGTERM."""
    _run(context, name, ends_with, {"distribution": _distribute})


@app.command(cls=ChannelCommand, epilog=examples("tenten channel resync houston"))
def resync(context: typer.Context, name: Name) -> None:
    """The full sync: read every customer anew, while the channel stays complete, readable and current.

    `channel run` may go on meanwhile. Exit code 1 when it was interrupted: nothing is lost, the next one begins anew.
    """
    stop = stop_on_signals()
    settings = _start(context, name)
    from tenten.consumers.channel.distribution.resync import resync as resync_channel

    with progress_bar(f"resync {name}", "records") as bar:
        done = resync_channel(settings, name, bar, stop)
    if not done:
        report("Interrupted before it was done; nothing is lost: run it again")
        raise typer.Exit(FAILED)


@app.command(epilog=examples("tenten channel status houston", "tenten channel status houston --json"))
def status(context: typer.Context, name: Name, json: Json = False) -> None:
    """How a channel stands: customers, pending ones, changes that headquarters has not settled, and the lag behind it.

    The lag is unknown (null) while no broker answers.
    """
    from tenten.status import channel_status

    found = channel_status(connected(context), name)
    if json:
        print_json(asdict(found))
    else:
        print_fields(asdict(found).items())


def _run(context: typer.Context, name: str, ends_with: int | None, parts: dict[str, Part]) -> None:
    stop = stop_on_signals(ends_with)
    settings = _start(context, name)
    run_together({what: part(settings, name) for what, part in parts.items()}, stop)


def _start(context: typer.Context, name: str) -> "Settings":
    """What every process of a channel does first. Raises: `SettingsError`."""
    from tenten.runtime.failpoints import CHANNEL, check_failpoint
    from tenten.runtime.logs import configure_logs

    check_failpoint(CHANNEL)
    configure_logs()
    settings = connected(context)
    settings.channel(name)
    return settings


def _relay(settings: "Settings", name: str) -> Callable[[Event], None]:
    from tenten.producers.relay.run import run as run_relay

    return lambda stop: run_relay(name, settings, stop)


def _settle(settings: "Settings", name: str) -> Callable[[Event], None]:
    from tenten.consumers.channel.settlement.run import run as run_settlement

    return lambda stop: run_settlement(settings, name, stop)


def _distribute(settings: "Settings", name: str) -> Callable[[Event], None]:
    from tenten.consumers.channel.distribution.run import run as run_distribution

    return lambda stop: run_distribution(settings, name, stop)
