"""Orders and cash-and-carry sales of a channel as a clerk sees them, and their rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Text, cast, select, tuple_

from tenten.producers.till import customer_views
from tenten.producers.till.caller_fields import transaction_reasons
from tenten.producers.till.customer_views import CustomerView
from tenten.producers.till.database_session import reading
from tenten.producers.till.ids import normal_ids
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules.customer import plain_decimal
from tenten.rules.reference import ending_of, entered_reference, reference
from tenten.rules.transaction_content import attributes_of, content_of
from tenten.runtime.errors import NoSuchTransaction
from tenten.schemas.messages import (
    CodedAmount,
    DeliveryAddress,
    Payment,
    Reason,
    RetailTransaction,
    TransactionKind,
    TransactionLine,
    TransactionStatus,
    reasons_from_json,
)
from tenten.schemas.tables.channel import transactions
from tenten.sql.arrays import is_one_of

LIMIT_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionView:
    """An order or a cash-and-carry sale with headquarters' newest reply."""

    transaction: RetailTransaction
    """Without the customer's event, which only the outbox has."""
    customer: CustomerView | None
    """The customer as the channel shows it now; None without a customer, or when it is no longer in the channel."""
    status: TransactionStatus
    sales_order: str | None
    reasons: tuple[Reason, ...]
    """Why headquarters has rejected it, or what it waits for; fields are named as in the input."""
    end_of_day_id: str | None
    """The end of day that lists the sale."""
    updated_at: datetime

    @property
    def transaction_id(self) -> str:
        """The transaction's GUID."""
        return self.transaction.transaction_id

    @property
    def reference(self) -> str:
        """A short name for people while there is no sales order: `K7-3QD`."""
        return reference(self.transaction_id)

    @property
    def customer_number(self) -> str | None:
        """The customer's account number or `Pending sync`; None without a customer in the channel."""
        return None if self.customer is None else self.customer.display_number


def show_transaction(channel: OpenChannel, transaction_id: str) -> TransactionView:
    """An order or a cash-and-carry sale. Raises: `NoSuchTransaction`, `DatabaseRefused`."""
    with reading(channel) as connection:
        return read_view(connection, channel, transaction_id)


