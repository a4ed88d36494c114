"""A customer as the fields of a form, and back. The fields have the names that reasons use.

A form carries with each field the value that it was shown with (`was.NAME`). Only fields that the clerk has changed
are written, so that two clerks can edit different fields of a customer; where both have changed the same field, the
second one is asked.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from starlette.exceptions import HTTPException

from tenten.producers.till.customer_input import CustomerFields, NewAddress
from tenten.producers.till.customer_merge import ADDRESS_PARTS, clean
from tenten.producers.till.customers import new_id, new_state
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.text_input import fields_from_texts
from tenten.rules.contact_points import normal_email, normal_phone
from tenten.rules.customer import plain_decimal
from tenten.rules.definitions import LOYALTY_CARD, CustomerDefinitions
from tenten.schemas.messages import (
    EMAIL,
    PHONE,
    Address,
    Attribute,
    AttributeDefinition,
    Contact,
    CustomerState,
    Reason,
)
from tenten.web.store_screen import reasons
from tenten.web.store_screen.languages import Language, entered_number

TEXTS: Final = (
    "title",
    "first_name",
    "middle_name",
    "last_name",
    "organization_name",
    "known_as",
    "language",
    "currency",
    "customer_group",
    "receipt_email",
    "tax_number",
)
CHOICES: Final = ("customer_type", "receipt_preference")
_ATTRIBUTE: Final = "attributes/"
_ADDRESS: Final = "address."
_NUMBERS: Final = ("integer", "decimal", "currency")


def values_of(state: CustomerState, definitions: CustomerDefinitions, language: Language) -> dict[str, str]:
    """The fields of a customer."""
    values = {name: getattr(state, name) or "" for name in TEXTS}
    values |= {name: str(getattr(state, name)) for name in CHOICES}
    contacts = {contact.contact_id: contact.value for contact in state.contacts}
    values["email"] = contacts.get(state.primary_email or "", "")
    values["phone"] = contacts.get(state.primary_phone or "", "")
    values["affiliations"] = "; ".join(state.affiliations)
    attributes = {attribute.name: attribute for attribute in state.attributes}
    for name in attribute_names(state, definitions):
        attribute = attributes.get(name)
        values[_ATTRIBUTE + name] = "" if attribute is None else attribute_text(attribute, language)
    return values


def attribute_names(state: CustomerState, definitions: CustomerDefinitions) -> list[str]:
    """The attributes that a form shows: those that are defined, then others that the customer has. A loyalty card is
    issued, not entered.
    """
    names = [*definitions.attributes, *(attribute.name for attribute in state.attributes)]
    return [name for name in dict.fromkeys(names) if name != LOYALTY_CARD]


def attribute_text(attribute: Attribute, language: Language) -> str:
    """The value of an attribute as it is entered."""
    if attribute.boolean is not None:
        return "true" if attribute.boolean else "false"
    if attribute.integer is not None:
        return str(attribute.integer)
    if attribute.decimal is not None:
        return plain_decimal(attribute.decimal).replace(".", language.decimal)
    return attribute.text or ""


def new_values(channel: OpenChannel, language: Language) -> dict[str, str]:
    """The fields of a new customer, with the channel's defaults, and those of its address."""
    values = values_of(new_state(channel, {}), channel.definitions, language)
    return values | {f"{_ADDRESS}{part}": "" for part in ADDRESS_PARTS} | {f"{_ADDRESS}country": channel.country}


def address_values(address: Address) -> dict[str, str]:
    """The fields of an address."""
    return {part: getattr(address, part) for part in ADDRESS_PARTS}


def contact_values(contact: Contact) -> dict[str, str]:
    """The fields of a phone number or an e-mail address."""
    consent = "yes" if contact.marketing_consent else ""
    return {"value": contact.value, "description": contact.description, "marketing_consent": consent}


def changed(form: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The fields whose value is not the one that they were shown with. A field that the form does not have is
    unchanged; a box that is not ticked is not sent, but what it was is.
    """
    sent = (name for name in names if name in form or f"was.{name}" in form)
    return {name: form.get(name, "") for name in sent if _entered(form, name) != form.get(f"was.{name}", "")}


def conflicts(form: Mapping[str, str], now: Mapping[str, str]) -> list[Reason]:
    """A reason for each field that the clerk and somebody else have changed to different values."""
    return [
        reasons.own(name, "changed_meanwhile")
        for name, value in changed(form, now).items()
        if f"was.{name}" in form and now[name] not in (form[f"was.{name}"], clean(value))
    ]


def shown_again(form: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The fields of a form that is shown once more: what the clerk has changed stays, the rest is as it is now."""
    return {**now, **changed(form, now)}


def _entered(form: Mapping[str, str], name: str) -> str:
    # Browsers send line ends of their own, and people leave spaces.
    return clean(form.get(name, ""))


def is_country_alone(changes: Mapping[str, str]) -> bool:
    """True if of an address only the country was changed: it would be lost without the rest."""
    return [name for name in changes if name.startswith(_ADDRESS)] == [f"{_ADDRESS}country"]


def fields_of(
    changes: Mapping[str, str], before: Mapping[str, str], definitions: CustomerDefinitions, language: Language
) -> CustomerFields:
    """The input of these changed fields. Raises: `HTTPException` for a choice that no form offers."""
    texts = {name: text for name, text in changes.items() if not name.startswith(_ADDRESS) and name != "affiliations"}
    for name, text in texts.items():
        definition = definitions.attributes.get(name.removeprefix(_ATTRIBUTE))
        if name.startswith(_ATTRIBUTE) and definition is not None:
            texts[name] = attribute_input(definition, text, language)
    try:
        fields = fields_from_texts(texts)
    except ValueError as error:
        raise HTTPException(422) from error
    address = {name.removeprefix(_ADDRESS): text for name, text in changes.items() if name.startswith(_ADDRESS)}
    if address.keys() - {"country"}:
        fields["address"] = NewAddress(**address)
    if "affiliations" in changes:
        wanted, had = _names(changes["affiliations"]), _names(before.get("affiliations", ""))
        fields["add_affiliations"] = sorted(wanted - had)
        fields["remove_affiliations"] = sorted(had - wanted)
    return fields


def agreed_contacts(fields: CustomerFields, country: str) -> list[Contact]:
    """The valid phone number and e-mail address of these fields as contacts that agree to marketing."""
    values = ((PHONE, normal_phone(fields.get("phone", ""), country)), (EMAIL, normal_email(fields.get("email", ""))))
    return [
        Contact(contact_id=new_id(), kind=kind, value=value, marketing_consent=True) for kind, value in values if value
    ]


def attribute_input(definition: AttributeDefinition, text: str, language: Language) -> str:
    """The entered value of an attribute in the notation of the rules; what is not a number stays, to be rejected."""
    number = entered_number(language, text) if definition.kind in _NUMBERS else None
    return clean(text) if number is None else plain_decimal(number)


def _names(text: str) -> set[str]:
    return {name for part in text.replace(",", ";").split(";") if (name := clean(part))}
