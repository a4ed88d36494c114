"""Customers, account numbers and the synchronization log.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

GUID = sa.Uuid(as_uuid=False)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    _customers()
    _synchronization()
    _streams()


def _customers() -> None:
    op.create_table(
        "customers",
        sa.Column("customer_id", GUID, nullable=False),
        sa.Column("account_number", sa.Text, comment="null only for a customer erased before it had one"),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("erased_at", TIME),
        sa.Column("legal_entity", sa.Text, nullable=False),
        sa.Column("customer_type", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("first_name", sa.Text, nullable=False),
        sa.Column("middle_name", sa.Text, nullable=False),
        sa.Column("last_name", sa.Text, nullable=False),
        sa.Column("organization_name", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("customer_group", sa.Text, nullable=False),
        sa.Column("receipt_preference", sa.Text, nullable=False),
        sa.Column("receipt_email", sa.Text, nullable=False),
        sa.Column("tax_number", sa.Text, nullable=False),
        sa.Column("primary_address", GUID),
        sa.Column("primary_phone", GUID),
        sa.Column("primary_email", GUID),
        sa.Column("address_books", sa.JSON, nullable=False),
        sa.Column("affiliations", sa.JSON, nullable=False),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("customer_id", name="pk_customers"),
        sa.UniqueConstraint("legal_entity", "account_number", name="uq_customers_legal_entity_account_number"),
    )
    op.create_table(
        "customer_addresses",
        sa.Column("customer_id", GUID, nullable=False),
        sa.Column("address_id", GUID, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("street", sa.Text, nullable=False),
        sa.Column("city", sa.Text, nullable=False),
        sa.Column("county", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("postal_code", sa.Text, nullable=False),
        sa.Column("country", sa.Text, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "address_id", name="pk_customer_addresses"),
    )
    op.create_table(
        "customer_contacts",
        sa.Column("customer_id", GUID, nullable=False),
        sa.Column("contact_id", GUID, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("marketing_consent", sa.Boolean, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "contact_id", name="pk_customer_contacts"),
    )


def _synchronization() -> None:
    op.create_table(
        "number_sequences",
        sa.Column("legal_entity", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False, comment="each # is a digit: C-########"),
        sa.Column("next", sa.BigInteger, nullable=False, comment="the first number not taken yet"),
        sa.Column("continuous", sa.Boolean, nullable=False, comment="true: no gap, ever"),
        sa.PrimaryKeyConstraint("legal_entity", name="pk_number_sequences"),
    )
    op.create_table(
        "synchronization_log",
        sa.Column("event_id", GUID, nullable=False),
        sa.Column("customer_id", GUID, nullable=False),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False, comment="[{field, code, text}]"),
        sa.Column("account_number", sa.Text),
        sa.Column("version", sa.BigInteger),
        sa.Column("repeats", sa.Integer, nullable=False, server_default="0"),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_synchronization_log"),
    )
    op.create_table(
        "customer_audit",
        sa.Column("audit_id", sa.BigInteger, nullable=False, autoincrement=True),
        sa.Column("customer_id", GUID, nullable=False),
        sa.Column("event_id", GUID, nullable=False),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("old_value", sa.JSON),
        sa.Column("new_value", sa.JSON),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="pk_customer_audit"),
    )
    op.create_index("ix_customer_audit_customer_id", "customer_audit", ["customer_id"])


def _streams() -> None:
    op.create_table(
        "positions",
        sa.Column("consumer_group", sa.Text, nullable=False),
        sa.Column("topic_id", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("consumer_group", "topic_id", "partition", name="pk_positions"),
    )
    op.create_table(
        "topics",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("topic_id", sa.Text, nullable=False),
        sa.Column("partitions", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("topic", "topic_id", name="pk_topics"),
    )
    op.create_table(
        "dead_letter_decisions",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("offset", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("decision", sa.Text, nullable=False, comment="replayed or discarded"),
        sa.Column("decided_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", "offset", name="pk_dead_letter_decisions"),
    )
