"""Customer input from tills, programs and import files. `customer_merge.py` merges it into a customer.

Every field is optional: omitted fields are unchanged in an edit and filled with the channel's defaults in a new
customer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypedDict

from tenten.schemas.messages import Address, Contact, CustomerType, ReceiptPreference

AttributeValue = str | int | Decimal | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAddress:
    """An address as entered. In a new address None means empty, except that the purpose defaults to Home or Business
    and the country to that of the channel's legal entity; in an edited address None means unchanged.
    """

    purpose: str | None = None
    name: str | None = None
    street: str | None = None
    city: str | None = None
    county: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContact:
    """An additional phone number or e-mail address as entered."""

    kind: Literal["PHONE", "EMAIL"]
    value: str
    marketing_consent: bool = False
    description: str = ""


class CustomerFields(TypedDict, total=False):
    """The fields of a customer that input can set; omitted fields are unchanged or get the channel's defaults."""

    customer_type: CustomerType
    """Default: organization for a customer that has only an organization name, else person."""
    title: str
    first_name: str
    middle_name: str
    last_name: str
    organization_name: str
    known_as: str
    language: str
    currency: str
    customer_group: str
    receipt_preference: ReceiptPreference
    receipt_email: str
    tax_number: str
    email: str
    """The primary e-mail address; empty removes it."""
    phone: str
    """The primary phone number, in the format of the legal entity's country or with `+`; empty removes it."""
    address: NewAddress
    """The primary address. In an edit, parts that are None are unchanged."""
    address_books: Sequence[str]
    add_addresses: Sequence[NewAddress]
    put_addresses: Sequence[Address]
    """Complete addresses, added or replaced by id; `updated_at` is set when one changes."""
    remove_addresses: Sequence[str]
    add_contacts: Sequence[NewContact]
    put_contacts: Sequence[Contact]
    """Complete contacts, added or replaced by id."""
    remove_contacts: Sequence[str]
    primary_address: str
    primary_phone: str
    primary_email: str
    """Ids of an address and of contacts of this customer; empty means none."""
    add_affiliations: Sequence[str]
    remove_affiliations: Sequence[str]
    attributes: Mapping[str, AttributeValue | None]
    """By name; None removes."""
