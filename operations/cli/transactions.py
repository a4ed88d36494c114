"""`tenten transactions`: the consumer that makes sales orders and statements of what the channels have sold."""

from typing import Annotated

import typer

from operations.cli.options import EndsWith, TransactionsCommand, examples, noun
from operations.cli.processes import collect_rarely, stop_on_signals
from operations.cli.wiring import connected

app = noun("Orders, sales and ends of days at headquarters.", "tenten transactions run")


@app.command(cls=TransactionsCommand, epilog=examples("tenten transactions run", "tenten transactions run --slot 0"))
def run(
    context: typer.Context,
    slot: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=999,
            show_default=False,
            help="The transactional id to use; the first free one else.",
        ),
    ] = None,
    ends_with: EndsWith = None,
) -> None:
    """Make sales orders and statements of transactions, until SIGTERM, which commits what is under way.

    A transaction waits until headquarters knows its customer; `tenten headquarters run` makes that known. Start as
    many as there are partitions, anywhere.
    """
    stop = stop_on_signals(ends_with)
    from commerce.failpoints import TRANSACTIONS, check_failpoint
    from commerce.logs import configure_logs

    check_failpoint(TRANSACTIONS)
    configure_logs()
    settings = connected(context)
    from consumers.transactions.run import run as run_transactions

    collect_rarely()
    run_transactions(settings, stop, slot)
