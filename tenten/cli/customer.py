"""`tenten customer`: a clerk's commands, on the channel's own database, without a connection to headquarters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tenten.cli.customer_import import add_import_command
from tenten.cli.customer_input import AddAddress, AddEmail, AddPhone, Set, Text, add_members, fields_of
from tenten.cli.erase import add_erase_command
from tenten.cli.exit_codes import FAILED
from tenten.cli.field_options import with_field_options
from tenten.cli.formats import word
from tenten.cli.options import ChannelName, CustomerId, Json, Operator, Yes, confirm, examples, noun, pairs
from tenten.cli.output import (
    print_fields,
    print_json,
    print_line,
    print_table,
    report,
    report_reasons,
)
from tenten.cli.wiring import opened_channel
from tenten.schemas.messages import reasons_as_json

if TYPE_CHECKING:
    from tenten.producers import CustomerView

app = noun(
    "The customers of a channel. Works on its own database, without a connection to headquarters; only `erase` runs at "
    "headquarters.",
    "tenten customer search houston lovelace",
)
add_import_command(app)
add_erase_command(app)


@app.command(
    epilog=examples(
        "tenten customer create houston --first-name Ada --last-name Lovelace --email ada@example.com --sync 5",
        "tenten customer create houston --organization-name 'Analytical Engines' --phone '713 555 0100'",
        "tenten customer create houston --first-name Ada --set affiliations='staff;friends' --set attributes/size=38",
    )
)
@with_field_options
def create(
    context: typer.Context,
    *,
    channel: ChannelName,
    email: Annotated[
        str | None, typer.Option(metavar="TEXT", show_default=False, help="The primary e-mail address.")
    ] = None,
    phone: Annotated[
        str | None, typer.Option(metavar="TEXT", show_default=False, help="The primary phone number.")
    ] = None,
    street: Text = None,
    city: Text = None,
    county: Text = None,
    state: Text = None,
    postal_code: Text = None,
    country: Annotated[
        str | None, typer.Option(metavar="TEXT", show_default=False, help="Default: the legal entity's country.")
    ] = None,
    fields_set: Set = None,
    add_address: AddAddress = None,
    add_email: AddEmail = None,
    add_phone: AddPhone = None,
    customer_id: Annotated[
        str | None,
        typer.Option(
            metavar="GUID",
            show_default=False,
            help="Your own id: a repeated call with the same id creates no second customer.",
        ),
    ] = None,
    sync: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            show_default=False,
            help="Wait for the account number; 0 does not wait. Default: the channel's `creation` setting.",
        ),
    ] = None,
    operator: Operator = None,
    json: Json = False,
    **texts: str | None,
) -> None:
    """Create a customer, with or without a connection to headquarters.

    Missing fields come from the channel's default customer. With --sync, or if the channel's `creation` is sync, the
    command waits for headquarters' reply; after that time the customer exists and is pending. A customer that breaks
    rules is refused with every reason, and nothing is written: exit code 1.
    """
    from tenten.producers import register_customer

    texts |= {
        "email": email,
        "phone": phone,
        "street": street,
        "city": city,
        "county": county,
        "state": state,
        "postal_code": postal_code,
        "country": country,
    }
    given = {name: text for name, text in texts.items() if text is not None}
    fields = fields_of(given | pairs(fields_set or [], "--set"))
    add_members(fields, add_address, add_email, add_phone)
    with opened_channel(context, channel, operator) as opened, _refusals(json):
        view = register_customer(opened, customer_id=customer_id, sync_seconds=sync, **fields)
    _show_created(view, json)


def _show_created(view: "CustomerView", json: bool) -> None:
    if json:
        print_json(
            {
                "customer_id": view.customer_id,
                "account_number": view.account_number,
                "reference": view.reference,
                "status": view.status.value,
                "reasons": reasons_as_json(view.reasons),
            }
        )
    else:
        print_line(f"{view.display_number}  {view.display_name}  {view.customer_id}")
        _report_reasons(view)
    if view.status.value == "rejected":
        raise typer.Exit(FAILED)


@app.command(
    epilog=examples(
        "tenten customer edit houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f --set last_name=King --set city=London",
        "tenten customer edit houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f --add-phone '713 555 0199'",
    )
)
def edit(
    context: typer.Context,
    *,
    channel: ChannelName,
    customer_id: CustomerId,
    fields_set: Set = None,
    add_address: AddAddress = None,
    add_email: AddEmail = None,
    add_phone: AddPhone = None,
    remove_address: Annotated[list[str] | None, typer.Option(metavar="ID", show_default=False)] = None,
    remove_contact: Annotated[list[str] | None, typer.Option(metavar="ID", show_default=False)] = None,
    remove_affiliation: Annotated[list[str] | None, typer.Option(metavar="NAME", show_default=False)] = None,
    operator: Operator = None,
    json: Json = False,
) -> None:
    """Change fields of a customer, pending or not; the others are unchanged.

    A change that breaks rules is refused with every reason, and nothing is written: exit code 1. An earlier change that
    headquarters has rejected is sent again with this one.
    """
    from tenten.producers import edit_customer, show_customer

    fields = fields_of(pairs(fields_set or [], "--set"))
    add_members(fields, add_address, add_email, add_phone)
    if remove_address:
        fields["remove_addresses"] = remove_address
    if remove_contact:
        fields["remove_contacts"] = remove_contact
    if remove_affiliation:
        fields["remove_affiliations"] = remove_affiliation
    if not fields:
        raise typer.BadParameter("name a change, for example --set last_name=King", param_hint="--set")
    with opened_channel(context, channel, operator) as opened:
        before = show_customer(opened, customer_id)
        with _refusals(json, before):
            view = edit_customer(opened, customer_id, **fields)
    _show(view, json)


@app.command(epilog=examples("tenten customer show houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"))
def show(context: typer.Context, channel: ChannelName, customer_id: CustomerId, json: Json = False) -> None:
    """Show a customer as the channel has it: headquarters' last snapshot with the channel's own unsettled changes."""
    from tenten.producers import show_customer

    with opened_channel(context, channel) as opened:
        _show(show_customer(opened, customer_id), json)


@app.command(
    epilog=examples("tenten customer search houston 'lovelace, ada'", "tenten customer search houston '713 555 0100'")
)
def search(
    context: typer.Context,
    channel: ChannelName,
    text: Annotated[str, typer.Argument(metavar="TEXT", show_default=False)],
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Maximum number of results.")] = 50,
    json: Json = False,
) -> None:
    """Find customers by number, reference, phone number, e-mail address, loyalty card, or beginnings of names."""
    from tenten.producers import search_customers

    with opened_channel(context, channel) as opened:
        views = search_customers(opened, text, limit)
    if json:
        from tenten.producers.till.documents import customer_document

        print_json([customer_document(view) for view in views])
    elif views:
        rows = [
            (view.display_number, view.reference, view.display_name, view.status, view.customer_id) for view in views
        ]
        print_table(("number", "reference", "name", "status", "id"), rows)
    else:
        report("No customers found")


@app.command(
    epilog=examples("tenten customer discard houston 0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f --yes"),
)
def discard(
    context: typer.Context, channel: ChannelName, customer_id: CustomerId, yes: Yes = False, json: Json = False
) -> None:
    """Discard a customer's changes that headquarters has rejected; a customer that was never accepted is deleted."""
    from tenten.producers import discard_rejected

    with opened_channel(context, channel) as opened:
        confirm("Discard the changes of this customer that headquarters has rejected?", yes)
        view = discard_rejected(opened, customer_id)
    if view is not None:
        _show(view, json)
    elif json:
        print_json(None)
    else:
        report("The customer is deleted")


