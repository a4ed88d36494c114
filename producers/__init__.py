"""What runs in a channel and writes towards headquarters; here, what a program needs that has customers and sells."""

from producers.channel import OpenChannel, open_channel
from producers.customers import (
    PENDING_SYNC,
    CustomerStatus,
    CustomerView,
    create_customer,
    discard_rejected,
    edit_customer,
    show_customer,
)
from producers.days import EndOfDayView, close_day, list_days, resend_day, show_day
from producers.fields import AttributeValue, CustomerFields, NewAddress, NewContact, fields_from_texts
from producers.importing import ImportResult, RefusedLine, import_customers
from producers.loyalty import CardStatus, CardView, issue_card, show_card
from producers.receipts import TransactionView, list_transactions, show_transaction
from producers.search import search_customers
from producers.transactions import Item, record_order, record_sale, resend_transaction
from producers.waiting import register_customer, wait_until_settled

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
