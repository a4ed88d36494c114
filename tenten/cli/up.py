"""`tenten up`: everything on this machine, in one command."""

from typing import TYPE_CHECKING

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import everywhere
from tenten.cli.output import report
from tenten.cli.processes import stop_on_signals
from tenten.cli.wiring import configured, needs_local_servers, with_local_servers
from tenten.workers import ALL, AT_HEADQUARTERS, CHANNEL_FAILPOINTS

if TYPE_CHECKING:
    from tenten.runtime.settings import Settings
    from tenten.supervisor import Program


def up(context: typer.Context) -> None:
    """Start everything on this machine, and keep it running until SIGTERM.

    Local servers where the settings name no broker or no database for headquarters; then topics, databases,
    headquarters, its transactions, and every channel, each a process of its own. One that dies is started again, after
    a pause that grows. SIGTERM or Ctrl-C drains all of them; local servers go on, until `tenten local stop`.
    """
    stop = stop_on_signals()
    from tenten.runtime.failpoints import check_failpoint
    from tenten.runtime.logs import configure_logs
    from tenten.supervisor import supervise

    check_failpoint([name for worker in ALL for name in worker.failpoints])
    configure_logs()
    settings = _with_servers(configured(context))
    _apply_topics(settings)
    from tenten.cli.database import upgrade_all

    upgrade_all(settings)
    if not settings.channels:
        report("No channel is configured: add [channels.NAME] to tenten.toml")
    supervise(_programs(settings, everywhere(context).as_arguments()), stop)


def _with_servers(settings: "Settings") -> "Settings":
    if not needs_local_servers(settings):
        return settings
    from tenten import local

    return with_local_servers(settings, local.start(settings.data, report))


def _apply_topics(settings: "Settings") -> None:
    """Create and correct the topics. Raises: `typer.Exit` when one is refused."""
    from tenten.kafka.topics_admin import apply_topics

    changes = apply_topics(settings)
    for change in changes:
        if change.action != "keep":
            report(f"Topic {change.topic}: {change.action}, {change.detail}")
    if any(change.action == "refuse" for change in changes):
        raise typer.Exit(FAILED)


def _programs(settings: "Settings", everywhere_arguments: tuple[str, ...]) -> "list[Program]":
    """The workers of headquarters, and every channel, each with its own failpoints."""
    from tenten.supervisor import Program

    headquarters = [
        Program(name=worker.name, arguments=(*everywhere_arguments, *worker.command), failpoints=worker.failpoints)
        for worker in AT_HEADQUARTERS
    ]
    channels = [
        Program(name=name, arguments=(*everywhere_arguments, "channel", "run", name), failpoints=CHANNEL_FAILPOINTS)
        for name in settings.channels
    ]
    return [*headquarters, *channels]
