"""The tables of a channel's database, the same in PostgreSQL and SQLite.

The visible customer is always complete: the last snapshot from headquarters, overlaid with the channel's unsettled
edits.
"""

from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Date, Index, Integer, LargeBinary, MetaData, Table, Text, text

from tenten.schemas.tables.joining import joining_table
from tenten.schemas.tables.keys import identity_table, relay_state_table
from tenten.schemas.tables.till import channel_event_state_table, channel_events_table, request_keys_table
from tenten.schemas.tables.types import (
    IDENTITY,
    NAMING,
    Guid,
    UtcTime,
    address_table,
    contact_table,
    state_columns,
    topic_table,
)

metadata: Final = MetaData(naming_convention=NAMING)

customers: Final = Table(
    "customers",
    metadata,
    Column("customer_id", Guid, primary_key=True),
    Column("account_number", Text, comment="null while pending"),
    Column("version", BigInteger, nullable=False, comment="of the last snapshot; 0 before the first"),
    Column("updated_at", UtcTime, nullable=False),
    *state_columns(),
    Column("search_name", Text, nullable=False, comment="all names, folded for the clerk's search"),
    Index(None, "account_number"),
    Index("ix_customers_search_name", "search_name", postgresql_ops={"search_name": "text_pattern_ops"}),
)
customer_addresses: Final = address_table(metadata)
customer_contacts: Final = contact_table(metadata)
Index("ix_customer_contacts_value", customer_contacts.c.value, postgresql_ops={"value": "text_pattern_ops"})

