"""The tables of headquarters' database: the truth about customers and account numbers (PostgreSQL).

Only `consumers/headquarters` writes customers. Nothing points at another table by foreign key: there is one writer, it
writes each batch in one transaction, and the checks would cost a third of the rate.
"""

from typing import Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text, UniqueConstraint

from schemas.columns import IDENTITY, NAMING, Guid, UtcTime, address_table, contact_table, state_columns, topic_table

metadata: Final = MetaData(naming_convention=NAMING)

ACCOUNT_NUMBERS: Final = UniqueConstraint("legal_entity", "account_number")
"""No account number twice, whatever else goes wrong."""

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
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("occurred_at", UtcTime, nullable=False),
    Column("received_at", UtcTime, nullable=False),
)

customer_audit: Final = Table(
    "customer_audit",
    metadata,
    Column("audit_id", IDENTITY, primary_key=True),
    Column("customer_id", Guid, nullable=False),
    Column("event_id", Guid, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("old_value", JSON),
    Column("new_value", JSON),
    Column("changed_at", UtcTime, nullable=False),
    Index(None, "customer_id"),
)
"""What each edit changed: one row a path. A new customer has none: its log row says all."""

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
"""What an operator decided about a dead letter; one without a row is open."""
