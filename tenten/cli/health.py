"""`tenten status`, `lag` and `doctor`: health of topics, headquarters and channels."""

from dataclasses import asdict

import typer

from tenten.cli.exit_codes import UNHEALTHY
from tenten.cli.options import Json
from tenten.cli.output import print_json, print_line, print_table, report
from tenten.cli.wiring import connected


def status(context: typer.Context, json: Json = False) -> None:
    """Show topics, headquarters, and every channel whose database can be reached from here.

    Exit code 3 if a part cannot be reached, or a transaction waits for its customer for longer than
    waiting_seconds_max; the problem is shown.
    """
    from tenten.status import whole_status

    whole = whole_status(connected(context))
    if json:
        print_json(asdict(whole))
    else:
        print_table(
            ("topic", "partitions", "offsets", "problem"),
            [(topic.topic, topic.partitions, topic.offsets, topic.problem) for topic in whole.topics],
        )
        print_line("")
        hq = whole.headquarters
        print_table(
            ("headquarters", "customers", "events", "rejected", "lag", "problem"),
            [("", hq.customers, hq.events, hq.rejected, hq.lag, hq.problem)],
        )
        print_line("")
        if hq.transactions is not None:
            columns = ("waiting", "blocked", "rejected", "oldest_waiting_seconds", "open_statements", "lag", "problem")
            values = asdict(hq.transactions)
            print_table(("transactions", *columns), [("", *(values[column] for column in columns))])
            print_line("")
        columns = ("customers", "pending", "unsettled", "unsent", "rejected", "lag", "problem")
        rows = [(name, *(getattr(channel, column) for column in columns)) for name, channel in whole.channels.items()]
        print_table(("channel", *columns), rows)
    if not whole.healthy:
        raise typer.Exit(UNHEALTHY)


def lag(context: typer.Context, json: Json = False) -> None:
    """Show how many records each consumer group is behind, by partition.

    A channel reads by the positions in its own database; it commits to Kafka for monitoring only.
    """
    from tenten.status import group_lags

    lags = group_lags(connected(context))
    if json:
        print_json([asdict(lag) for lag in lags])
    else:
        columns = ("group", "topic", "partition", "committed", "end", "lag")
        print_table(columns, [tuple(getattr(lag, column) for column in columns) for lag in lags])


def doctor(context: typer.Context, json: Json = False) -> None:
    """Check configuration, broker, topics, databases, clock and schema registry, and advise on problems.

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
        print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    elif not healthy:
        report("Problems found: see the lines marked FAIL")
    if not healthy:
        raise typer.Exit(UNHEALTHY)