snapshots: Final = Table(
    "snapshots",
    metadata,
    Column("customer_id", Guid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("snapshot", LargeBinary, nullable=False, comment="Customer, framed Avro"),
)
"""The base snapshots: the last snapshot of each customer that has an overlay, and of no other customer."""

outbox: Final = Table(
    "outbox",
    metadata,
    Column("sequence", IDENTITY, primary_key=True, autoincrement=True),
    Column("id", Guid, nullable=False, unique=True, comment="event id"),
    Column("aggregatetype", Text, nullable=False),
    Column("aggregateid", Guid, nullable=False, comment="customer id or transaction id"),
    Column("type", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="the record, Avro in single-object encoding"),
    Column("created_at", UtcTime, nullable=False),
    Column("settled_at", UtcTime),
    Column("outcome", Text, comment="as in Reply, in lower case; rejected rows stay unsettled"),
    Column("reasons", JSON, comment="[{field, code, text}]"),
    Column("account_number", Text),
    Column("version", BigInteger, comment="version of the customer in which the event took effect"),
    Column(
        "judgement",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="of the newest reply to a customer event; 0 before the first",
    ),
    Column("traceparent", Text, comment="W3C trace of whoever wrote it; null without one"),
    Index(None, "aggregateid"),
    sqlite_autoincrement=True,
)

outbox_queue: Final = Table(
    "outbox_queue",
    metadata,
    Column("sequence", IDENTITY, primary_key=True, autoincrement=False),
)
"""The rows of the outbox that are still to be sent: written with them, deleted after the broker's acknowledgement."""

outbox_reservation: Final = Table(
    "outbox_reservation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("reserved_to", BigInteger, nullable=False, comment="the relay may have read the rows up to this sequence"),
)
"""One row: rows of the outbox after this sequence were certainly never read by the relay, so they can be folded."""

outbox_resends: Final = Table(
    "outbox_resends",
    metadata,
    Column("sequence", IDENTITY, primary_key=True, autoincrement=False),
    Column("resend_at", UtcTime, nullable=False, comment="when it is queued again, if it is still unsettled then"),
    Column("attempts", Integer, nullable=False, comment="how often it was queued again"),
    Index(None, "resend_at"),
)
"""Rows of the outbox that were sent and not settled soon: when each is queued again."""

positions: Final = Table(
    "positions",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("topic_id", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("confirmed_at", UtcTime, comment="when the channel was last at the end of this partition"),
    Column("filter", Text, comment="by which the rows were chosen, as JSON; null where all records are read"),
)

topics: Final = topic_table(metadata)

channel_settings: Final = Table(
    "channel_settings",
    metadata,
    Column("channel_id", Text, primary_key=True),
    Column("topic_id", Text, nullable=False, comment="of channel-settings"),
    Column("offset", BigInteger, nullable=False, comment="of the record in the partition of this channel"),
    Column("settings", JSON, nullable=False, comment="ChannelSettings; times as text, bytes in hexadecimal"),
    Column("received_at", UtcTime, nullable=False),
)
"""One row: the settings that headquarters has published for this channel; without a row those of tenten.toml."""

joining: Final = joining_table(metadata)

resync_keys: Final = Table("resync_keys", metadata, Column("customer_id", Guid, primary_key=True))
"""The customers that the last resync did not find in the topic and has kept, because they were too many."""

resync_requests: Final = Table(
    "resync_requests",
    metadata,
    Column("reason", Text, primary_key=True),
    Column("requested_at", UtcTime, nullable=False),
)
"""Reasons for a resync that a migration has recorded; a finished resync deletes them."""

loading: Final = Table(
    "loading",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("kind", Text, nullable=False, comment="resync or first_load"),
    Column("done", BigInteger, comment="records so far; null: the positions tell"),
    Column("total", BigInteger, nullable=False, comment="records when it began"),
    Column("started_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)
"""At most one row: how far a load of all customers is, for heartbeats."""

transactions: Final = Table(
    "transactions",
    metadata,
    Column("transaction_id", Guid, primary_key=True),
    Column("kind", Text, nullable=False, comment="order or cash_and_carry"),
    Column("business_date", Date, nullable=False),
    Column("customer_id", Guid),
    Column("currency", Text, nullable=False),
    Column("total", Text, nullable=False, comment="a decimal as text: exact in both databases"),
    Column("content", JSON, nullable=False, comment="lines, charges, taxes, payments, delivery; decimals as text"),
    Column("status", Text, nullable=False, comment="pending, then as in TransactionReply"),
    Column("sales_order", Text),
    Column("reasons", JSON, comment="[{field, code, text}]"),
    Column("answer", BigInteger, nullable=False, comment="number of the newest answer; 0 before the first"),
    Column("end_of_day_id", Guid, comment="the end of day that lists it"),
    Column("operator", Text, comment="who recorded it"),
    Column("occurred_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index(None, "business_date"),
    Index(None, "customer_id"),
)
"""Orders and cash-and-carry transactions, with the state that headquarters has reported in its replies."""

end_of_days: Final = Table(
    "end_of_days",
    metadata,
    Column("end_of_day_id", Guid, primary_key=True),
    Column("business_date", Date, nullable=False),
    Column("transactions", Integer, nullable=False, comment="how many it lists"),
    Column("control_totals", JSON, nullable=False, comment="[{currency, payment_method, amount}]"),
    Column("status", Text, nullable=False, comment="pending, then as in TransactionReply"),
    Column("reasons", JSON, comment="[{field, code, text}]"),
    Column("answer", BigInteger, nullable=False, comment="number of the newest answer; 0 before the first"),
    Column("operator", Text, comment="who closed the date"),
    Column("closed_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index(None, "business_date"),
)
"""End-of-day events; a business date that was closed again, for late transactions, has several."""

loyalty_cards: Final = Table(
    "loyalty_cards",
    metadata,
    Column("card_number", Text, primary_key=True),
    Column("customer_id", Guid, nullable=False),
    Column("status", Text, nullable=False, comment="kept, until the account number is there; then issued"),
    Column("asked_at", UtcTime, nullable=False),
    Column("issued_at", UtcTime),
    Column("operator", Text, comment="who requested it"),
    Index(None, "customer_id"),
    Index(
        "ix_loyalty_cards_kept",
        "card_number",
        postgresql_where=text("status = 'kept'"),
        sqlite_where=text("status = 'kept'"),
    ),
)

identity: Final = identity_table(metadata)
relay_state: Final = relay_state_table(metadata)

channel_events: Final = channel_events_table(metadata)
channel_event_state: Final = channel_event_state_table(metadata)
request_keys: Final = request_keys_table(metadata)
