"""`tenten headquarters`: the worker that gives account numbers, and the comparison of database and topic."""

from dataclasses import asdict

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import Json, examples, noun
from tenten.cli.output import print_fields, print_json, progress_bar, report
from tenten.cli.wiring import headquarters_engine
from tenten.cli.workers import add_headquarters_worker
from tenten.workers import HEADQUARTERS

app = noun("Headquarters: the only writer of customers.", "tenten headquarters run")


add_headquarters_worker(app, HEADQUARTERS)


@app.command(epilog=examples("tenten headquarters verify", "tenten headquarters verify --json"))
def verify(context: typer.Context, json: Json = False) -> None:
    """Compare database and topic, customer by customer, and name those that differ.

    Compares content, not counts. Headquarters sends the current state of customers that differ again. Exit code 1 when
    there were differences.
    """
    from tenten.consumers.headquarters.customers.verify import verify as verify_headquarters

    with headquarters_engine(context) as (settings, engine), progress_bar("verify", "records") as bar:
        differences = verify_headquarters(settings, engine, lambda what, done, total: bar(done, total, what))
    if json:
        print_json(asdict(differences))
    else:
        print_fields(asdict(differences).items())
        report("Database and topic agree" if differences.none else "They differ; the current state was sent again")
    if not differences.none:
        raise typer.Exit(FAILED)
