"""`tenten headquarters`: the consumer that gives account numbers, and the proof that database and topic agree."""

from dataclasses import asdict

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import EndsWith, HeadquartersCommand, Json, SlotNumber, examples, noun
from tenten.cli.output import print_fields, print_json, progress_bar, report
from tenten.cli.processes import collect_rarely, stop_on_signals
from tenten.cli.wiring import connected

app = noun("Headquarters: the only writer of customers.", "tenten headquarters run")


@app.command(cls=HeadquartersCommand, epilog=examples("tenten headquarters run", "tenten headquarters run --slot 0"))
def run(
    context: typer.Context,
    slot: SlotNumber = None,
    ends_with: EndsWith = None,
) -> None:
    """Give customers their account numbers, until SIGTERM, which commits what is under way.

    Start as many as there are partitions, anywhere.
    """
    stop = stop_on_signals(ends_with)
    from tenten.runtime.failpoints import HEADQUARTERS, check_failpoint
    from tenten.runtime.logs import configure_logs

    check_failpoint(HEADQUARTERS)
    configure_logs()
    settings = connected(context)
    from tenten.consumers.headquarters.customers.run import run as run_headquarters

    collect_rarely()
    run_headquarters(settings, stop, slot)


@app.command(epilog=examples("tenten headquarters verify", "tenten headquarters verify --json"))
def verify(context: typer.Context, json: Json = False) -> None:
    """Compare database and topic, customer by customer, and name those that differ.

    By content, not by counts.     What differs is asked for again, and headquarters sends its current state. Exit
    code 1 when there were differences.
    """
    from tenten.consumers.headquarters.customers.verify import verify as verify_headquarters
    from tenten.sql.database import check_version, open_database

    settings = connected(context)
    engine = open_database(settings.headquarters_database())
    try:
        check_version(engine, "headquarters")
        with progress_bar("verify", "records") as bar:
            found = verify_headquarters(settings, engine, lambda what, done, total: bar(done, total, what))
    finally:
        engine.dispose()
    if json:
        print_json(asdict(found))
    else:
        print_fields(asdict(found).items())
        report("Database and topic agree" if found.none else "They differ; what differs was asked for again")
    if not found.none:
        raise typer.Exit(FAILED)
