"""Typed values for everything that crosses a topic, with their way to and from Avro.

GUIDs are lowercase text with hyphens everywhere, as in Avro and as record keys. Times are aware UTC.
Lists inside a customer are sorted (addresses and contacts by id, attributes by name, the rest as text), so that
equal customers are equal values. `canonical` makes it so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

HEADQUARTERS: Final = "headquarters"
"""The channel id under which headquarters' own operators send events."""


ROW: Final = "row"
"""Column of a decoded frame: the row's place in the batch as Kafka delivered it."""


class CustomerType(StrEnum):
    """A person or an organization."""

    PERSON = "PERSON"
    ORGANIZATION = "ORGANIZATION"


class ReceiptPreference(StrEnum):
    """How receipts are given."""

    NONE = "NONE"
    PRINT = "PRINT"
    EMAIL = "EMAIL"
    BOTH = "BOTH"


class EventKind(StrEnum):
    """What an event says of a customer."""

    CREATED = "CREATED"
    EDITED = "EDITED"
    ERASED = "ERASED"
    TOUCHED = "TOUCHED"
    UNKNOWN = "UNKNOWN"
    """A kind of a later release, as this one reads it."""


class Outcome(StrEnum):
    """What became of an event."""

    SYNCHRONIZED = "SYNCHRONIZED"
    SUPERSEDED = "SUPERSEDED"
    REJECTED = "REJECTED"
    CORRECTED = "CORRECTED"
    ERASED = "ERASED"
    HELD = "HELD"
    """Headquarters cannot decide yet; another reply follows."""
    UNREADABLE = "UNREADABLE"
    UNKNOWN = "UNKNOWN"
    """An outcome of a later release, as this one reads it: the event stays unsettled."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerState:
    """The whole customer, without what headquarters adds."""

    legal_entity: str
    customer_type: CustomerType = CustomerType.PERSON
    title: str = ""
    first_name: str = ""
    middle_name: str = ""
    last_name: str = ""
    organization_name: str = ""
    language: str = ""
    currency: str = ""
    customer_group: str = ""
    receipt_preference: ReceiptPreference = ReceiptPreference.NONE
    receipt_email: str = ""
    tax_number: str = ""
    primary_address: str | None = None
    primary_phone: str | None = None
    primary_email: str | None = None
    address_books: tuple[str, ...] = ()
    affiliations: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    contacts: tuple[Contact, ...] = ()
    attributes: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededEvent:
    """An unsettled event that a later one brings along, with the paths it changed."""

    event_id: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerEvent:
    """What a channel says of a customer: all of it, and the paths that changed."""

    customer_id: str
    event_id: str
    channel_id: str
    kind: EventKind
    occurred_at: datetime
    based_on_version: int = 0
    changed: tuple[str, ...] = ()
    supersedes: tuple[SupersededEvent, ...] = ()
    customer: CustomerState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A snapshot: the customer as headquarters has it."""

    customer_id: str
    account_number: str
    version: int
    updated_at: datetime
    customer: CustomerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One rule that a customer breaks: the field as a path, a code for programs, a text for people."""

    field: str
    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What became of one event or transaction."""

    channel_id: str
    event_id: str
    """Of a transaction its id."""
    customer_id: str
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    account_number: str | None = None
    version: int | None = None
    """Of the customer; of a transaction the number of this answer."""
    answered_at: datetime
    transaction_status: str = ""
    """A `TransactionStatus`; empty for an event."""
    sales_order: str | None = None


class TransactionKind(StrEnum):
    """What a channel tells of its sales."""

    ORDER = "ORDER"
    CASH_AND_CARRY = "CASH_AND_CARRY"
    END_OF_DAY = "END_OF_DAY"
    UNKNOWN = "UNKNOWN"
    """A kind of a later release, as this one reads it."""


class TransactionStatus(StrEnum):
    """Where a transaction, an end of day or its statement stands."""

    PENDING = "pending"
    """Only in the channel: headquarters has not answered yet."""
    WAITING = "waiting"
    """For its customer or, at the end of a day, for a transaction."""
    BLOCKED = "blocked"
    """By what somebody has to mend: see the reasons."""
    REJECTED = "rejected"
    """It breaks a rule."""
    SYNCHRONIZED = "synchronized"
    """Its customer has an account number; an order is a sales order now, a cash-and-carry can be posted."""
    POSTED = "posted"
    """A statement: everything in it is synchronized and counted."""


