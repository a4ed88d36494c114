"""`tenten status`, `lag` and `doctor`: how everything is."""

from dataclasses import asdict

import typer

from tenten.cli.exit_codes import UNHEALTHY
from tenten.cli.options import Json
from tenten.cli.output import print_json, print_line, print_table, report
from tenten.cli.wiring import connected


def status(context: typer.Context, json: Json = False) -> None:
    """How everything stands: topics, headquarters, and every channel whose database can be reached from here.

    Exit code 3 when a part cannot be looked at, or a transaction waits for its customer for longer than
    waiting_seconds_max; it says why.
    """
    from tenten.status import whole_status

    found = whole_status(connected(context))
    if json:
        print_json(asdict(found))
    else:
        print_table(
            ("topic", "partitions", "records", "problem"),
            [(t.topic, t.partitions, t.offsets, t.problem) for t in found.topics],
        )
        print_line("")
        hq = found.headquarters
        print_table(
            ("headquarters", "customers", "events", "rejected", "lag", "problem"),
            [("", hq.customers, hq.events, hq.rejected, hq.lag, hq.problem)],
        )
        print_line("")
        if hq.transactions is not None:
            columns = ("waiting", "blocked", "rejected", "oldest_waiting_seconds", "open_statements", "lag", "problem")
            told = asdict(hq.transactions)
            print_table(("transactions", *columns), [("", *(told[column] for column in columns))])
            print_line("")
        rows = [
            (name, one.customers, one.pending, one.unsettled, one.unsent, one.rejected, one.lag, one.problem)
            for name, one in found.channels.items()
        ]
        print_table(("channel", "customers", "pending", "unsettled", "unsent", "rejected", "lag", "problem"), rows)
    if not found.healthy:
        raise typer.Exit(UNHEALTHY)


def lag(context: typer.Context, json: Json = False) -> None:
    """How far each consumer group is behind the end of what it reads, by partition.

    Of a channel this is what it has committed to Kafka; it goes by the positions in its own database.
    """
    from tenten.status import group_lags

    found = group_lags(connected(context))
    if json:
        print_json([asdict(one) for one in found])
    else:
        columns = ("group", "topic", "partition", "committed", "end", "lag")
        print_table(columns, [(one.group, one.topic, one.partition, one.committed, one.end, one.lag) for one in found])


def doctor(context: typer.Context, json: Json = False) -> None:
    """Check configuration, broker, topics, databases, clock and schema registry, and say what to do.

    Exit code 3 when something is not well.
    """
    from tenten.doctor import Check, examine

    checks: list[Check] = []
    for check in examine(lambda: connected(context)):
        checks.append(check)
        if not json:
            print_line(f"{'ok  ' if check.ok else 'NOT '} {check.what}: {check.text}")
    healthy = all(check.ok for check in checks)
    if json:
        print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    elif not healthy:
        report("Not well: see the lines that begin with NOT")
    if not healthy:
        raise typer.Exit(UNHEALTHY)