def list_transactions(
    channel: OpenChannel,
    kind: TransactionKind | None = None,
    *,
    business_date: date | None = None,
    status: TransactionStatus | None = None,
    customer_id: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> list[TransactionView]:
    """Orders and cash-and-carry sales, the newest first, at most `limit` (and at most 1,000); filtered by kind, date,
    status and customer, where given; `after`: those that follow the transaction with this id.

    Raises: `DatabaseRefused`.
    """
    query = select(transactions.c.transaction_id)
    if kind is not None:
        query = query.where(transactions.c.kind == kind.lower())
    if business_date is not None:
        query = query.where(transactions.c.business_date == business_date)
    if status is not None:
        query = query.where(transactions.c.status == status)
    if customer_id is not None:
        query = query.where(transactions.c.customer_id.in_(normal_ids(customer_id)))
    place = [transactions.c[name] for name in ("business_date", "occurred_at", "transaction_id")]
    if after is not None:
        last = select(*place).where(transactions.c.transaction_id.in_(normal_ids(after)))
        query = query.where(tuple_(*place) < last.scalar_subquery())
    newest = [column.desc() for column in place]
    with reading(channel) as connection:
        ids = connection.scalars(query.order_by(*newest).limit(max(0, min(limit, LIMIT_MAX)))).all()
        views = {view.transaction_id: view for view in read_views(connection, channel, ids)}
    return [views[transaction_id] for transaction_id in ids]


def transactions_with_reference(channel: OpenChannel, text: str, limit: int = 50) -> list[TransactionView]:
    """The orders and cash-and-carry sales with this reference, the newest first. Reads the ids of all of them.

    Raises: `DatabaseRefused`.
    """
    wanted = entered_reference(text)
    if wanted is None:
        return []
    ends_so = cast(transactions.c.transaction_id, Text).endswith(ending_of(wanted))
    query = select(transactions.c.transaction_id).where(ends_so).order_by(transactions.c.occurred_at.desc())
    with reading(channel) as connection:
        ids = [found for found in connection.scalars(query) if reference(found) == wanted][:limit]
        views = {view.transaction_id: view for view in read_views(connection, channel, ids)}
    return [views[transaction_id] for transaction_id in ids]


def read_view(connection: Connection, channel: OpenChannel, transaction_id: str) -> TransactionView:
    """The view of one transaction. Raises: `NoSuchTransaction`."""
    for view in read_views(connection, channel, normal_ids(transaction_id)):
        return view
    raise NoSuchTransaction(f"there is no order or cash-and-carry sale {transaction_id} in this channel")


def read_views(connection: Connection, channel: OpenChannel, transaction_ids: Sequence[str]) -> list[TransactionView]:
    """The views of the transactions that exist. At most five statements."""
    query = select(transactions).where(is_one_of(connection, transactions.c.transaction_id, transaction_ids))
    rows = connection.execute(query).mappings().all()
    customer_ids = list({row["customer_id"] for row in rows} - {None})
    customers = {view.customer_id: view for view in customer_views.read_views(connection, customer_ids)}
    return [
        TransactionView(
            transaction=from_row(channel, row),
            customer=customers.get(row["customer_id"]),
            status=TransactionStatus(row["status"]),
            sales_order=row["sales_order"],
            reasons=transaction_reasons(reasons_from_json(row["reasons"])),
            end_of_day_id=row["end_of_day_id"],
            updated_at=row["updated_at"],
        )
        for row in rows
    ]


def as_row(transaction: RetailTransaction) -> dict[str, Any]:
    """A new row of `transactions`."""
    return {
        "transaction_id": transaction.transaction_id,
        "kind": transaction.kind.lower(),
        "business_date": transaction.business_date,
        "customer_id": transaction.customer_id,
        "currency": transaction.currency,
        "total": plain_decimal(transaction.total),
        "content": content_of(transaction),
        "status": TransactionStatus.PENDING,
        "answer": 0,
        "operator": transaction.operator,
        "occurred_at": transaction.occurred_at,
        "updated_at": transaction.occurred_at,
    }


def from_row(channel: OpenChannel, row: RowMapping) -> RetailTransaction:
    """The transaction in a row of `transactions`, without a customer's event."""
    content = row["content"]
    address = content["delivery_address"]
    return RetailTransaction(
        channel_id=channel.name,
        transaction_id=row["transaction_id"],
        kind=TransactionKind(row["kind"].upper()),
        occurred_at=row["occurred_at"],
        business_date=row["business_date"],
        legal_entity=channel.legal_entity_id,
        customer_id=row["customer_id"],
        currency=row["currency"],
        total=Decimal(row["total"]),
        delivery_mode=content["delivery_mode"],
        delivery_address=None if address is None else DeliveryAddress(**address),
        lines=tuple(
            TransactionLine(
                sku=line["sku"],
                quantity=Decimal(line["quantity"]),
                price=Decimal(line["price"]),
                amount=Decimal(line["amount"]),
            )
            for line in content["lines"]
        ),
        charges=_coded_amounts(content["charges"]),
        taxes=_coded_amounts(content["taxes"]),
        payments=payments_of(content),
        operator=row["operator"],
        attributes=attributes_of(content),
    )


def payments_of(content: dict[str, Any]) -> tuple[Payment, ...]:
    """The payments in the content of a row."""
    return tuple(
        Payment(method=payment["method"], amount=Decimal(payment["amount"])) for payment in content["payments"]
    )


def _coded_amounts(stored: Sequence[dict[str, str]]) -> tuple[CodedAmount, ...]:
    return tuple(CodedAmount(code=amount["code"], amount=Decimal(amount["amount"])) for amount in stored)
