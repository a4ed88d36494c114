"""`tenten customer erase`: headquarters erases a customer in every store."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tenten.cli.exit_codes import FAILED
from tenten.cli.options import Json, Operator, Yes, confirm, examples
from tenten.cli.output import print_fields, print_json, print_reasons, report
from tenten.cli.wiring import headquarters_engine

if TYPE_CHECKING:
    from tenten.consumers.headquarters.customers.erase import ErasedCustomer


def add_erase_command(app: typer.Typer) -> None:
    """Add the command to `tenten customer`."""

    @app.command(
        epilog=examples(
            'tenten customer erase C-00000042 --why "request 2026-117" --operator mary',
            'tenten customer erase 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f --why "request 2026-117" --yes --json',
        )
    )
    def erase(
        context: typer.Context,
        *,
        account_or_id: Annotated[
            str,
            typer.Argument(metavar="ACCOUNT_OR_ID", help="Its account number, or its GUID.", show_default=False),
        ],
        why: Annotated[
            str,
            typer.Option(
                "--why",
                metavar="TEXT",
                show_default=False,
                help="Kept in the audit for ever: name a request, not the person.",
            ),
        ],
        wait: Annotated[
            float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for the outcome.")
        ] = 10.0,
        operator: Operator = None,
        yes: Yes = False,
        json: Json = False,
    ) -> None:
        """Erase a customer at headquarters and in every store, for ever. Only the account number stays used.

        Runs at headquarters, not in a store. A customers worker does it; without one it happens as soon as one runs.
        Asked again for the same customer it gives the same answer.
        """
        from tenten.consumers.headquarters.customers.erase import erase_customer, find_customer, wait_for_erasure

        with headquarters_engine(context) as (settings, engine):
            with engine.begin() as headquarters:
                customer_id = find_customer(headquarters, account_or_id)
            confirm(f"Erase customer {account_or_id} everywhere? It cannot be undone.", yes)
            asked = erase_customer(settings, engine, customer_id, why=why, operator=operator)
            erased = wait_for_erasure(engine, asked, wait)
        _show(erased, json)
        if erased.outcome == "rejected":
            raise typer.Exit(FAILED)


def _show(erased: "ErasedCustomer", json: bool) -> None:
    fields = asdict(erased)
    if json:
        print_json(fields)
    else:
        print_fields((name, value) for name, value in fields.items() if name != "reasons")
        print_reasons(erased.reasons)
    if erased.outcome is None:
        report("Headquarters erases the customer as soon as a customers worker runs; ask again to see the outcome")
    elif erased.outcome == "erased":
        report("Erased at headquarters; each store follows as soon as it is connected")
