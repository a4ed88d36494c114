"""`tenten status`, `fleet`, `lag` and `doctor`: health of topics, headquarters and channels."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from tenten.cli.exit_codes import UNHEALTHY
from tenten.cli.options import Json
from tenten.cli.output import print_json, print_line, print_table, report
from tenten.cli.wiring import connected

if TYPE_CHECKING:
    from tenten.schemas.messages import Loading
    from tenten.status import ChannelOfFleet, WholeStatus


def status(context: typer.Context, json: Json = False) -> None:
    """Show topics, headquarters and every channel. Ends within five seconds, whatever does not answer.

    A channel whose database cannot be reached from here is shown as its last heartbeat reports it. Where no database of
    headquarters is configured, only the channels are shown.

    Exit code 3 if a server does not answer, a channel or a worker of headquarters does not run, or something is late by
    the limits of [alarms] and waiting_seconds_max: each problem is shown once, with its remedy.
    """
    from tenten.status import whole_status

    whole = whole_status(connected(context))
    if json:
        print_json(whole)
    else:
        _print_status(whole)
    if not whole.healthy:
        raise typer.Exit(UNHEALTHY)


def _print_status(whole: "WholeStatus") -> None:
    print_table(
        ("topic", "partitions", "offsets"), [(topic.topic, topic.partitions, topic.offsets) for topic in whole.topics]
    )
    print_line("")
    hq = whole.headquarters
    if hq.workers:
        counts = ("customers", "events", "rejected", "conflicts", "lag")
        print_table(
            ("headquarters", *counts, *(f"{worker}_workers" for worker in hq.workers)),
            [("", *(getattr(hq, name) for name in counts), *hq.workers.values())],
        )
        print_line("")
    if hq.held is not None and hq.held.causes:
        names = ("code", "subject", "events", "oldest_seconds")
        print_table(("held", *names), [("", *(getattr(cause, name) for name in names)) for cause in hq.held.causes])
        print_line("")
    if hq.verification is not None:
        verification = asdict(hq.verification)
        print_table(("verification", *verification), [("", *verification.values())])
        print_line("")
    if hq.transactions is not None:
        columns = ("waiting", "blocked", "rejected", "oldest_waiting_seconds", "open_statements", "lag")
        values = asdict(hq.transactions)
        print_table(("transactions", *columns), [("", *(values[column] for column in columns))])
        print_line("")
    of_channel = ("customers", "pending", "unsettled", "unsent", "rejected", "lag", "heard_at")
    rows = [(name, *(getattr(channel, column) for column in of_channel)) for name, channel in whole.channels.items()]
    print_table(("channel", *of_channel), rows)
    if whole.problems:
        print_line("")
    for problem in whole.problems:
        print_line(f"FAIL {', '.join(problem.about)}: {problem.text}")


def fleet(context: typer.Context, json: Json = False) -> None:
    """Show every channel as its last heartbeat reports it. Reads the topic of heartbeats, and the names of channels.

    Times are seconds since the oldest change that has not been sent, or not been answered by headquarters, was made.
    Exit code 3 if a channel has a problem, 1 if Kafka does not answer.
    """
    from tenten.status import fleet as whole_fleet

    channels = whole_fleet(connected(context))
    if json:
        print_json(channels)
    else:
        _show_fleet(channels)
    if any(channel.problems for channel in channels):
        raise typer.Exit(UNHEALTHY)


def _show_fleet(channels: "Sequence[ChannelOfFleet]") -> None:
    columns = ("heard_at", "complete_at", "customers", "oldest_unsent_seconds", "oldest_unsettled_seconds", "version")
    rows = [
        (channel.channel_id, *(getattr(channel, column) for column in columns), _progress(channel.loading))
        for channel in channels
    ]
    print_table(("channel", *columns, "loading"), rows)
    if any(channel.problems for channel in channels):
        print_line("")
    for channel in channels:
        for problem in channel.problems:
            print_line(f"FAIL {channel.channel_id}: {problem.text}")


def _progress(load: "Loading | None") -> str | None:
    return None if load is None else f"{load.kind.replace('_', ' ')}: {load.done:,} of {load.total:,}"


def lag(context: typer.Context, json: Json = False) -> None:
    """Show how many records each consumer group is behind, by partition.

    A channel reads by the positions in its own database; it commits to Kafka for monitoring only.
    """
    from tenten.status import group_lags

    lags = group_lags(connected(context))
    if json:
        print_json(lags)
    else:
        columns = ("group", "topic", "partition", "committed", "end", "lag")
        print_table(columns, [tuple(getattr(lag, column) for column in columns) for lag in lags])


def doctor(context: typer.Context, json: Json = False) -> None:
    """Check configuration, broker, topics, databases, clock, schema registry and running processes, and advise.

    Exit code 3 if a check fails.
    """
    from tenten.doctor import Check, examine

    checks: list[Check] = []
    for check in examine(lambda: connected(context)):
        checks.append(check)
        if not json:
            print_line(f"{'ok  ' if check.ok else 'FAIL'} {check.what}: {check.text}")
    healthy = all(check.ok for check in checks)
    if json:
        print_json({"healthy": healthy, "checks": checks})
    elif not healthy:
        report("Problems found: see the lines marked FAIL")
    if not healthy:
        raise typer.Exit(UNHEALTHY)
