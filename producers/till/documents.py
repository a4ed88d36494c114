"""Customers, transactions, ends of day and cards as JSON objects: of the command line and of the API for tills.

Amounts are text, with the digits of their currency; times are ISO 8601 in UTC.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tenten.rules.customer import attribute_value, plain_decimal
from tenten.rules.transaction_content import content_of
from tenten.rules.transaction_rules import money
from tenten.schemas.messages import reasons_as_json

if TYPE_CHECKING:
    from tenten.producers.till.customer_views import CustomerView
    from tenten.producers.till.end_of_day import EndOfDayView
    from tenten.producers.till.loyalty import CardView
    from tenten.producers.till.transaction_views import TransactionView


def customer_document(view: "CustomerView") -> dict[str, Any]:
    """The customer as one flat object: headquarters' fields, the status, then the fields of `CustomerState`."""
    state = view.state
    values = {contact.contact_id: contact.value for contact in state.contacts}
    return {
        "customer_id": view.customer_id,
        "account_number": view.account_number,
        "reference": view.reference,
        "status": view.status.value,
        "reasons": reasons_as_json(view.reasons),
        "unsettled": view.unsettled,
        "version": view.version,
        "updated_at": view.updated_at.isoformat(),
        "display_name": view.display_name,
        "email": values.get(state.primary_email or ""),
        "phone": values.get(state.primary_phone or ""),
        **asdict(state),
        "addresses": [asdict(address) | {"updated_at": address.updated_at.isoformat()} for address in state.addresses],
        "attributes": [{"name": attribute.name, **attribute_value(attribute)} for attribute in state.attributes],
    }


def transaction_document(view: "TransactionView") -> dict[str, Any]:
    """An order or a sale as one object."""
    sale, customer = view.transaction, view.customer
    content = content_of(sale)
    lines = [
        {
            "sku": line.sku,
            "quantity": plain_decimal(line.quantity),
            "price": money(line.price, sale.currency),
            "amount": money(line.amount, sale.currency),
        }
        for line in sale.lines
    ]
    return {
        "transaction_id": view.transaction_id,
        "reference": view.reference,
        "status": view.status.value,
        "sales_order": view.sales_order,
        "reasons": reasons_as_json(view.reasons),
        "kind": sale.kind.lower(),
        "business_date": sale.business_date.isoformat(),
        "customer_id": sale.customer_id,
        "customer": None
        if customer is None
        else {"account_number": customer.account_number, "display_name": customer.display_name},
        "currency": sale.currency,
        "total": money(sale.total, sale.currency),
        "lines": lines,
        "charges": [{"code": charge.code, "amount": money(charge.amount, sale.currency)} for charge in sale.charges],
        "taxes": [{"code": tax.code, "amount": money(tax.amount, sale.currency)} for tax in sale.taxes],
        "payments": [
            {"method": payment.method, "amount": money(payment.amount, sale.currency)} for payment in sale.payments
        ],
        "delivery_mode": sale.delivery_mode,
        "delivery_address": content["delivery_address"],
        "attributes": [{"name": attribute.name, **attribute_value(attribute)} for attribute in sale.attributes],
        "end_of_day_id": view.end_of_day_id,
        "operator": sale.operator,
        "occurred_at": sale.occurred_at.isoformat(),
        "updated_at": view.updated_at.isoformat(),
    }


def end_of_day_document(end: "EndOfDayView") -> dict[str, Any]:
    """An end of day as one object."""
    totals = [
        {
            "currency": total.currency,
            "payment_method": total.payment_method,
            "amount": money(total.amount, total.currency),
        }
        for total in end.control_totals
    ]
    return {
        "end_of_day_id": end.end_of_day_id,
        "business_date": end.business_date.isoformat(),
        "status": end.status.value,
        "transactions": end.transactions,
        "control_totals": totals,
        "reasons": reasons_as_json(end.reasons),
        "operator": end.operator,
        "closed_at": end.closed_at.isoformat(),
        "updated_at": end.updated_at.isoformat(),
    }


def card_document(card: "CardView") -> dict[str, Any]:
    """A loyalty card as one object."""
    return {
        "card_number": card.card_number,
        "customer_id": card.customer_id,
        "status": card.status.value,
        "reasons": reasons_as_json(card.reasons),
    }
