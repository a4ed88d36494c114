"""What a clerk, a program or a line of a file says of a customer, and how it is folded into the customer.

Everything is optional: what is not said stays as it is, or as the channel's defaults have it. Texts are trimmed and
put into Unicode's composed form, phone numbers become E.164, e-mail addresses and countries their normal form; what
has no normal form is kept as it was said, and the rules refuse it with a reason. Pure: no database, no clock.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal, TypedDict

from tenten.rules.customer_rules import normal_email, normal_phone
from tenten.rules.limits import country_code
from tenten.schemas.messages import (
    EMAIL,
    PHONE,
    Address,
    Attribute,
    Contact,
    CustomerState,
    CustomerType,
    ReceiptPreference,
    canonical,
)

AttributeValue = str | int | Decimal | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAddress:
    """An address as it is entered. In a new address None means empty, for the purpose Home or Business and for the
    country that of the channel's legal entity; in a changed one it means that the part stays.
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
    """One more phone number or e-mail address as it is entered."""

    kind: Literal["PHONE", "EMAIL"]
    value: str
    marketing_consent: bool = False
    description: str = ""


class CustomerFields(TypedDict, total=False):
    """What may be said of a customer; what is left out stays as it is, or as the channel's defaults have it."""

    customer_type: CustomerType
    """Unless said, a customer with nothing but an organization name is an organization, any other a person."""
    title: str
    first_name: str
    middle_name: str
    last_name: str
    organization_name: str
    language: str
    currency: str
    customer_group: str
    receipt_preference: ReceiptPreference
    receipt_email: str
    tax_number: str
    email: str
    """The primary e-mail address; empty takes it away."""
    phone: str
    """The primary phone number, as it is written in the legal entity's country or with `+`; empty takes it away."""
    address: NewAddress
    """The primary address. In an edit the parts that are None stay."""
    address_books: Sequence[str]
    add_addresses: Sequence[NewAddress]
    put_addresses: Sequence[Address]
    """Addresses as they shall be, by their ids; `updated_at` is set when one changes."""
    remove_addresses: Sequence[str]
    add_contacts: Sequence[NewContact]
    put_contacts: Sequence[Contact]
    """Contacts as they shall be, by their ids."""
    remove_contacts: Sequence[str]
    primary_address: str
    primary_phone: str
    primary_email: str
    """Ids of an address and of contacts of this customer; empty means none of them."""
    add_affiliations: Sequence[str]
    remove_affiliations: Sequence[str]
    attributes: Mapping[str, AttributeValue | None]
    """By name; None removes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entering:
    """What entering depends on besides what is said."""

    country: str
    """ISO 3166 alpha-2: of new addresses, and of phone numbers without `+`."""
    now: datetime
    new_id: Callable[[], str]
    """Gives the id of the next new address or contact."""


_TEXTS: Final = (
    "title",
    "first_name",
    "middle_name",
    "last_name",
    "organization_name",
    "language",
    "currency",
    "customer_group",
    "tax_number",
)
_ADDRESS_PARTS: Final = ("purpose", "name", "street", "city", "county", "state", "postal_code", "country")
_PRIMARY: Final = {PHONE: "primary_phone", EMAIL: "primary_email"}


def with_fields(state: CustomerState, fields: CustomerFields, entering: Entering) -> CustomerState:
    """The customer with what is said folded in. Saying the same twice changes nothing more, but for `add_` fields.

    Raises: `TypeError` for a field that does not exist.
    """
    unknown = sorted(fields.keys() - CustomerFields.__annotations__.keys())
    if unknown:
        raise TypeError(f"a customer has no field {', '.join(unknown)}")
    state = _with_scalars(state, fields)
    state = _with_addresses(state, fields, entering)
    state = _with_contacts(state, fields, entering)
    state = _with_primaries(state, fields)
    affiliations = {*state.affiliations, *map(clean, fields.get("add_affiliations", ()))}
    affiliations -= set(map(clean, fields.get("remove_affiliations", ())))
    return canonical(
        replace(
            state,
            affiliations=tuple(affiliations),
            attributes=_attributes(state.attributes, fields.get("attributes", {})),
        )
    )


def clean(text: str) -> str:
    """The text without space around it, in Unicode's composed form: the same name looks and sorts the same."""
    return unicodedata.normalize("NFC", text).strip()


def _with_scalars(state: CustomerState, fields: CustomerFields) -> CustomerState:
    # Each name has a value of its own type, which a dict cannot say.
    said: dict[str, Any] = {
        name: clean(text) for name, text in fields.items() if name in _TEXTS and isinstance(text, str)
    }
    if "receipt_email" in fields:
        said["receipt_email"] = _email(fields["receipt_email"])
    if "receipt_preference" in fields:
        said["receipt_preference"] = ReceiptPreference(fields["receipt_preference"])
    if "customer_type" in fields:
        said["customer_type"] = CustomerType(fields["customer_type"])
    if "address_books" in fields:
        said["address_books"] = tuple(dict.fromkeys(map(clean, fields["address_books"])))
    return replace(state, **said)