NO_CUSTOMER: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for the customer in the reply to a transaction without one. Source: RFC 9562, the nil UUID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAddress:
    """Where an order goes: one of the customer's addresses, as it was when the order was taken."""

    address_id: str
    name: str = ""
    street: str = ""
    city: str = ""
    county: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionLine:
    """One article: `amount` is quantity times price, rounded half up to the currency's minor unit."""

    sku: str
    quantity: Decimal
    price: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedAmount:
    """A charge or a tax."""

    code: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """What was paid with one method."""

    method: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTotal:
    """What was paid with one method in one currency, over all transactions of an end of day."""

    currency: str
    payment_method: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class RetailTransaction:
    """An order, a cash-and-carry transaction, or the end of a day."""

    channel_id: str
    transaction_id: str
    kind: TransactionKind
    occurred_at: datetime
    business_date: date
    legal_entity: str
    customer_id: str | None = None
    customer_event_id: str | None = None
    customer_event: bytes | None = None
    """The customer's newest unsettled event, framed, while there is one."""
    currency: str = ""
    total: Decimal = Decimal(0)
    delivery_mode: str = ""
    delivery_address: DeliveryAddress | None = None
    lines: tuple[TransactionLine, ...] = ()
    charges: tuple[CodedAmount, ...] = ()
    taxes: tuple[CodedAmount, ...] = ()
    payments: tuple[Payment, ...] = ()
    listed: tuple[str, ...] = ()
    """Of an end of day: the ids of the cash-and-carry transactions that it closes."""
    control_totals: tuple[ControlTotal, ...] = ()
    complete: bool = True
    """Of an end of day: it lists, with those before it, all that the channel knows of the day."""


def reasons_as_json(reasons: Iterable[Reason]) -> list[dict[str, str]]:
    """Reasons as tables and commands have them: `[{field, code, text}]`."""
    return [{"field": one.field, "code": one.code, "text": one.text} for one in reasons]


def reasons_from_json(stored: Iterable[Mapping[str, str]] | None) -> tuple[Reason, ...]:
    """The way back; none where nothing is stored."""
    return tuple(Reason(**one) for one in stored or ())


def canonical(state: CustomerState) -> CustomerState:
    """The same customer as the contract wants it: every list sorted, purposes and kinds in capitals."""
    addresses = (replace(address, purpose=address.purpose.upper()) for address in state.addresses)
    contacts = (replace(contact, kind=contact.kind.upper()) for contact in state.contacts)
    return replace(
        state,
        address_books=tuple(sorted(state.address_books)),
        affiliations=tuple(sorted(state.affiliations)),
        addresses=tuple(sorted(addresses, key=lambda address: address.address_id)),
        contacts=tuple(sorted(contacts, key=lambda contact: contact.contact_id)),
        attributes=tuple(sorted(state.attributes, key=lambda attribute: attribute.name)),
    )


def to_avro(record: CustomerEvent | Customer | Reply | CustomerState | RetailTransaction) -> dict[str, Any]:
    """The record as the nested dict that an Avro encoder takes."""
    return {name: _to_avro(getattr(record, name)) for name in record.__slots__}


def _to_avro(value: Any) -> Any:
    # dataclasses.asdict does the same and copies every leaf, which costs ten times as much.
    if isinstance(value, tuple):
        return [_to_avro(one) for one in value]
    if isinstance(value, _NESTED):
        return {name: _to_avro(getattr(value, name)) for name in value.__slots__}
    return value


_NESTED: Final = (
    *(CustomerState, Address, Contact, Attribute, SupersededEvent, Reason),
    *(DeliveryAddress, TransactionLine, CodedAmount, Payment, ControlTotal),
)
"""The records that stand inside others."""


def state_from_avro(state: Mapping[str, Any]) -> CustomerState:
    """A customer's state from a decoded Avro record; the lists are taken as they come."""
    fields = dict(state)
    fields["customer_type"] = CustomerType(fields["customer_type"])
    fields["receipt_preference"] = ReceiptPreference(fields["receipt_preference"])
    for primary in ("primary_address", "primary_phone", "primary_email"):
        fields[primary] = None if fields[primary] is None else str(fields[primary])
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
        based_on_version=event["based_on_version"],
        changed=tuple(event["changed"]),
        supersedes=tuple(
            SupersededEvent(event_id=str(one["event_id"]), changed=tuple(one["changed"])) for one in event["supersedes"]
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
        transaction_status=reply["transaction_status"],
        sales_order=reply["sales_order"],
    )


def transaction_from_avro(transaction: Mapping[str, Any]) -> RetailTransaction:
    """A transaction from a decoded Avro record."""
    address = transaction["delivery_address"]
    fields = {name: transaction[name] for name in RetailTransaction.__slots__}
    return RetailTransaction(
        **{
            **fields,
            "transaction_id": str(transaction["transaction_id"]),
            "kind": TransactionKind(transaction["kind"]),
            "delivery_address": None if address is None else DeliveryAddress(**address),
            "lines": tuple(TransactionLine(**line) for line in transaction["lines"]),
            "charges": tuple(CodedAmount(**charge) for charge in transaction["charges"]),
            "taxes": tuple(CodedAmount(**tax) for tax in transaction["taxes"]),
            "payments": tuple(Payment(**payment) for payment in transaction["payments"]),
            "listed": tuple(transaction["listed"]),
            "control_totals": tuple(ControlTotal(**total) for total in transaction["control_totals"]),
        }
    )
