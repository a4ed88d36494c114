"""Record orders and cash-and-carry sales of a channel, and send rejected ones again.

    with open_channel(load_settings(), "houston") as houston:
        tea = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))
        sale = record_sale(houston, lines=[tea], payments=[Payment(method="CARD", amount=Decimal("9.00"))])
        order = record_order(houston, lines=[tea], customer_id=ada.customer_id, deliver_to=ada.state.primary_address)
        print(order.status, order.customer_number)                    # pending Pending sync

Neither Kafka nor headquarters is needed: transaction and outbox row are written in one SQL transaction. While the
customer has an unsettled event, the transaction carries the newest one, so that it arrives together with its customer.
Input that breaks rules is rejected with every reason before anything is written.

Recording takes the end-of-day lock shared, closing a day (end_of_day.py) takes it exclusively: an end of day lists
every sale of its date that precedes it in the outbox.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, insert, select

from tenten.producers.outbox.table import delete_row
from tenten.producers.till.customer_input import AttributeValue
from tenten.producers.till.customer_views import lock_customer
from tenten.producers.till.database_session import AlreadyRecorded, writing
from tenten.producers.till.entered_text import transaction_text_violations
from tenten.producers.till.ids import normal_ids
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.request_keys import check_repeat, is_repeat, record_key
from tenten.producers.till.transaction_append import append, lock_days, reset_to_pending
from tenten.producers.till.transaction_draft import Item, draft_transaction
from tenten.producers.till.transaction_views import (
    TransactionView,
    as_row,
    from_row,
    read_view,
    read_views,
    show_transaction,
)
from tenten.runtime.errors import KeyReused, NoSuchCustomer
from tenten.schemas.messages import (
    CodedAmount,
    DeliveryAddress,
    Payment,
    Reason,
    RetailTransaction,
    TransactionKind,
    TransactionStatus,
)
from tenten.schemas.tables.channel import transactions
from tenten.sql.customer_rows import StoredCustomer

CASH: Final = "CASH"
"""The default payment method of a sale."""


def record_order(
    channel: OpenChannel,
    *,
    lines: Sequence[Item],
    customer_id: str | None = None,
    deliver_to: str | None = None,
    currency: str | None = None,
    charges: Sequence[CodedAmount] = (),
    taxes: Sequence[CodedAmount] = (),
    payments: Sequence[Payment] = (),
    delivery_mode: str = "",
    attributes: Mapping[str, AttributeValue] = MappingProxyType({}),
    business_date: date | None = None,
    operator: str | None = None,
    transaction_id: str | None = None,
    digest: str | None = None,
) -> TransactionView:
    """Record an order, whether its customer has an account number yet or not. Works offline.

    `deliver_to` is the id of one of the customer's addresses, which is copied as it is now. `attributes` are additional
    fields by name, as the legal entity has defined them for orders. Defaults: the legal
    entity's currency, no payment, today in the channel's time zone, the channel's `operator` (the person who records
    the order). Pass `transaction_id` (a GUID) as an idempotency key: if it already exists, nothing is written and the
    recorded transaction is returned. `digest` stands for the content of the caller's request: a transaction that was
    recorded with another one is not returned.

    Blocks while another process changes the same customer or closes a day.
    Raises: `TransactionRejected` with every reason, `NoSuchCustomer`, `KeyReused`, `DatabaseRefused`; nothing is
    written then.
    """
    draft = draft_transaction(
        channel,
        TransactionKind.ORDER,
        lines,
        customer_id=customer_id,
        currency=currency,
        charges=charges,
        taxes=taxes,
        payments=payments,
        delivery_mode=delivery_mode,
        attributes=attributes,
        business_date=business_date,
        operator=operator,
        transaction_id=transaction_id,
    )
    return _record(channel, draft, deliver_to, digest, repeatable=transaction_id is not None)


def record_sale(
    channel: OpenChannel,
    *,
    lines: Sequence[Item],
    customer_id: str | None = None,
    currency: str | None = None,
    charges: Sequence[CodedAmount] = (),
    taxes: Sequence[CodedAmount] = (),
    payments: Sequence[Payment] = (),
    attributes: Mapping[str, AttributeValue] = MappingProxyType({}),
    business_date: date | None = None,
    operator: str | None = None,
    transaction_id: str | None = None,
    digest: str | None = None,
) -> TransactionView:
    """Record a cash-and-carry sale. A negative quantity is a return.

    Without payments, the total is paid in cash. Other parameters are those of `record_order`. A sale of a business
    date that is already closed is listed when the date is closed again.
    Raises: as `record_order`.
    """
    draft = draft_transaction(
        channel,
        TransactionKind.CASH_AND_CARRY,
        lines,
        customer_id=customer_id,
        currency=currency,
        charges=charges,
        taxes=taxes,
        payments=payments,
        attributes=attributes,
        business_date=business_date,
        operator=operator,
        transaction_id=transaction_id,
    )
    paid = draft.payments or (Payment(method=CASH, amount=draft.total),)
    return _record(channel, replace(draft, payments=paid), None, digest, repeatable=transaction_id is not None)


def _record(
    channel: OpenChannel, draft: RetailTransaction, deliver_to: str | None, digest: str | None, *, repeatable: bool
) -> TransactionView:
    try:
        with writing(channel) as connection:
            if repeatable and (recorded := _recorded(connection, channel, draft.transaction_id, digest)):
                return recorded
            record_key(connection, draft.transaction_id, digest)
            customer = None if draft.customer_id is None else lock_customer(connection, draft.customer_id)
            # The last lock, so that waiting for a customer does not keep a day from being closed.
            lock_days(connection, shared=True)
            transaction = _for_customer(draft, customer, deliver_to)
            violations = [*_delivery_violations(transaction, deliver_to), *transaction_text_violations(transaction)]
            append(connection, channel, transaction, violations)
            connection.execute(insert(transactions), as_row(transaction))
            return read_view(connection, channel, draft.transaction_id)
    except AlreadyRecorded:
        check_repeat(channel, draft.transaction_id, digest)
        return show_transaction(channel, draft.transaction_id)


def _recorded(
    connection: Connection, channel: OpenChannel, transaction_id: str, digest: str | None
) -> TransactionView | None:
    """The transaction, if this request has recorded it. Raises: `KeyReused`, also for one of another call."""
    if is_repeat(connection, transaction_id, digest):
        return read_view(connection, channel, transaction_id)
    views = read_views(connection, channel, [transaction_id])
    if views and digest is not None:
        raise KeyReused("this id is that of another order or sale: nothing was written; choose another key")
    return views[0] if views else None


def _for_customer(
    draft: RetailTransaction, customer: StoredCustomer | None, deliver_to: str | None
) -> RetailTransaction:
    """The transaction with the customer's normalised id and the delivery address, if it is one of the customer's."""
    if customer is None:
        return draft
    delivery_address = None
    for address in customer.state.addresses:
        if deliver_to is not None and address.address_id == deliver_to.lower():
            delivery_address = DeliveryAddress(
                address_id=address.address_id,
                name=address.name,
                street=address.street,
                city=address.city,
                county=address.county,
                state=address.state,
                postal_code=address.postal_code,
                country=address.country,
            )
    return replace(draft, customer_id=customer.customer_id, delivery_address=delivery_address)


def _delivery_violations(transaction: RetailTransaction, deliver_to: str | None) -> list[Reason]:
    """The reasons why the order cannot be delivered to that address."""
    if deliver_to is None or transaction.delivery_address is not None:
        return []
    if transaction.customer_id is None:
        return [Reason(field="deliver_to", code="no_customer", text="A delivery address requires a customer.")]
    return [Reason(field="deliver_to", code="unknown_reference", text="The customer has no address with this id.")]


def resend_transaction(channel: OpenChannel, transaction_id: str) -> TransactionView:
    """Send a rejected order or sale again, with the customer's newest event and the operator who recorded it.
    Transactions in other states are returned unchanged.

    Raises: `NoSuchTransaction`, `TransactionRejected`, `DatabaseRefused`.
    """
    by_id = select(transactions).where(transactions.c.transaction_id.in_(normal_ids(transaction_id)))
    with writing(channel) as connection:
        for row in connection.execute(by_id).mappings():
            _lock_if_present(connection, row["customer_id"])
        lock_days(connection, shared=True)
        for row in connection.execute(by_id.with_for_update()).mappings():
            if row["status"] == TransactionStatus.REJECTED:
                delete_row(connection, row["transaction_id"])
                append(connection, channel, from_row(channel, row))
                reset_to_pending(connection, transactions.c.transaction_id, row["transaction_id"])
        return read_view(connection, channel, transaction_id)


def _lock_if_present(connection: Connection, customer_id: str | None) -> None:
    """Lock the customer's row before the transaction's, in settlement's order. A deleted customer has no events."""
    if customer_id is not None:
        with suppress(NoSuchCustomer):
            lock_customer(connection, customer_id)
