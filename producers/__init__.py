"""Store-side API: customers, orders, sales, loyalty cards, end of day.

Names are imported on first use, so that a program loads only the modules it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tenten.producers.importing.customers import import_customers
    from tenten.producers.importing.import_result import ImportResult, RejectedLine
    from tenten.producers.till.customer_input import AttributeValue, CustomerFields, NewAddress, NewContact
    from tenten.producers.till.customer_views import PENDING_SYNC, CustomerStatus, CustomerView, show_customer
    from tenten.producers.till.customers import create_customer, edit_customer
    from tenten.producers.till.discard import discard_rejected
    from tenten.producers.till.end_of_day import EndOfDayView, close_day, list_days, resend_day, show_day
    from tenten.producers.till.loyalty import CardStatus, CardView, issue_card, show_card
    from tenten.producers.till.open_channel import OpenChannel, open_channel
    from tenten.producers.till.search import search_customers
    from tenten.producers.till.sync_create import register_customer, wait_until_settled
    from tenten.producers.till.text_input import fields_from_texts
    from tenten.producers.till.transaction_draft import Item
    from tenten.producers.till.transaction_views import TransactionView, list_transactions, show_transaction
    from tenten.producers.till.transactions import record_order, record_sale, resend_transaction

__all__ = [
    "PENDING_SYNC",
    "AttributeValue",
    "CardStatus",
    "CardView",
    "CustomerFields",
    "CustomerStatus",
    "CustomerView",
    "EndOfDayView",
    "ImportResult",
    "Item",
    "NewAddress",
    "NewContact",
    "OpenChannel",
    "RejectedLine",
    "TransactionView",
    "close_day",
    "create_customer",
    "discard_rejected",
    "edit_customer",
    "fields_from_texts",
    "import_customers",
    "issue_card",
    "list_days",
    "list_transactions",
    "open_channel",
    "record_order",
    "record_sale",
    "register_customer",
    "resend_day",
    "resend_transaction",
    "search_customers",
    "show_card",
    "show_customer",
    "show_day",
    "show_transaction",
    "wait_until_settled",
]

_NAMES: Final = {
    "importing.customers": ("import_customers",),
    "importing.import_result": ("ImportResult", "RejectedLine"),
    "till.customer_input": ("AttributeValue", "CustomerFields", "NewAddress", "NewContact"),
    "till.customer_views": ("PENDING_SYNC", "CustomerStatus", "CustomerView", "show_customer"),
    "till.customers": ("create_customer", "edit_customer"),
    "till.discard": ("discard_rejected",),
    "till.end_of_day": ("EndOfDayView", "close_day", "list_days", "resend_day", "show_day"),
    "till.loyalty": ("CardStatus", "CardView", "issue_card", "show_card"),
    "till.open_channel": ("OpenChannel", "open_channel"),
    "till.search": ("search_customers",),
    "till.sync_create": ("register_customer", "wait_until_settled"),
    "till.text_input": ("fields_from_texts",),
    "till.transaction_draft": ("Item",),
    "till.transaction_views": ("TransactionView", "list_transactions", "show_transaction"),
    "till.transactions": ("record_order", "record_sale", "resend_transaction"),
}
"""The names of the API by module of this package."""

_MODULE_OF: Final = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
