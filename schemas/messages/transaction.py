"""Orders, cash-and-carry sales, end-of-day events and the replies to them, with their way from Avro."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from tenten.schemas.customer_fields import Attribute
from tenten.schemas.messages.reason import Reason


class TransactionKind(StrEnum):
    """The kind of a record on `retail-transactions`."""

    ORDER = "ORDER"
    CASH_AND_CARRY = "CASH_AND_CARRY"
    END_OF_DAY = "END_OF_DAY"
    UNKNOWN = "UNKNOWN"
    """A kind that a later release has introduced."""


class TransactionStatus(StrEnum):
    """The status of a transaction, an end of day or its statement."""

    PENDING = "pending"
    """Only in the channel: headquarters has not replied yet."""
    WAITING = "waiting"
    """Waits for its customer or, for an end of day, for a transaction."""
    BLOCKED = "blocked"
    """Needs manual correction; see `reasons`."""
    REJECTED = "rejected"
    """It breaks a rule."""
    SYNCHRONIZED = "synchronized"
    """Its customer has an account number; an order has become a sales order, a cash-and-carry sale can be posted."""
    POSTED = "posted"
    """A statement of which every transaction is synchronized and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAddress:
    """Where an order is delivered: an address of the customer, as it was when the order was recorded."""

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
    """One item: `amount` is quantity times price, rounded half up to the currency's minor unit."""

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
    """The amount paid with one method."""

    method: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTotal:
    """The amount paid with one method in one currency, over all transactions of an end of day."""

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
    """The customer's newest unsettled event, framed; None if all are settled."""
    currency: str = ""
    total: Decimal = Decimal(0)
    delivery_mode: str = ""
    delivery_address: DeliveryAddress | None = None
    lines: tuple[TransactionLine, ...] = ()
    charges: tuple[CodedAmount, ...] = ()
    taxes: tuple[CodedAmount, ...] = ()
    payments: tuple[Payment, ...] = ()
    listed: tuple[str, ...] = ()
    """For an end of day: the ids of the cash-and-carry transactions that it closes."""
    control_totals: tuple[ControlTotal, ...] = ()
    complete: bool = True
    """For an end of day: with the earlier ones it lists all transactions of the day that the channel has."""
    operator: str | None = None
    """The person who recorded it, or closed the day."""
    attributes: tuple[Attribute, ...] = ()
    """Of an order or a sale, by name."""


UNREADABLE_SEQUENCE: Final = -1
"""The number of a reply to a record that headquarters could not read: lower than that of any other reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionReply:
    """The status of one order, cash-and-carry sale or end of day at headquarters."""

    channel_id: str
    transaction_id: str
    status: str
    """A `TransactionStatus`, or one that a later release has introduced."""
    sales_order: str | None = None
    reasons: tuple[Reason, ...] = ()
    sequence: int
    """The number of the reply among those to its transaction, counted from 1, or `UNREADABLE_SEQUENCE`. The highest one
    counts."""
    answered_at: datetime
    input_partition: int | None = None
    """The partition and offset of the record that is answered, in `retail-transactions`."""
    input_offset: int | None = None


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
            "attributes": tuple(Attribute(**attribute) for attribute in transaction["attributes"]),
        }
    )


def transaction_reply_from_avro(reply: Mapping[str, Any]) -> TransactionReply:
    """A reply to a transaction from a decoded Avro record."""
    return TransactionReply(
        channel_id=reply["channel_id"],
        transaction_id=str(reply["transaction_id"]),
        status=reply["status"],
        sales_order=reply["sales_order"],
        reasons=tuple(Reason(**reason) for reason in reply["reasons"]),
        sequence=reply["sequence"],
        answered_at=reply["answered_at"],
        input_partition=reply["input_partition"],
        input_offset=reply["input_offset"],
    )


def transaction_reply_of_0_1_0(reply: Mapping[str, Any]) -> TransactionReply:
    """A reply to a transaction from a decoded `Reply`: release 0.1.0 wrote both kinds of replies as that record."""
    return TransactionReply(
        channel_id=reply["channel_id"],
        transaction_id=str(reply["event_id"]),
        status=reply["transaction_status"],
        sales_order=reply["sales_order"],
        reasons=tuple(Reason(**reason) for reason in reply["reasons"]),
        sequence=reply["version"] or 0,
        answered_at=reply["answered_at"],
    )
