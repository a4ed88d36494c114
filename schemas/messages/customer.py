"""Customer events, snapshots and replies, with their way from Avro.

GUIDs are lowercase text with hyphens everywhere, as in Avro and as record keys. Times are aware UTC.
Lists inside a customer are sorted (addresses and contacts by id, attributes by name, the rest as text), so that equal
customers are equal values. `canonical` sorts them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final

from tenten.schemas.customer_fields import (
    Address,
    Attribute,
    Contact,
    CustomerState,
    ScalarKind,
    scalar_fields,
)
from tenten.schemas.messages.reason import Reason

HEADQUARTERS: Final = "headquarters"
"""The channel id of events that headquarters sends."""


class EventKind(StrEnum):
    """The kind of a customer event."""

    CREATED = "CREATED"
    EDITED = "EDITED"
    ERASED = "ERASED"
    TOUCHED = "TOUCHED"
    UNKNOWN = "UNKNOWN"
    """A kind that a later release has introduced."""

    @property
    def type_name(self) -> str:
        """The kind as the header `type` of a record and the outbox have it: `CustomerCreated`."""
        return f"Customer{self.capitalize()}"


class Outcome(StrEnum):
    """The outcome of a customer event at headquarters."""

    SYNCHRONIZED = "SYNCHRONIZED"
    SUPERSEDED = "SUPERSEDED"
    REJECTED = "REJECTED"
    CORRECTED = "CORRECTED"
    ERASED = "ERASED"
    HELD = "HELD"
    """Headquarters cannot decide yet; another reply follows."""
    UNREADABLE = "UNREADABLE"
    UNKNOWN = "UNKNOWN"
    """An outcome that a later release has introduced: the event stays unsettled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededEvent:
    """An unsettled event that a later event includes, with the paths it changed."""

    event_id: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerEvent:
    """A change of a customer: the whole customer and the paths that changed."""

    customer_id: str
    event_id: str
    channel_id: str
    kind: EventKind
    occurred_at: datetime
    operator: str | None = None
    """The person who made the change."""
    based_on_version: int = 0
    changed: tuple[str, ...] = ()
    supersedes: tuple[SupersededEvent, ...] = ()
    customer: CustomerState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A snapshot: a customer as it is at headquarters."""

    customer_id: str
    account_number: str
    version: int
    updated_at: datetime
    customer: CustomerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A customer that is erased, for ever; its account number stays used."""

    customer_id: str
    account_number: str | None
    """None for a customer that was erased before it had one."""
    version: int
    legal_entity: str
    erased_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Headquarters' reply to one customer event."""

    channel_id: str
    event_id: str
    customer_id: str
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    account_number: str | None = None
    version: int | None = None
    answered_at: datetime
    judgement: int = 0
    """The number of the judgement, from 1; 0 in replies of release 0.1.0."""
    input_partition: int | None = None
    """The partition and offset of the record that was judged, in `async-customers`."""
    input_offset: int | None = None


_NULLABLE_TEXTS: Final = tuple(
    field.name for field in scalar_fields() if field.kind is ScalarKind.TEXT and field.is_nullable
)


_ADDRESS_ID: Final = attrgetter("address_id")
_CONTACT_ID: Final = attrgetter("contact_id")
_NAME: Final = attrgetter("name")


def canonical(state: CustomerState) -> CustomerState:
    """The customer in the form of the contract: lists sorted, purposes and kinds in capitals, null for an empty
    text of a nullable field.
    """
    addresses = (
        address if (purpose := address.purpose.upper()) == address.purpose else replace(address, purpose=purpose)
        for address in state.addresses
    )
    contacts = (
        contact if (kind := contact.kind.upper()) == contact.kind else replace(contact, kind=kind)
        for contact in state.contacts
    )
    normal: dict[str, Any] = {name: getattr(state, name) or None for name in _NULLABLE_TEXTS}
    normal["address_books"] = tuple(sorted(state.address_books))
    normal["affiliations"] = tuple(sorted(state.affiliations))
    normal["addresses"] = tuple(sorted(addresses, key=_ADDRESS_ID))
    normal["contacts"] = tuple(sorted(contacts, key=_CONTACT_ID))
    normal["attributes"] = tuple(sorted(state.attributes, key=_NAME))
    # Copying costs more than comparing, and most customers are canonical.
    return state if all(getattr(state, name) == value for name, value in normal.items()) else replace(state, **normal)


_SYMBOLS: Final = tuple((field.name, field.symbols) for field in scalar_fields() if field.symbols is not None)
_IDS: Final = tuple(field.name for field in scalar_fields() if field.kind is ScalarKind.GUID)


def state_from_avro(state: Mapping[str, Any]) -> CustomerState:
    """A customer's state from a decoded Avro record; the lists keep their order."""
    fields = dict(state)
    for name, symbols in _SYMBOLS:
        fields[name] = symbols(fields[name])
    for name in _IDS:
        fields[name] = None if fields[name] is None else str(fields[name])
    fields["address_books"] = tuple(fields["address_books"])
    fields["affiliations"] = tuple(fields["affiliations"])
    fields["addresses"] = tuple(
        Address(**{**address, "address_id": str(address["address_id"])}) for address in fields["addresses"]
    )
    fields["contacts"] = tuple(
        Contact(**{**contact, "contact_id": str(contact["contact_id"])}) for contact in fields["contacts"]
    )
    fields["attributes"] = tuple(Attribute(**attribute) for attribute in fields["attributes"])
    return CustomerState(**fields)


def event_from_avro(event: Mapping[str, Any]) -> CustomerEvent:
    """A customer event from a decoded Avro record."""
    return CustomerEvent(
        customer_id=str(event["customer_id"]),
        event_id=str(event["event_id"]),
        channel_id=event["channel_id"],
        kind=EventKind(event["kind"]),
        occurred_at=event["occurred_at"],
        operator=event["operator"],
        based_on_version=event["based_on_version"],
        changed=tuple(event["changed"]),
        supersedes=tuple(
            SupersededEvent(event_id=str(superseded["event_id"]), changed=tuple(superseded["changed"]))
            for superseded in event["supersedes"]
        ),
        customer=None if event["customer"] is None else state_from_avro(event["customer"]),
    )


def customer_from_avro(snapshot: Mapping[str, Any]) -> Customer:
    """A snapshot from a decoded Avro record."""
    return Customer(
        customer_id=str(snapshot["customer_id"]),
        account_number=snapshot["account_number"],
        version=snapshot["version"],
        updated_at=snapshot["updated_at"],
        customer=state_from_avro(snapshot["customer"]),
    )


def reply_from_avro(reply: Mapping[str, Any]) -> Reply:
    """A reply from a decoded Avro record."""
    return Reply(
        channel_id=reply["channel_id"],
        event_id=str(reply["event_id"]),
        customer_id=str(reply["customer_id"]),
        outcome=Outcome(reply["outcome"]),
        reasons=tuple(Reason(**reason) for reason in reply["reasons"]),
        account_number=reply["account_number"],
        version=reply["version"],
        answered_at=reply["answered_at"],
        judgement=reply["judgement"],
        input_partition=reply["input_partition"],
        input_offset=reply["input_offset"],
    )


def erasure_from_avro(erasure: Mapping[str, Any]) -> Erasure:
    """An erasure from a decoded Avro record."""
    return Erasure(
        customer_id=str(erasure["customer_id"]),
        account_number=erasure["account_number"],
        version=erasure["version"],
        legal_entity=erasure["legal_entity"],
        erased_at=erasure["erased_at"],
    )
