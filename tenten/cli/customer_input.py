"""Options of `tenten customer create` and `edit`, and their values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tenten.cli.options import pairs
from tenten.schemas.customer_fields import InputForm, ScalarKind, scalar_fields

if TYPE_CHECKING:
    from tenten.producers import CustomerFields, NewAddress

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


def fields_of(texts: Mapping[str, str]) -> "CustomerFields":
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


def add_members(
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
    from dataclasses import fields as fields_in

    from tenten.producers import NewAddress

    parts = pairs(_names(text), "--add-address")
    known = [field.name for field in fields_in(NewAddress)]
    unknown = sorted(parts.keys() - set(known))
    if unknown:
        raise typer.BadParameter(
            f"an address has no {', '.join(unknown)}; it has {', '.join(known)}", param_hint="--add-address"
        )
    return NewAddress(**{name: value.strip() for name, value in parts.items()})
