"""Customers as the channel shows them, its outbox and its read positions.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

GUID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
IDENTITY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    _customers()
    _outbox()
    _streams()


def _customers() -> None:
    op.create_table(
        "customers",
        sa.Column("customer_id", GUID, nullable=False),
        sa.Column("account_number", sa.Text, comment="null while pending"),
        sa.Column("version", sa.BigInteger, nullable=False, comment="of the last snapshot; 0 before the first"),
        sa.Column("updated_at", TIME, nullable=False),
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
        sa.Column("search_name", sa.Text, nullable=False, comment="all names in lower case, for the clerk's search"),
        sa.PrimaryKeyConstraint("customer_id", name="pk_customers"),
    )
    op.create_index("ix_customers_account_number", "customers", ["account_number"])
    op.create_index(
        "ix_customers_search_name",
        "customers",
        ["search_name"],
        postgresql_ops={"search_name": "text_pattern_ops"},
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
    op.create_index("ix_customer_contacts_value", "customer_contacts", ["value"])
    op.create_table(
        "snapshots",
        sa.Column("customer_id", GUID, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("snapshot", sa.LargeBinary, nullable=False, comment="Customer, framed Avro"),
        sa.PrimaryKeyConstraint("customer_id", name="pk_snapshots"),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("sequence", IDENTITY, nullable=False, autoincrement=True),
        sa.Column("id", GUID, nullable=False, comment="event id"),
        sa.Column("aggregatetype", sa.Text, nullable=False),
        sa.Column("aggregateid", GUID, nullable=False, comment="customer id, the record key"),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False, comment="CustomerEvent, Avro in single-object encoding"),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
        sa.Column("sent_topic_id", sa.Text, comment="the topic it was sent to; sent again when that topic is another"),
        sa.Column("settled_at", TIME),
        sa.Column("outcome", sa.Text, comment="as in Reply, in lower case; rejected rows stay unsettled"),
        sa.Column("reasons", sa.JSON, comment="[{field, code, text}]"),
        sa.Column("account_number", sa.Text),
        sa.Column("version", sa.BigInteger, comment="version of the customer in which the event took effect"),
        sa.PrimaryKeyConstraint("sequence", name="pk_outbox"),
        sa.UniqueConstraint("id", name="uq_outbox_id"),
        sqlite_autoincrement=True,
    )
    unsent = sa.text("sent_at IS NULL")
    op.create_index("ix_outbox_unsent", "outbox", ["sequence"], postgresql_where=unsent, sqlite_where=unsent)
    op.create_index("ix_outbox_aggregateid", "outbox", ["aggregateid"])


def _streams() -> None:
    op.create_table(
        "positions",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("topic_id", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("confirmed_at", TIME, comment="when the channel was last at the end of this partition"),
        sa.PrimaryKeyConstraint("topic", "topic_id", "partition", name="pk_positions"),
    )
    op.create_table(
        "topics",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("topic_id", sa.Text, nullable=False),
        sa.Column("partitions", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("topic", "topic_id", name="pk_topics"),
    )
    op.create_table(
        "resync_keys",
        sa.Column("customer_id", GUID, nullable=False),
        sa.PrimaryKeyConstraint("customer_id", name="pk_resync_keys"),
    )
