"""The parts of transactions that databases store as JSON; decimals as text."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from tenten.rules.customer import plain_decimal
from tenten.schemas.messages import Attribute, CodedAmount, ControlTotal, RetailTransaction


def content_of(transaction: RetailTransaction) -> dict[str, Any]:
    """The part of a sale that both databases store as JSON; decimals as text."""
    address = transaction.delivery_address
    return {
        "lines": [
            {
                "sku": line.sku,
                "quantity": plain_decimal(line.quantity),
                "price": plain_decimal(line.price),
                "amount": plain_decimal(line.amount),
            }
            for line in transaction.lines
        ],
        "charges": [_coded(charge) for charge in transaction.charges],
        "taxes": [_coded(tax) for tax in transaction.taxes],
        "payments": [
            {"method": payment.method, "amount": plain_decimal(payment.amount)} for payment in transaction.payments
        ],
        "delivery_mode": transaction.delivery_mode,
        "delivery_address": None if address is None else {name: getattr(address, name) for name in address.__slots__},
        "attributes": [_attribute(attribute) for attribute in transaction.attributes],
    }


def attributes_of(content: Mapping[str, Any]) -> tuple[Attribute, ...]:
    """The attributes in such a part; of a sale that an earlier release has stored, none."""
    return tuple(
        Attribute(**{**value, "decimal": None if value["decimal"] is None else Decimal(value["decimal"])})
        for value in content.get("attributes", ())
    )


def _attribute(attribute: Attribute) -> dict[str, Any]:
    decimal = None if attribute.decimal is None else plain_decimal(attribute.decimal)
    return {**asdict(attribute), "decimal": decimal}


def _coded(item: CodedAmount) -> dict[str, str]:
    return {"code": item.code, "amount": plain_decimal(item.amount)}


def totals_as_json(totals: Iterable[ControlTotal]) -> list[dict[str, str]]:
    """Control totals as JSON values."""
    return [
        {"currency": total.currency, "payment_method": total.payment_method, "amount": plain_decimal(total.amount)}
        for total in totals
    ]
