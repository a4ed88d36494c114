"""`tenten channel`: the workers of a channel, its full sync, and its status."""

from dataclasses import asdict
from typing import Annotated

import typer

from tenten.cli.enrolment import add_enrolment_commands
from tenten.cli.exit_codes import FAILED
from tenten.cli.http import HttpAddressText, HttpOptions, TokenFile, WithoutTls
from tenten.cli.options import ChannelArgument, EndsWith, Json, LogFormatOption, Started, examples, noun
from tenten.cli.output import print_fields, print_json, progress_bar, report
from tenten.cli.processes import stop_on_signals
from tenten.cli.wiring import connected
from tenten.cli.workers import add_channel_worker, begin, command_with, run_channel
from tenten.workers import CHANNEL_FAILPOINTS, DISTRIBUTION, IN_CHANNEL

app = noun(
    "A channel: sends its changes to headquarters, and receives headquarters' customers.", "tenten channel run houston"
)


@app.command(cls=command_with(CHANNEL_FAILPOINTS), epilog=examples("tenten channel run houston"))
def run(
    context: typer.Context,
    *,
    name: ChannelArgument,
    http: HttpAddressText = None,
    without_tls: WithoutTls = False,
    token_file: TokenFile = None,
    log_format: LogFormatOption = None,
    ends_with: EndsWith = None,
    started: Started = None,
) -> None:
    """Relay, settlement and distribution of a channel in one process, until SIGTERM.

    An error that waiting cannot fix ends the process. Each part can also run as a process of its own: see `relay`,
    `settle` and `distribute`.
    """
    run_channel(
        context,
        name,
        IN_CHANNEL,
        stop=stop_on_signals(ends_with),
        http=HttpOptions(address=http, without_tls=without_tls, token_file=token_file),
        log_format=log_format,
        started=started,
    )


add_enrolment_commands(app)
for _worker in IN_CHANNEL:
    add_channel_worker(app, _worker)


@app.command(cls=command_with(DISTRIBUTION.failpoints), epilog=examples("tenten channel resync houston"))
def resync(
    context: typer.Context,
    name: ChannelArgument,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete all customers that the topic does not have, however many.")
    ] = False,
    log_format: LogFormatOption = None,
) -> None:
    """The full sync: read every customer again, while the channel stays complete, readable and current.

    `channel run` may continue meanwhile. Exit code 1 when it was interrupted: nothing is lost, and the next resync
    starts from the beginning; and when it kept customers that the topic does not have, because they are more than a
    tenth: see `--yes`.
    """
    stop = stop_on_signals()
    settings = begin(context, DISTRIBUTION.failpoints, log_format)
    settings.channel(name)
    from tenten.consumers.channel.distribution.resync import resync as resync_channel
    from tenten.consumers.channel.distribution.surplus import kept_surplus

    with progress_bar(f"resync {name}", "records") as bar:
        done = resync_channel(settings, name, bar, stop, consent=yes)
    if not done:
        report("Interrupted before it was complete; nothing is lost: run it again")
        raise typer.Exit(FAILED)
    problem = kept_surplus(settings, name)
    if problem is not None:
        report(problem)
        raise typer.Exit(FAILED)


@app.command(epilog=examples("tenten channel status houston", "tenten channel status houston --json"))
def status(context: typer.Context, name: ChannelArgument, json: Json = False) -> None:
    """The status of a channel: customers, pending ones, changes that headquarters has not settled, and its lag.

    The lag is unknown (null) while no broker answers.
    """
    from tenten.status import channel_status

    standing = channel_status(connected(context), name)
    if json:
        print_json(standing)
    else:
        print_fields(asdict(standing).items())
