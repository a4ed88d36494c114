"""`tenten up`: everything on this machine, in one command."""

from contextlib import ExitStack
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated

import typer

from tenten.cli.exit_codes import FAILED, USAGE
from tenten.cli.options import EverywhereOptions, LogFormatOption, everywhere
from tenten.cli.output import report
from tenten.cli.processes import stop_on_signals
from tenten.cli.wiring import configured, needs_local_servers, with_local_servers
from tenten.workers import ALL, AT_HEADQUARTERS, CHANNEL_FAILPOINTS

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tenten.runtime.settings import Settings
    from tenten.supervisor import Program
    from tenten.web.local_pages import LocalPages
    from tenten.web.serving.address import HttpAddress

Web = Annotated[
    bool, typer.Option("--web/--no-web", help="Serve headquarters' dashboard, and the screen and API of each store.")
]


def up(context: typer.Context, web: Web = True, log_format: LogFormatOption = None) -> None:
    """Start everything on this machine, and keep it running until SIGTERM.

    Starts local servers if no broker or no database of headquarters is configured; then creates topics and tables,
    gives headquarters the legal entities and channels of tenten.toml, and each channel a key, and runs headquarters'
    workers and every channel, each as a process. A channel that has joined elsewhere is not started. With the extra
    `web`, it also runs the dashboard, and prints links to all pages; whoever has such a link can sign in. A process
    that dies is restarted after a pause that grows; one that ends because its settings are wrong is not. SIGTERM or
    Ctrl-C drains all of them; local servers keep running until `tenten local stop`.
    """
    stop = stop_on_signals()
    from tenten.runtime.failpoints import check_failpoint
    from tenten.runtime.logs import configure_logs
    from tenten.supervisor import Notices, supervise

    check_failpoint([name for worker in ALL for name in worker.failpoints])
    configure_logs(log_format=log_format)
    before = configured(context)
    settings = _with_servers(before)
    _apply_topics(settings)
    from tenten.cli.database import upgrade_all

    upgrade_all(settings, _apply_settings)
    if not settings.channels:
        report("No channel is configured: add [channels.NAME] to tenten.toml")
    settings = _give_keys(settings)
    more = () if log_format is None else ("--log-format", log_format)
    with ExitStack() as ends:
        pages = _reserve_pages(settings, ends) if web else None
        programs = _programs(settings, everywhere(context), pages, more)
        notices = Notices(started=lambda: _announce_when_ready(settings, pages, stop), given_up=_report_given_up)
        has_run = supervise(programs, stop, notices, final_code=USAGE)
    if needs_local_servers(before):
        report("Kafka and PostgreSQL keep running; `tenten local stop` ends them")
    if not has_run:
        raise typer.Exit(USAGE)


def _report_given_up(name: str) -> None:
    report(
        f"{name} has ended because its settings are wrong (see its message above) and is not restarted: correct "
        "tenten.toml, then start `tenten up` again. The other processes continue"
    )


def _with_servers(settings: "Settings") -> "Settings":
    if not needs_local_servers(settings):
        return settings
    from tenten import local

    return with_local_servers(settings, local.start(settings.data, report))


def _apply_topics(settings: "Settings") -> None:
    """Create and correct the topics. Raises: `typer.Exit` if a topic is refused."""
    from tenten.kafka.topics_admin import apply_topics

    changes = apply_topics(settings)
    for change in changes:
        if change.action != "keep":
            report(f"Topic {change.topic}: {change.action}, {change.detail}")
    if any(change.action == "refuse" for change in changes):
        raise typer.Exit(FAILED)


def _apply_settings(engine: "Engine", settings: "Settings") -> None:
    """Give headquarters the legal entities and channels of tenten.toml; nothing is removed. Raises: `SettingsError`."""
    from tenten.registry.apply import add_to_registry, compare_registry
    from tenten.registry.values import registry_of_settings

    wanted = registry_of_settings(settings)
    changes = add_to_registry(engine, wanted, source="up")
    if not changes.none:
        report(f"headquarters: takes from tenten.toml {changes}")
    others = compare_registry(engine, wanted)
    if others.removed:
        report(
            f"headquarters: also has {others}, which tenten.toml does not have: `tenten settings apply tenten.toml` "
            "with --remove removes them"
        )