@contextmanager
def _refusals(json: bool, customer: "CustomerView | None" = None) -> Iterator[None]:
    """Show every reason of a refused customer, and end with exit code 1."""
    from tenten.runtime.errors import CustomerRejected

    try:
        yield
    except CustomerRejected as refusal:
        if json:
            print_json(
                {
                    "customer_id": None if customer is None else customer.customer_id,
                    "account_number": None if customer is None else customer.account_number,
                    "status": "rejected",
                    "reasons": reasons_as_json(refusal.reasons),
                }
            )
        else:
            report("Refused, nothing was written:")
            report_reasons(refusal.reasons)
        raise typer.Exit(FAILED) from refusal


def _show(view: "CustomerView", json: bool) -> None:
    from tenten.producers.till.documents import customer_document

    document = customer_document(view)
    if json:
        print_json(document)
        return
    shown = document | {"account_number": view.display_number, "updated_at": view.updated_at}
    lists = {name: shown.pop(name) for name in ("addresses", "contacts", "attributes", "reasons")}
    print_fields(shown.items())
    for address in view.state.addresses:
        mark = " (primary)" if address.address_id == view.state.primary_address else ""
        parts = (address.name, address.street, address.city, address.state, address.postal_code, address.country)
        print_line(f"address  {word(address.purpose)}{mark}: {', '.join(filter(None, parts))}  {address.address_id}")
    for contact in view.state.contacts:
        mark = " (primary)" if contact.contact_id in (view.state.primary_phone, view.state.primary_email) else ""
        print_line(f"contact  {word(contact.kind)}{mark}: {contact.value}  {contact.contact_id}")
    for attribute in lists["attributes"]:
        name = attribute.pop("name")
        print_line(f"attribute  {name}: {next(iter(attribute.values()), '')}")
    _report_reasons(view)


def _report_reasons(view: "CustomerView") -> None:
    if view.status.value == "held":
        report("Waiting for headquarters, which has the newest change and cannot decide about it yet:")
    report_reasons(view.reasons)