def _with_addresses(state: CustomerState, fields: CustomerFields, entering: Entering) -> CustomerState:
    addresses = {address.address_id: address for address in state.addresses}
    primary = state.primary_address
    for address in fields.get("put_addresses", ()):
        addresses[address.address_id] = _changed_address(addresses.get(address.address_id), address, entering)
    if "address" in fields:
        at_hand = addresses.get(primary) if primary is not None else None
        address = _entered_address(state, at_hand, fields["address"], entering)
        addresses[address.address_id] = address
        primary = address.address_id
    for new in fields.get("add_addresses", ()):
        address = _entered_address(state, None, new, entering)
        addresses[address.address_id] = address
        primary = primary or address.address_id
    for address_id in fields.get("remove_addresses", ()):
        addresses.pop(address_id, None)
    return replace(
        state, addresses=tuple(addresses.values()), primary_address=primary if primary in addresses else None
    )


def _entered_address(state: CustomerState, at_hand: Address | None, new: NewAddress, entering: Entering) -> Address:
    """The address at hand with what is said of it, or a new one."""
    said: dict[str, Any] = {part: text for part in _ADDRESS_PARTS if (text := getattr(new, part)) is not None}
    if at_hand is not None:
        return _changed_address(at_hand, replace(at_hand, **said), entering)
    purpose = "HOME" if state.customer_type is CustomerType.PERSON else "BUSINESS"
    first = Address(address_id=entering.new_id(), purpose=purpose, country=entering.country, updated_at=entering.now)
    return _normal_address(replace(first, **said))


def _changed_address(before: Address | None, after: Address, entering: Entering) -> Address:
    """The address with the time of its change, when it is one."""
    normal = _normal_address(after)
    if before is not None and replace(normal, updated_at=before.updated_at) == before:
        return before
    return replace(normal, updated_at=entering.now)


def _normal_address(address: Address) -> Address:
    cleaned: dict[str, Any] = {part: clean(getattr(address, part)) for part in _ADDRESS_PARTS}
    cleaned |= {"purpose": cleaned["purpose"].upper(), "country": normal_country(cleaned["country"])}
    return replace(address, **cleaned)


@lru_cache(maxsize=1000)
def normal_country(text: str) -> str:
    """The ISO 3166 alpha-2 code of a country's code or name; what is neither stays as it is.

    >>> normal_country("us"), normal_country("Germany"), normal_country("FRA"), normal_country("Atlantis")
    ('US', 'DE', 'FR', 'Atlantis')
    """
    return country_code(text) or text


def _with_contacts(state: CustomerState, fields: CustomerFields, entering: Entering) -> CustomerState:
    contacts = {contact.contact_id: contact for contact in state.contacts}
    primaries = {PHONE: state.primary_phone, EMAIL: state.primary_email}
    for contact in fields.get("put_contacts", ()):
        contacts[contact.contact_id] = _normal_contact(contact, entering)
    for kind, value in ((EMAIL, fields.get("email")), (PHONE, fields.get("phone"))):
        if value is not None:
            primaries[kind] = _put_primary(contacts, kind, primaries[kind], value, entering)
    for new in fields.get("add_contacts", ()):
        contact = _normal_contact(
            Contact(
                contact_id=entering.new_id(),
                kind=new.kind,
                value=new.value,
                marketing_consent=new.marketing_consent,
                description=new.description,
            ),
            entering,
        )
        contacts[contact.contact_id] = contact
        primaries[contact.kind] = primaries.get(contact.kind) or contact.contact_id
    for contact_id in fields.get("remove_contacts", ()):
        contacts.pop(contact_id, None)
    kept = {name: primaries[kind] if primaries[kind] in contacts else None for kind, name in _PRIMARY.items()}
    return replace(state, contacts=tuple(contacts.values()), **kept)  # type: ignore[arg-type]  # ids of the right kind


def _put_primary(
    contacts: dict[str, Contact], kind: str, primary: str | None, value: str, entering: Entering
) -> str | None:
    """Make this value the primary one of its kind, in `contacts`; gives the id of the contact that has it now.

    A contact that has the value already becomes the primary one; else the primary one's value changes.
    """
    normal = _phone(value, entering.country) if kind == PHONE else _email(value)
    if normal == "":
        contacts.pop(primary or "", None)
        return None
    for contact in contacts.values():
        if contact.kind == kind and contact.value == normal:
            return contact.contact_id
    at_hand = contacts.get(primary or "")
    if at_hand is None:
        at_hand = Contact(contact_id=entering.new_id(), kind=kind, value=normal)
    contacts[at_hand.contact_id] = replace(at_hand, value=normal)
    return at_hand.contact_id


