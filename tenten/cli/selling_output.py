"""Orders and cash-and-carry sales of a channel, as text and as JSON; refusals of `order`, `sale` and `day`."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from tenten.cli import formats
from tenten.cli.exit_codes import FAILED
from tenten.cli.output import print_fields, print_json, print_line, print_table, report, report_reasons
from tenten.schemas.messages import reasons_as_json

if TYPE_CHECKING:
    from tenten.producers import TransactionView
    from tenten.schemas.messages import DeliveryAddress


def _refused(reasons: list[dict[str, str]]) -> dict[str, Any]:
    return {"transaction_id": None, "status": "rejected", "sales_order": None, "reasons": reasons}


@contextmanager
def refusals(json: bool, as_json: Callable[[list[dict[str, str]]], Any] = _refused) -> Generator[None]:
    """Show every reason of a refusal, as JSON in the form of the command's result, and end with exit code 1."""
    from tenten.runtime.errors import TransactionRejected

    try:
        yield
    except TransactionRejected as refusal:
        if json:
            print_json(as_json(reasons_as_json(refusal.reasons)))
        else:
            report("Refused, nothing was written:")
            report_reasons(refusal.reasons)
        raise typer.Exit(FAILED) from refusal


def show_recorded(view: "TransactionView", json: bool) -> None:
    """Show, on one line, a transaction that was just recorded."""
    if json:
        from tenten.producers.till.documents import transaction_document

        print_json(transaction_document(view))
    else:
        print_line("  ".join((view.status, _total(view), _customer(view), view.transaction_id)))


def show(view: "TransactionView", json: bool) -> None:
    """Show a transaction with its lines."""
    from tenten.producers.till.documents import transaction_document
    from tenten.rules.customer import attribute_value

    shown = transaction_document(view)
    if json:
        print_json(shown)
        return
    sale = view.transaction
    print_fields(
        (
            ("id", view.transaction_id),
            ("reference", view.reference),
            ("kind", sale.kind),
            ("status", view.status),
            ("sales order", view.sales_order),
            ("business date", sale.business_date),
            ("recorded at", sale.occurred_at),
            ("operator", sale.operator),
            ("customer", _customer(view)),
            ("total", _total(view)),
            ("delivery mode", sale.delivery_mode),
            ("deliver to", _address(sale.delivery_address)),
            ("end of day", view.end_of_day_id),
        )
    )
    for line in shown["lines"]:
        print_line(f"line     {line['sku']}: {line['quantity']} at {line['price']} = {line['amount']}")
    for charge in shown["charges"]:
        print_line(f"charge   {charge['code']}: {charge['amount']}")
    for tax in shown["taxes"]:
        print_line(f"tax      {tax['code']}: {tax['amount']}")
    for payment in shown["payments"]:
        print_line(f"payment  {payment['method']}: {payment['amount']}")
    for attribute in sale.attributes:
        print_line(f"attribute  {attribute.name}: {next(iter(attribute_value(attribute).values()), '')}")
    report_reasons(view.reasons)


def show_list(views: "Sequence[TransactionView]", json: bool) -> None:
    """Show transactions, each on one line."""
    if json:
        from tenten.producers.till.documents import transaction_document

        print_json([transaction_document(view) for view in views])
    elif views:
        rows = [
            (
                view.transaction.business_date,
                view.status,
                _total(view),
                _customer(view),
                view.sales_order,
                view.transaction_id,
            )
            for view in views
        ]
        print_table(("date", "status", "total", "customer", "sales order", "id"), rows)
    else:
        report("None found")


def _total(view: "TransactionView") -> str:
    return formats.amount(view.transaction.total, view.transaction.currency)


def _customer(view: "TransactionView") -> str:
    """Number and name, never the GUID."""
    if view.customer is not None:
        return f"{view.customer.display_number} {view.customer.display_name}".rstrip()
    return "-" if view.transaction.customer_id is None else "no longer here"


def _address(address: "DeliveryAddress | None") -> str:
    if address is None:
        return ""
    parts = (address.name, address.street, address.city, address.state, address.postal_code, address.country)
    return ", ".join(filter(None, parts))
