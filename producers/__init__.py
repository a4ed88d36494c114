"""What runs in a channel and writes towards headquarters; here, what a program that works with customers needs."""

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
from producers.fields import AttributeValue, CustomerFields, NewAddress, NewContact, fields_from_texts
from producers.importing import ImportResult, RefusedLine, import_customers
from producers.search import search_customers
from producers.waiting import wait_until_settled

__all__ = [
    "PENDING_SYNC",
    "AttributeValue",
    "CustomerFields",
    "CustomerStatus",
    "CustomerView",
    "ImportResult",
    "NewAddress",
    "NewContact",
    "OpenChannel",
    "RefusedLine",
    "create_customer",
    "discard_rejected",
    "edit_customer",
    "fields_from_texts",
    "import_customers",
    "open_channel",
    "search_customers",
    "show_customer",
    "wait_until_settled",
]
