"""The fields of a customer, declared once.

A scalar field is one line of `CustomerState`. The columns of both databases, the mapping of rows, paths, limits, search
names, the names of import columns and the options of the command line derive from it. The Avro files, the migrations
and `CustomerFields` of the Python API are written by hand; tests compare them with this table.
"""
# ruff: noqa: RUF009 -- `scalar` returns a field, like `dataclasses.field`

from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from enum import Enum, StrEnum
from functools import cache
from typing import Any, Final, get_type_hints


class CustomerType(StrEnum):
    """A person or an organization."""

    PERSON = "PERSON"
    ORGANIZATION = "ORGANIZATION"


class ReceiptPreference(StrEnum):
    """How the customer receives receipts."""

    NONE = "NONE"
    PRINT = "PRINT"
    EMAIL = "EMAIL"
    BOTH = "BOTH"


PHONE: Final = "PHONE"
EMAIL: Final = "EMAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One postal address of a customer."""

    address_id: str
    purpose: str = ""
    name: str = ""
    street: str = ""
    city: str = ""
    county: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """One phone number (E.164) or e-mail address of a customer."""

    contact_id: str
    kind: str
    value: str
    marketing_consent: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One configured extra field; exactly one of the four values is set."""

    name: str
    text: str | None = None
    integer: int | None = None
    decimal: Decimal | None = None
    boolean: bool | None = None


class ScalarKind(Enum):
    """The type of a scalar field: `str`, an enum, or the id of one of the customer's addresses or contacts."""

    TEXT = "text"
    ENUM = "enum"
    GUID = "guid"


class InputForm(Enum):
    """How entered text is normalised."""

    PLAIN = "plain"
    """Trimmed, and composed to Unicode NFC."""
    EMAIL = "email"
    NONE = "none"
    """Cannot be entered: given by the channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarField:
    """A scalar field of a customer, with a column in both databases and a path."""

    name: str
    kind: ScalarKind
    is_nullable: bool
    """True: a missing value is null in Avro and the databases. False: it is the empty text."""
    symbols: type[StrEnum] | None
    """The enum of its values, if any."""
    characters_max: int | None
    """The longest text; None for codes and e-mail addresses, which have other rules."""
    is_searched: bool
    """True if the clerk's search includes it."""
    form: InputForm
    import_names: tuple[str, ...]
    """Common names of the column in a file, in lower-case letters and digits."""
    option: str | None
    """The help of its option of `tenten customer create`; None: no option, only `--set`."""
    since: str
    """The release that introduced it."""


def scalar(
    default: Any = MISSING,
    *,
    kind: ScalarKind = ScalarKind.TEXT,
    characters_max: int | None = None,
    is_searched: bool = False,
    form: InputForm = InputForm.PLAIN,
    import_names: tuple[str, ...] = (),
    option: str | None = None,
    since: str = "0.1.0",
) -> Any:
    """A scalar field of `CustomerState`; the arguments are those of `ScalarField`."""
    return field(
        default=default,
        metadata={
            "kind": kind,
            "characters_max": characters_max,
            "is_searched": is_searched,
            "form": form,
            "import_names": import_names,
            "option": option,
            "since": since,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerState:
    """The whole customer, except the fields that headquarters adds."""

    legal_entity: str = scalar(characters_max=64, form=InputForm.NONE)
    customer_type: CustomerType = scalar(CustomerType.PERSON, kind=ScalarKind.ENUM, import_names=("customertype",))
    title: str = scalar(
        "",
        characters_max=60,
        import_names=("title", "prefix", "nameprefix", "salutation", "personaltitle"),
        option="",
    )
    first_name: str = scalar(
        "",
        characters_max=100,
        is_searched=True,
        import_names=("firstname", "givenname", "forename", "fname"),
        option="",
    )
    middle_name: str = scalar(
        "",
        characters_max=100,
        is_searched=True,
        import_names=("middlename", "middleinitial", "additionalname"),
        option="",
    )
    last_name: str = scalar(
        "", characters_max=100, is_searched=True, import_names=("lastname", "surname", "familyname", "lname"), option=""
    )
    organization_name: str = scalar(
        "",
        characters_max=100,
        is_searched=True,
        import_names=(
            "organizationname",
            "organisationname",
            "organization",
            "organisation",
            "company",
            "companyname",
            "businessname",
        ),
        option="",
    )
    # BCP 47, section 4.4.1, recommends room for 35 characters.
    language: str = scalar("", characters_max=35, import_names=("language", "languageid", "languagecode"))
    currency: str = scalar("", import_names=("currency", "currencycode"))
    customer_group: str = scalar("", characters_max=60, import_names=("customergroup", "customergroupid"))
    receipt_preference: ReceiptPreference = scalar(
        ReceiptPreference.NONE, kind=ScalarKind.ENUM, import_names=("receiptpreference",)
    )
    receipt_email: str = scalar("", form=InputForm.EMAIL, import_names=("receiptemail",))
    tax_number: str = scalar(
        "", characters_max=60, import_names=("taxnumber", "taxid", "taxregistrationnumber", "vatnumber", "vatid")
    )
    known_as: str | None = scalar(
        None,
        characters_max=100,
        is_searched=True,
        import_names=("knownas", "nickname", "preferredname", "callname"),
        option="The name that the customer goes by.",
        since="0.2.0",
    )
    primary_address: str | None = scalar(None, kind=ScalarKind.GUID)
    primary_phone: str | None = scalar(None, kind=ScalarKind.GUID)
    primary_email: str | None = scalar(None, kind=ScalarKind.GUID)
    address_books: tuple[str, ...] = ()
    affiliations: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    contacts: tuple[Contact, ...] = ()
    attributes: tuple[Attribute, ...] = ()


@cache
def scalar_fields() -> tuple[ScalarField, ...]:
    """The scalar fields of a customer, in the order of the table."""
    types = get_type_hints(CustomerState)
    return tuple(
        ScalarField(
            name=column.name,
            is_nullable=types[column.name] == str | None,
            symbols=types[column.name] if column.metadata["kind"] is ScalarKind.ENUM else None,
            **column.metadata,
        )
        for column in fields(CustomerState)
        if column.metadata
    )


@cache
def plain_texts() -> tuple[str, ...]:
    """The names of the text fields that are stored as entered, but trimmed and composed."""
    return tuple(
        field.name for field in scalar_fields() if field.kind is ScalarKind.TEXT and field.form is InputForm.PLAIN
    )
