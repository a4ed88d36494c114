"""What runs in a channel and writes towards headquarters; here, what a program needs that has customers and sells."""

from tenten.producers.importing.customers import ImportResult, RefusedLine, import_customers
from tenten.producers.till.customer_input import (
    AttributeValue,
    CustomerFields,
    NewAddress,
    NewContact,
    fields_from_texts,
)
from tenten.producers.till.customers import (
    PENDING_SYNC,
    CustomerStatus,
    CustomerView,
    create_customer,
    discard_rejected,
    edit_customer,
    show_customer,
)
from tenten.producers.till.end_of_day import EndOfDayView, close_day, list_days, resend_day, show_day
from tenten.producers.till.loyalty import CardStatus, CardView, issue_card, show_card
from tenten.producers.till.open_channel import OpenChannel, open_channel
from tenten.producers.till.search import search_customers
from tenten.producers.till.sync_create import register_customer, wait_until_settled
from tenten.producers.till.transaction_views import TransactionView, list_transactions, show_transaction
from tenten.producers.till.transactions import Item, record_order, record_sale, resend_transaction

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
    "RefusedLine",
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
