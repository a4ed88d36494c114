"""`tenten headquarters`: the worker that gives account numbers, and the ways out of a restored database or a recreated
topic.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from tenten.cli import held
from tenten.cli.dashboard import add_dashboard_command
from tenten.cli.exit_codes import FAILED
from tenten.cli.options import Json, LogFormatOption, examples, noun
from tenten.cli.output import print_fields, print_json, report
from tenten.cli.progress import progress_shown
from tenten.cli.wiring import headquarters_engine
from tenten.cli.workers import add_headquarters_worker, begin
from tenten.workers import HEADQUARTERS

if TYPE_CHECKING:
    from tenten.consumers.headquarters.recovery.recover import Recovered

app = noun("Headquarters: the only writer of customers.", "tenten headquarters run")


add_headquarters_worker(app, HEADQUARTERS)
add_dashboard_command(app)
app.add_typer(held.app, name="held")


@app.command(epilog=examples("tenten headquarters verify", "tenten headquarters verify --json"))
def verify(context: typer.Context, json: Json = False, log_format: LogFormatOption = None) -> None:
    """Compare database and topic, customer by customer, and name those that differ.

    Compares content, not counts. Headquarters sends the current state of customers that differ again. A customer that
    is only on the topic is taken back by `tenten headquarters recover`. Exit code 1 when there were differences.
    """
    from tenten.consumers.headquarters.customers.verify import verify as verify_headquarters

    begin(context, (), log_format)
    with headquarters_engine(context) as (settings, engine), progress_shown("verify", "customers") as bar:
        differences = verify_headquarters(settings, engine, lambda what, done, total: bar(done, total, what))
    fields = {name: value for name, value in asdict(differences).items() if name != "unknown"}
    if json:
        print_json(fields)
    else:
        print_fields(fields.items())
        report("Database and topic agree" if differences.none else "They differ; the current state was sent again")
        if differences.unknown:
            report(
                f"The database does not have {len(differences.unknown)} customers of the topic: stop headquarters, and "
                "run `tenten headquarters recover` to take them back"
            )
    if not differences.none:
        raise typer.Exit(FAILED)


@app.command(epilog=examples("tenten headquarters republish"))
def republish(context: typer.Context, json: Json = False, log_format: LogFormatOption = None) -> None:
    """Send every customer to `customers` again, after that topic was deleted and created again.

    Stop `tenten headquarters run` and `tenten up` first. Then the topic is declared complete, and channels delete
    customers that it does not have. Interrupted, it continues where it stopped when it is run again.
    """
    from tenten.consumers.headquarters.customers.republish import republish as republish_customers

    begin(context, (), log_format)
    with headquarters_engine(context) as (settings, engine), progress_shown("republish", "customers") as bar:
        republished = republish_customers(settings, engine, bar)
    if json:
        print_json(republished)
    else:
        print_fields(asdict(republished).items())
        report("The topic has every customer again: start headquarters")


@app.command(epilog=examples("tenten headquarters recover"))
def recover(context: typer.Context, json: Json = False, log_format: LogFormatOption = None) -> None:
    """Take back from the topics what a restored database has lost.

    Stop `tenten headquarters run`, `tenten transactions run` and `tenten up` first. Erased customers stay erased,
    numbers stay with their customers and orders, and what stores were told stands; the events that follow are read
    again. If it is interrupted, run it again: no worker starts before it has ended. On a database that lacks nothing it
    changes nothing.
    """
    from tenten.consumers.headquarters.recovery.recover import recover as recover_database

    begin(context, (), log_format)
    with headquarters_engine(context) as (settings, engine), progress_shown("recover", "records") as bar:
        recovered = recover_database(settings, engine, lambda what, done, total: bar(done, total, what))
    if json:
        print_json(recovered)
        return
    fields = asdict(recovered)
    print_fields((name, fields[name]) for name in fields if name not in ("conflicts", "holes", "channels"))
    _report_losses(recovered)
    report("Headquarters' database is as recent as the topics: start headquarters")


def _report_losses(recovered: "Recovered") -> None:
    """Name what could not be taken back."""
    report(
        "On no topic, and lost since the backup: the audit of changes (customer_audit) and decisions about dead letters"
    )
    if recovered.channels:
        report(f"Keys or suspensions of {len(recovered.channels)} channels were taken back: `tenten settings history`")
    for hole in recovered.holes:
        report(f"No customer has {hole.first} to {hole.last} of {hole.legal_entity} ({hole.numbers} numbers)")
    for customer_id in recovered.conflicts:
        report(f"Customer {customer_id} was left out: another customer has its account number. Both need a decision")
    if recovered.expired:
        report(f"{recovered.expired} records were deleted by Kafka before this database had processed them")
    if recovered.orders_without_record:
        report(
            f"{recovered.orders_without_record} sales orders were told to stores and could not be restored: Kafka has "
            "deleted their orders, or other orders have their numbers"
        )