def _give_keys(settings: "Settings") -> "Settings":
    """Give each channel a key, so that headquarters knows who has written its records. Idempotent.

    Returns the settings without the channels that have joined with a token and whose key is elsewhere: what they would
    send from here is not accepted.
    """
    from tenten.identity.local_keys import give_key
    from tenten.runtime.errors import KeyNotAccepted
    from tenten.sql.engine import open_database

    here = dict(settings.channels)
    with ExitStack() as ends:
        headquarters = open_database(settings.headquarters_database())
        ends.callback(headquarters.dispose)
        for name, channel in settings.channels.items():
            store = open_database(channel.database)
            ends.callback(store.dispose)
            try:
                if give_key(headquarters, store, name, source="up"):
                    report(f"{name}: has a key")
            except KeyNotAccepted as refusal:
                report(f"{name} is not started: {refusal}")
                del here[name]
    return settings.model_copy(update={"channels": here})


def _reserve_pages(settings: "Settings", ends: ExitStack) -> "LocalPages | None":
    """Addresses for the pages, reserved until `ends`; None without the extra that serves them."""
    from tenten.web.local_pages import can_serve_pages, reserve_pages

    if not can_serve_pages():
        report("No pages are served: for them, pip install 'tenten-commerce[web]'")
        return None
    return reserve_pages(settings.channels, ends)


def _programs(
    settings: "Settings", options: EverywhereOptions, pages: "LocalPages | None", after: tuple[str, ...]
) -> "list[Program]":
    """The workers of headquarters, every channel, each with its own failpoints, and the dashboard."""
    from tenten.supervisor import Program

    before, environment = options.as_arguments(), options.as_environment()
    headquarters = [
        Program(
            name=worker.name,
            arguments=(*before, *worker.command, *after),
            failpoints=worker.failpoints,
            environment=environment,
        )
        for worker in AT_HEADQUARTERS
    ]
    channels = [
        Program(
            name=name,
            arguments=(*before, "channel", "run", name, *_http(None if pages is None else pages.stores[name]), *after),
            failpoints=CHANNEL_FAILPOINTS,
            environment=environment,
        )
        for name in settings.channels
    ]
    if pages is None:
        return [*headquarters, *channels]
    dashboard = Program(
        name="dashboard",
        arguments=(*before, "headquarters", "web", *_http(pages.dashboard), *after),
        failpoints=(),
        environment=environment,
    )
    return [*headquarters, *channels, dashboard]


def _http(address: "HttpAddress | None") -> tuple[str, ...]:
    return () if address is None else ("--http", str(address))


def _announce_when_ready(settings: "Settings", pages: "LocalPages | None", stop: Event) -> None:
    """Report, from a thread, that headquarters has its partitions, with commands and links to try."""

    def announce() -> None:
        from tenten.failure_messages import explain
        from tenten.status import wait_for_assignment

        try:
            if wait_for_assignment(settings, AT_HEADQUARTERS, stop):
                report(f"Ready. {_suggestion([*settings.channels])}")
                if pages is not None:
                    _report_links(settings, pages)
        except Exception as error:
            problem = explain(error)
            if problem is None:
                raise
            report(f"All processes have started; the partitions of headquarters are not known: {problem}")

    Thread(target=announce, name="ready", daemon=True).start()


def _report_links(settings: "Settings", pages: "LocalPages") -> None:
    """Print the links to the pages."""
    report("Or in a browser, with links that sign in:")
    report(f"  headquarters' dashboard: {pages.link_to_dashboard(settings)}")
    for name in settings.channels:
        report(f"  the screen of {name}: {pages.link_to_store(settings, name)}")


def _suggestion(channels: list[str]) -> str:
    """Two commands to try, with channels that exist."""
    if not channels:
        return "Add a channel to tenten.toml, and start again."
    create = f"tenten customer create {channels[0]} --first-name Ada --last-name Lovelace --sync 5"
    search = f"tenten customer search {channels[-1]} lovelace"
    return f"Try in another terminal: {create}; then: {search}"
