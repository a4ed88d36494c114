"""The tables of headquarters' database (PostgreSQL): the source of truth for customers and account numbers.

Only `consumers/headquarters/customers` writes customers. There are no foreign keys: the only writer writes each batch
in one transaction, and the checks would cost a third of the throughput.
"""

from typing import Final

from sqlalchemy import (
    ARRAY,
    DDL,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)

from tenten.schemas.tables.joining import channel_token_table, join_answer_table
from tenten.schemas.tables.keys import channel_key_table, headquarters_key_table
from tenten.schemas.tables.registry import channel_table, legal_entity_table, settings_history_table
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

ACCOUNT_NUMBERS: Final = UniqueConstraint("legal_entity", "account_number")
"""The last guard against two customers with the same account number."""

customers: Final = Table(
    "customers",
    metadata,
    Column("customer_id", Guid, primary_key=True),
    Column("account_number", Text, comment="null only for a customer erased before it had one"),
    Column("version", BigInteger, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("erased_at", UtcTime),
    *state_columns(),
    ACCOUNT_NUMBERS,
)
customer_addresses: Final = address_table(metadata)
customer_contacts: Final = contact_table(metadata)

number_sequences: Final = Table(
    "number_sequences",
    metadata,
    Column("legal_entity", Text, primary_key=True),
    Column("format", Text, nullable=False, comment="each # is a digit: C-########"),
    Column("next", BigInteger, nullable=False, comment="the first number not taken yet"),
    Column("continuous", Boolean, nullable=False, comment="true: no gap, ever"),
)

synchronization_log: Final = Table(
    "synchronization_log",
    metadata,
    Column("event_id", Guid, primary_key=True),
    Column("customer_id", Guid, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reasons", JSON, nullable=False, comment="[{field, code, text}]"),
    Column("account_number", Text),
    Column("version", BigInteger),
    Column("operator", Text, comment="who made the change; null if unknown"),
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("judgement", Integer, nullable=False, server_default="1", comment="counts the judgements of the event"),
    Column("content_hash", BigInteger, comment="null if its content never arrived, or was not hashed"),
    Column("conflicts", Integer, nullable=False, server_default="0", comment="rejected: its id with other content"),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("occurred_at", UtcTime, nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Index("ix_synchronization_log_conflicts", "event_id", postgresql_where=text("conflicts > 0")),
    Index("ix_synchronization_log_rejected", "received_at", postgresql_where=text("outcome = 'rejected'")),
    # Summaries of blocks: the events of an hour, or of a customer, for less than a microsecond an event.
    Index(
        "ix_synchronization_log_summary",
        "received_at",
        "customer_id",
        postgresql_using="brin",
        postgresql_ops={"customer_id": "uuid_bloom_ops"},
        postgresql_with={"autosummarize": "on"},
    ),
)

held_events: Final = Table(
    "held_events",
    metadata,
    Column("held_id", IDENTITY, primary_key=True),
    Column("event_id", Guid, nullable=False, unique=True),
    Column("customer_id", Guid, nullable=False, comment="the key of the record"),
    Column("channel_id", Text, nullable=False),
    Column("reasons", JSON, nullable=False, comment="[{field, code, text}]: why it cannot be judged yet"),
    Column("code", Text, nullable=False, comment="of the first reason"),
    Column("subject", Text, nullable=False, comment="what must change: a channel or a legal entity"),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False, comment="the original bytes; empty if the customer is erased"),
    Column("headers", JSON, nullable=False, comment="[[name, value in hexadecimal or null]]"),
    Column("bytes", Integer, nullable=False, comment="of value and headers"),
    Column("held_at", UtcTime, nullable=False),
    Column("touched_at", UtcTime, comment="when headquarters last sent a touch for it"),
    Column("touches", Integer, nullable=False, server_default="0"),
    Column("judged_at", UtcTime, comment="its reply may not be on the topic yet"),
    Column("rejection", JSON, comment="[{field, code, text}]: a person has decided to reject it"),
    Index(None, "customer_id"),
    Index(None, "code", "subject"),
)
"""Customer events that headquarters cannot judge yet, in the order of `held_id`; a row is deleted after its reply."""

customer_audit: Final = Table(
    "customer_audit",
    metadata,
    Column("audit_id", IDENTITY, primary_key=True),
    Column("customer_id", Guid, nullable=False),
    Column("event_id", Guid, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("operator", Text, comment="who made the change; null if unknown"),
    Column("version", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("old_value", JSON),
    Column("new_value", JSON),
    Column("changed_at", UtcTime, nullable=False),
    Index(None, "customer_id"),
)
"""What each edit changed: one row per path. A new customer has no rows here, only one in `synchronization_log`."""

positions: Final = Table(
    "positions",
    metadata,
    Column("consumer_group", Text, primary_key=True),
    Column("topic_id", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

topics: Final = topic_table(metadata)

dead_letter_decisions: Final = Table(
    "dead_letter_decisions",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("decision", Text, nullable=False, comment="replayed or discarded"),
    Column("decided_at", UtcTime, nullable=False),
)
"""Decisions of operators about dead letters; a dead letter without a row is open."""

operator_actions: Final = Table(
    "operator_actions",
    metadata,
    Column("action_id", IDENTITY, primary_key=True),
    Column("acted_at", UtcTime, nullable=False),
    Column("operator", Text, nullable=False),
    Column("via", Text, nullable=False, comment="how the operator signed in: token or proxy"),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="the customer, event, dead letter or channel; no personal data"),
    Column("reason", Text, comment="as the operator gave it"),
    Column("outcome", Text, comment="done or failed; null while it is under way, and if the process ended then"),
    Index(None, "acted_at"),
)
"""What operators did at the dashboard, and whose personal data they asked to see."""

MONEY: Final = Numeric(28, 6)
"""Exact type of amounts, prices and quantities."""

retail_transactions: Final = Table(
    "retail_transactions",
    metadata,
    Column("transaction_id", Guid, primary_key=True),
    Column("channel_id", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="order or cash_and_carry"),
    Column("business_date", Date, nullable=False),
    Column("legal_entity", Text, nullable=False),
    Column("customer_id", Guid),
    Column("account_number", Text, comment="once synchronized; null without a customer"),
    Column("customer_event_id", Guid, comment="the event with which it brought its customer along"),
    Column("delivery_address_id", Guid),
    Column("operator", Text, comment="who recorded it; null if unknown"),
    Column("status", Text, nullable=False, comment="waiting, blocked, rejected, synchronized"),
    Column("reasons", JSON, nullable=False, comment="[{field, code, text}]: why it is blocked or rejected"),
    Column("currency", Text, nullable=False),
    Column("total", MONEY, nullable=False),
    Column("content", JSON, nullable=False, comment="lines, charges, taxes, payments, delivery; decimals as text"),
    Column("answer", BigInteger, nullable=False, comment="number of the newest answer to the channel"),
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("occurred_at", UtcTime, nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False, comment="since when it has this status"),
    Column("alarmed_at", UtcTime, comment="when somebody was told that it waits for too long"),
    Index(
        "ix_retail_transactions_open",
        "customer_id",
        postgresql_where=text("status IN ('waiting', 'blocked')"),
    ),
    Index("ix_retail_transactions_rejected", "received_at", postgresql_where=text("status = 'rejected'")),
    Index(
        "ix_retail_transactions_day",
        "channel_id",
        "business_date",
        postgresql_where=text("kind = 'cash_and_carry'"),
    ),
)

sales_order_sequences: Final = Table(
    "sales_order_sequences",
    metadata,
    Column("legal_entity", Text, primary_key=True),
    Column("format", Text, nullable=False, comment="each # is a digit: SO-########"),
    Column("next", BigInteger, nullable=False, comment="the first number not taken yet; there is never a gap"),
)

sales_orders: Final = Table(
    "sales_orders",
    metadata,
    Column("legal_entity", Text, primary_key=True),
    Column("sales_order", Text, primary_key=True),
    Column("transaction_id", Guid, nullable=False, unique=True),
    Column("channel_id", Text, nullable=False),
    Column("business_date", Date, nullable=False),
    Column("customer_id", Guid),
    Column("account_number", Text),
    Column("currency", Text, nullable=False),
    Column("total", MONEY, nullable=False),
    Column("delivery_mode", Text, nullable=False),
    Column("delivery_address", JSON),
    Column("created_at", UtcTime, nullable=False),
)

sales_order_lines: Final = DDL(  # type: ignore[no-untyped-call]  # sqlalchemy's
    """
    CREATE VIEW sales_order_lines AS
    SELECT orders.legal_entity, orders.sales_order, CAST(line.number AS integer) AS line_number,
           line.sku, line.quantity, line.price, line.amount
    FROM sales_orders AS orders
    JOIN retail_transactions AS sold ON sold.transaction_id = orders.transaction_id
    CROSS JOIN LATERAL ROWS FROM (
        json_to_recordset(sold.content->'lines') AS (sku text, quantity numeric, price numeric, amount numeric)
    ) WITH ORDINALITY AS line (sku, quantity, price, amount, number)
    """
)
"""The lines of the orders that have become sales orders, by sales order number; lines are numbered from 1."""
event.listen(metadata, "after_create", sales_order_lines)

statements: Final = Table(
    "statements",
    metadata,
    Column("statement_id", Guid, primary_key=True, comment="of the end of day; an adjustment's is made from it"),
    Column("channel_id", Text, nullable=False),
    Column("business_date", Date, nullable=False),
    Column("number", Integer, nullable=False, comment="of that channel and day, from 1"),
    Column("kind", Text, nullable=False, comment="end_of_day, or adjustment: what the channel did not list"),
    Column("status", Text, nullable=False, comment="waiting, blocked, rejected, posted"),
    Column("reasons", JSON, nullable=False, comment="[{field, code, text}]: why it is not posted yet"),
    Column("control_totals", JSON, comment="[{currency, payment_method, amount}] as the channel has them"),
    Column("totals", JSON, nullable=False, comment="once posted: {transactions, amounts} of its lines"),
    Column("answer", BigInteger, nullable=False, comment="number of the newest answer to the channel"),
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("operator", Text, comment="who closed the date; null if unknown, and for an adjustment"),
    Column("partition", Integer, comment="of the end of day in retail-transactions; null if stored by 0.1.0"),
    Column("offset", BigInteger),
    Column("closed_at", UtcTime, nullable=False, comment="the channel's clock"),
    Column("received_at", UtcTime, nullable=False),
    Column("posted_at", UtcTime),
    UniqueConstraint("channel_id", "business_date", "number"),
    Index("ix_statements_open", "received_at", postgresql_where=text("status IN ('waiting', 'blocked')")),
)

statement_listed: Final = Table(
    "statement_listed",
    metadata,
    Column("statement_id", Guid, primary_key=True),
    Column("transaction_id", Guid, primary_key=True),
    Column("channel_id", Text, nullable=False),
    Column("owned", Boolean, nullable=False, comment="false: an earlier statement lists it, and posts it"),
    Index("uq_statement_listed_owned", "transaction_id", "channel_id", unique=True, postgresql_where=text("owned")),
)
"""The transactions that each end of day lists, received or not."""

statement_lines: Final = Table(
    "statement_lines",
    metadata,
    Column("transaction_id", Guid, primary_key=True, comment="so that it is in one statement at most"),
    Column("statement_id", Guid, nullable=False),
    Column("account_number", Text),
    Column("currency", Text, nullable=False),
    Column("total", MONEY, nullable=False),
    Index(None, "statement_id"),
)
"""The posted transactions, each in one statement."""

transaction_traces: Final = Table(
    "transaction_traces",
    metadata,
    Column("transaction_id", Guid, primary_key=True),
    Column("traceparent", Text, nullable=False, comment="W3C trace of the record with which it came"),
    Column("noted_at", UtcTime, nullable=False),
    Index(None, "noted_at"),
)
"""The traces of transactions of the last day, for their replies. Transactions without a trace have no row."""

replies_due: Final = Table(
    "replies_due",
    metadata,
    Column("sequence", IDENTITY, primary_key=True),
    Column("answer_count", Integer, nullable=False, comment="the length of each of the lists"),
    Column("channel_ids", ARRAY(Text), nullable=False),
    Column("transaction_ids", ARRAY(Text), nullable=False, comment="as text: they only become record headers"),
    Column("payloads", ARRAY(LargeBinary), nullable=False, comment="TransactionReply, framed Avro"),
)
"""Answers to transactions that are not on `transaction-replies` yet, written together with what they tell.

A row holds the replies of one SQL transaction, up to ten thousand: a row per reply made orders a tenth slower.
"""

_UNCOMPRESSED: Final = DDL(  # type: ignore[no-untyped-call]  # sqlalchemy's
    """
    ALTER TABLE replies_due
        ALTER channel_ids SET STORAGE EXTERNAL,
        ALTER transaction_ids SET STORAGE EXTERNAL,
        ALTER payloads SET STORAGE EXTERNAL
    """
)
"""The rows live too briefly to be worth compressing."""
event.listen(metadata, "after_create", _UNCOMPRESSED)

release_due: Final = Table(
    "release_due",
    metadata,
    Column("transaction_id", Guid, nullable=False),
)
"""The release queue: waiting transactions whose missing customer or transaction may have arrived. No primary key."""

unfinished_commands: Final = Table(
    "unfinished_commands",
    metadata,
    Column("command", Text, primary_key=True, comment="recover or republish"),
    Column("topic_id", Text, comment="of the topic to which customers are sent again"),
    Column("customer_id", Guid, comment="the last customer that was sent"),
    Column("started_at", UtcTime, nullable=False),
)
"""Commands that were begun and have not ended: they are to be repeated, and continue where they were interrupted."""

verifications: Final = Table(
    "verifications",
    metadata,
    Column("finished_at", UtcTime, primary_key=True),
    Column("customers", BigInteger, nullable=False, comment="in the database"),
    Column("missing", BigInteger, nullable=False, comment="in the database and not on the topic"),
    Column("surplus", BigInteger, nullable=False, comment="on the topic and not in the database"),
    Column("different", BigInteger, nullable=False),
)
"""The newest comparisons of database and topic."""

legal_entities: Final = legal_entity_table(metadata)
channels: Final = channel_table(metadata)
settings_history: Final = settings_history_table(metadata)
headquarters_keys: Final = headquarters_key_table(metadata)
channel_keys: Final = channel_key_table(metadata)
channel_tokens: Final = channel_token_table(metadata)
join_answers: Final = join_answer_table(metadata)
