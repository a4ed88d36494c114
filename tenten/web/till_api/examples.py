"""Examples in the description of the API: what clients send, and what they get."""

from typing import Any, Final

CUSTOMER_ID: Final = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
TRANSACTION_ID: Final = "0197a3f2-9b52-7d4f-8e66-1a7c2d3e4f50"
END_OF_DAY_ID: Final = "0197a3f2-ac63-7e50-9f77-2b8d3e4f5061"
_AT: Final = "2026-03-02T17:04:05.250000+00:00"

CUSTOMER_INPUT: Final[dict[str, Any]] = {
    "first_name": "Ada",
    "last_name": "Lovelace",
    "email": "ada@example.com",
    "address": {"street": "1 Main St", "city": "Houston", "state": "TX", "postal_code": "77002"},
    "operator": "emma",
}
EDIT: Final[dict[str, Any]] = {"phone": "713 555 0123", "operator": "emma"}
CUSTOMER: Final[dict[str, Any]] = {
    "customer_id": CUSTOMER_ID,
    "account_number": "C-00000001",
    "reference": "K7-3QD",
    "status": "synchronized",
    "reasons": [],
    "unsettled": 0,
    "version": 1,
    "updated_at": _AT,
    "display_name": "Ada Lovelace",
    "email": "ada@example.com",
    "phone": None,
    "legal_entity": "usrt",
    "customer_type": "PERSON",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "addresses": [],
    "contacts": [],
    "attributes": [],
}
PENDING: Final[dict[str, Any]] = CUSTOMER | {"account_number": None, "status": "pending", "unsettled": 1, "version": 0}

SALE_INPUT: Final[dict[str, Any]] = {
    "lines": [{"sku": "CUP", "quantity": 2, "price": "4.50"}],
    "payments": [{"method": "CARD", "amount": "9.00"}],
    "operator": "emma",
}
ORDER_INPUT: Final[dict[str, Any]] = {
    "lines": [{"sku": "LAMP", "quantity": 1, "price": "49.90"}],
    "customer_id": CUSTOMER_ID,
    "operator": "emma",
}
ORDER: Final[dict[str, Any]] = {
    "transaction_id": TRANSACTION_ID,
    "reference": "M4-8TC",
    "status": "synchronized",
    "sales_order": "SO-00000001",
    "reasons": [],
    "kind": "order",
    "business_date": "2026-03-02",
    "customer_id": CUSTOMER_ID,
    "customer": {"account_number": "C-00000001", "display_name": "Ada Lovelace"},
    "currency": "USD",
    "total": "49.90",
    "lines": [{"sku": "LAMP", "quantity": "1", "price": "49.90", "amount": "49.90"}],
    "charges": [],
    "taxes": [],
    "payments": [],
    "delivery_mode": "",
    "delivery_address": None,
    "attributes": [],
    "end_of_day_id": None,
    "operator": "emma",
    "occurred_at": _AT,
    "updated_at": _AT,
}
SALE: Final[dict[str, Any]] = ORDER | {
    "kind": "cash_and_carry",
    "status": "pending",
    "sales_order": None,
    "customer_id": None,
    "customer": None,
    "total": "9.00",
    "lines": [{"sku": "CUP", "quantity": "2", "price": "4.50", "amount": "9.00"}],
    "payments": [{"method": "CARD", "amount": "9.00"}],
}
END_OF_DAY: Final[dict[str, Any]] = {
    "end_of_day_id": END_OF_DAY_ID,
    "business_date": "2026-03-02",
    "status": "pending",
    "transactions": 1,
    "control_totals": [{"currency": "USD", "payment_method": "CARD", "amount": "9.00"}],
    "reasons": [],
    "operator": "emma",
    "closed_at": _AT,
    "updated_at": _AT,
}
CARD: Final[dict[str, Any]] = {"card_number": "LC-1001", "keep": True, "operator": "emma"}
ISSUED_CARD: Final[dict[str, Any]] = {
    "card_number": "LC-1001",
    "customer_id": CUSTOMER_ID,
    "status": "issued",
    "reasons": [],
}
REASON: Final = {"field": "email", "code": "invalid_email", "text": "Not a valid e-mail address."}
EVENTS: Final = (
    "id: 1772471045250001\n"
    "event: numbered\n"
    f'data: {{"type":"numbered","subject":"customer","customer_id":"{CUSTOMER_ID}",'
    f'"account_number":"C-00000001","codes":[],"at":"{_AT}"}}\n\n'
)
