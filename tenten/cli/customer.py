"""`tenten customer`: a clerk's commands, on the channel's own database, without a connection to headquarters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

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
    progress_bar,
    report,
    report_reasons,
)
from tenten.cli.wiring import opened_channel
from tenten.schemas.customer_fields import InputForm, ScalarKind, scalar_fields
from tenten.schemas.messages import reasons_as_json

if TYPE_CHECKING:
    from tenten.producers import CustomerFields, CustomerView, ImportResult, NewAddress

app = noun(
    "The customers of a channel. Works on its own database, without a connection to headquarters; only `erase` runs at "
    "headquarters.",
    "tenten customer search houston lovelace",
)
add_erase_command(app)

_IDS: Final = tuple(field.name for field in scalar_fields() if field.kind is ScalarKind.GUID)
_TEXTS: Final = tuple(
    field.name for field in scalar_fields() if field.kind is not ScalarKind.GUID and field.form is not InputForm.NONE
)

Text = Annotated[str | None, typer.Option(metavar="TEXT", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        show_default=False,
        help=f"Any field: {', '.join(_TEXTS)}, email, phone, address_purpose, address_name, "
        " street, city, county, state, postal_code, country, affiliations (added, separated by "
        "semicolons), address_books (all of them), primary_address, primary_phone, primary_email (ids), "
        "attributes/NAME. An empty value clears. Repeatable.",
    ),
]
AddAddress = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PARTS",
        show_default=False,
        help="Another address, for example 'purpose=DELIVERY; street=1 Main St; city=Houston; postal_code=77002'. "
        "Repeatable.",
    ),
]
AddEmail = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", show_default=False, help="Another e-mail address. Repeatable.")
]
AddPhone = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", show_default=False, help="Another phone number. Repeatable.")
]


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
    fields = _fields(given | pairs(fields_set or [], "--set"))
    _add(fields, add_address, add_email, add_phone)
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

    fields = _fields(pairs(fields_set or [], "--set"))
    _add(fields, add_address, add_email, add_phone)
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


@app.command(
    "import",
    epilog=examples(
        "tenten customer import houston customers.csv",
        "tenten customer import houston customers.csv --key CustomerKey --map 'E-Mail 2=' --map Vorname=first_name",
        "tenten customer import houston customers.csv --encoding cp1252",
    ),
)
def import_command(
    context: typer.Context,
    *,
    channel: ChannelName,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
            help="CSV with a header, or .jsonl.",
        ),
    ],
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="COLUMN=field",
            show_default=False,
            help="The field of a column whose name is not recognized; nothing after = ignores the column. Repeatable.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", show_default=False, help="The column that identifies customers.")
    ] = None,
    encoding: Annotated[str, typer.Option(metavar="E", help="The encoding of the file.")] = "utf-8-sig",
    operator: Operator = None,
    json: Json = False,
) -> None:
    """Create or edit a customer for each line of a file.

    A line that was imported before changes nothing, so an interrupted import can be started again. Lines that break
    rules are refused with every reason; the others are imported. Exit code 0 if no line was refused, else 1.
    """
    from tenten.producers import import_customers

    fields_of_columns = pairs(mapping or [], "--map")
    with opened_channel(context, channel, operator) as opened, progress_bar("import", "lines") as bar:

        def progress(lines: int, share: float) -> None:
            bar(lines, lines / share if share > 0 else None)

        result = import_customers(
            opened, file, mapping=fields_of_columns, key=key, encoding=encoding, progress=progress
        )
    _show_import(result, json)


def _show_import(result: "ImportResult", json: bool) -> None:
    refused = [{"line": line.line, "reasons": reasons_as_json(line.reasons)} for line in result.rejected]
    if json:
        counts = {"read": result.read, "created": result.created, "edited": result.edited, "repeated": result.repeated}
        columns = {"columns": dict(result.columns), "key": result.key, "unused": list(result.unused)}
        print_json(counts | {"refused": refused} | columns)
    else:
        for line in result.rejected:
            for reason in line.reasons:
                report(f"line {line.line}: {reason.field}: {reason.text}")
        print_line(
            f"{result.read:,} read: {result.created:,} created, {result.edited:,} edited, "
            f"{result.repeated:,} repeated, {len(result.rejected):,} refused"
        )
        if result.unused:
            report(f"Not used: {', '.join(result.unused)}; name the field of a column with --map COLUMN=field")
    if refused:
        raise typer.Exit(FAILED)


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


def _fields(texts: Mapping[str, str]) -> "CustomerFields":
    """Texts as fields. Raises: `typer.BadParameter`."""
    from tenten.producers import fields_from_texts

    rest = dict(texts)
    books = rest.pop("address_books", None)
    ids = {name: rest.pop(name) for name in _IDS if name in rest}
    try:
        fields = fields_from_texts(rest)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error
    if books is not None:
        fields["address_books"] = _names(books)
    fields.update(ids)  # type: ignore[typeddict-item]  # the names of three texts
    return fields


def _names(text: str) -> list[str]:
    return [name for part in text.split(";") if (name := part.strip())]


def _add(
    fields: "CustomerFields", addresses: list[str] | None, emails: list[str] | None, phones: list[str] | None
) -> None:
    """Add further addresses and contacts to the fields."""
    from tenten.producers import NewContact

    if addresses:
        fields["add_addresses"] = [_address(parts) for parts in addresses]
    contacts = [NewContact(kind="EMAIL", value=value) for value in emails or ()]
    contacts += [NewContact(kind="PHONE", value=value) for value in phones or ()]
    if contacts:
        fields["add_contacts"] = contacts


def _address(text: str) -> "NewAddress":
    """`street=1 Main St; city=Houston` as an address. Raises: `typer.BadParameter`."""
    from dataclasses import fields as fields_of

    from tenten.producers import NewAddress

    parts = pairs(_names(text), "--add-address")
    known = [field.name for field in fields_of(NewAddress)]
    unknown = sorted(parts.keys() - set(known))
    if unknown:
        raise typer.BadParameter(
            f"an address has no {', '.join(unknown)}; it has {', '.join(known)}", param_hint="--add-address"
        )
    return NewAddress(**{name: value.strip() for name, value in parts.items()})


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