def _normal_contact(contact: Contact, entering: Entering) -> Contact:
    kind = contact.kind.upper()
    value = _phone(contact.value, entering.country) if kind == PHONE else _email(contact.value)
    return replace(contact, kind=kind, value=value, description=clean(contact.description))


def _phone(text: str, country: str) -> str:
    cleaned = clean(text)
    return normal_phone(cleaned, country) or cleaned


def _email(text: str) -> str:
    cleaned = clean(text)
    return normal_email(cleaned) or cleaned


def _with_primaries(state: CustomerState, fields: CustomerFields) -> CustomerState:
    return replace(
        state,
        primary_address=fields.get("primary_address", state.primary_address) or None,
        primary_phone=fields.get("primary_phone", state.primary_phone) or None,
        primary_email=fields.get("primary_email", state.primary_email) or None,
    )


def _attributes(attributes: Iterable[Attribute], said: Mapping[str, AttributeValue | None]) -> tuple[Attribute, ...]:
    kept = {attribute.name: attribute for attribute in attributes}
    for name, value in said.items():
        kept.pop(name, None)
        if value is not None:
            kept[name] = _attribute(name, value)
    return tuple(kept.values())


def _attribute(name: str, value: AttributeValue) -> Attribute:
    # A bool is an int in Python.
    if isinstance(value, bool):
        return Attribute(name=name, boolean=value)
    if isinstance(value, int):
        return Attribute(name=name, integer=value)
    if isinstance(value, Decimal):
        return Attribute(name=name, decimal=value)
    return Attribute(name=name, text=clean(value))


TEXT_FIELDS: Final = (
    *_TEXTS,
    "customer_type",
    "receipt_preference",
    "receipt_email",
    "email",
    "phone",
    "address_purpose",
    "address_name",
    "street",
    "city",
    "county",
    "state",
    "postal_code",
    "country",
    "affiliations",
)
"""What can be said in plain text, on a command line or in a file; besides `attributes/<name>` for a text attribute."""

_ADDRESS_FIELDS: Final = {
    "address_purpose": "purpose",
    "address_name": "name",
    "street": "street",
    "city": "city",
    "county": "county",
    "state": "state",
    "postal_code": "postal_code",
    "country": "country",
}
_ATTRIBUTES: Final = "attributes/"


def is_text_field(name: str) -> bool:
    """Whether `fields_from_texts` takes a field of that name."""
    return name in TEXT_FIELDS or (name.startswith(_ATTRIBUTES) and len(name) > len(_ATTRIBUTES))


def fields_from_texts(texts: Mapping[str, str]) -> CustomerFields:
    """What is said in plain text as fields: `street`, `city` and so on are the primary address, affiliations are
    separated by semicolons and added.

    >>> fields_from_texts({"first_name": "Ada", "city": "London"})["address"].city
    'London'

    Raises: `ValueError`, a sentence for people, for a field or a choice that does not exist.
    """
    unknown = [name for name in texts if not is_text_field(name)]
    if unknown:
        raise ValueError(
            f"there is no field {', '.join(unknown)}; there are {', '.join(TEXT_FIELDS)} and attributes/NAME"
        )
    fields = CustomerFields()
    for name in (*_TEXTS, "receipt_email", "email", "phone"):
        if name in texts:
            fields[name] = texts[name]
    if "customer_type" in texts:
        fields["customer_type"] = CustomerType(_choice("customer_type", texts["customer_type"], list(CustomerType)))
    if "receipt_preference" in texts:
        chosen = _choice("receipt_preference", texts["receipt_preference"], list(ReceiptPreference))
        fields["receipt_preference"] = ReceiptPreference(chosen)
    address = {part: texts[name] for name, part in _ADDRESS_FIELDS.items() if name in texts}
    if address:
        fields["address"] = NewAddress(**address)
    if "affiliations" in texts:
        fields["add_affiliations"] = [name for part in texts["affiliations"].split(";") if (name := clean(part))]
    attributes = {
        name.removeprefix(_ATTRIBUTES): text or None for name, text in texts.items() if name.startswith(_ATTRIBUTES)
    }
    if attributes:
        fields["attributes"] = attributes
    return fields


def _choice(field: str, text: str, choices: Sequence[str]) -> str:
    chosen = clean(text).upper()
    if chosen not in choices:
        raise ValueError(f"{field} is one of {', '.join(choices).lower()}")
    return chosen
