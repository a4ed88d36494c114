"""Input documents as the store's functions take them, and the fields of refusals as the document names them."""

import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from tenten.producers.till.customer_input import CustomerFields, NewAddress, NewContact
from tenten.runtime.errors import CustomerRejected, InputRejected, NoSuchCustomer
from tenten.schemas.messages import Address, Contact, Reason
from tenten.web.till_api.inputs import CompleteAddress, CompleteContact, CustomerMembers

_MEMBER: Final = re.compile(r"(addresses|contacts)\[(\d+)\](.*)")


def customer_fields(document: CustomerMembers) -> CustomerFields:
    """The fields that the document has."""
    given = document.model_fields_set - {"operator"}
    fields: dict[str, Any] = {name: value for name in given if (value := getattr(document, name)) is not None}
    for name, values in (("add_addresses", NewAddress), ("add_contacts", NewContact)):
        if name in fields:
            fields[name] = [values(**member.model_dump()) for member in fields[name]]
    if "address" in fields:
        fields["address"] = NewAddress(**fields["address"].model_dump())
    if "put_addresses" in fields:
        fields["put_addresses"] = [_address(address) for address in fields["put_addresses"]]
    if "put_contacts" in fields:
        fields["put_contacts"] = [_contact(contact) for contact in fields["put_contacts"]]
    return cast("CustomerFields", fields)


def _address(address: CompleteAddress) -> Address:
    return Address(**(address.model_dump() | {"updated_at": datetime.now(UTC)}))


def _contact(contact: CompleteContact) -> Contact:
    return Contact(**contact.model_dump())


@contextmanager
def named_as_in(document: CustomerMembers, *, is_new: bool) -> Generator[None]:
    """Refusals of the block name the fields as the document has them. Raises: `CustomerRejected`."""
    try:
        yield
    except CustomerRejected as refusal:
        raise CustomerRejected(_named(refusal.reasons, document, is_new=is_new)) from None


def _named(reasons: Iterable[Reason], document: CustomerMembers, *, is_new: bool) -> list[Reason]:
    return [replace(reason, field=_field(reason.field, document, is_new=is_new)) for reason in reasons]


def _field(field: str, document: CustomerMembers, *, is_new: bool) -> str:
    """The member of the document that a refused field came from.

    In an edit, `addresses[2]` is the third address that the customer would have: its own come first.
    """
    if field.startswith("attributes/"):
        return field.replace("/", ".", 1)
    if not is_new or document.put_addresses or document.put_contacts:
        return field
    first_contacts = [kind for kind in ("email", "phone") if getattr(document, kind)]
    found = _MEMBER.fullmatch(field)
    if found is not None:
        part, index, rest = found[1], int(found[2]), found[3]
        before = int(document.address is not None) if part == "addresses" else len(first_contacts)
        return field if index < before else f"add_{part}[{index - before}]{rest}"
    if field.startswith("address.") and document.address is None and document.add_addresses:
        return f"add_addresses[0].{field.removeprefix('address.')}"
    if field in ("email", "phone") and field not in first_contacts:
        kinds = [contact.kind.lower() for contact in document.add_contacts]
        return f"add_contacts[{kinds.index(field)}].value" if field in kinds else field
    return field


@contextmanager
def renamed(names: Mapping[str, str]) -> Generator[None]:
    """Refusals of the block name these fields as the request has them. Raises: `InputRejected`."""
    try:
        yield
    except InputRejected as refusal:
        reasons = [replace(reason, field=names.get(reason.field, reason.field)) for reason in refusal.reasons]
        raise InputRejected(reasons) from None


@contextmanager
def unknown_customer_is_a_field(field: str = "customer_id") -> Generator[None]:
    """A customer that the document names and that does not exist is an error of that field. Raises: `InputRejected`."""
    try:
        yield
    except NoSuchCustomer:
        text = "There is no such customer in this store."
        raise InputRejected([Reason(field=field, code="unknown_customer", text=text)]) from None
