"""Orders, cash-and-carry sales, statements, and the replies to them.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

GUID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "replies_due",
        sa.Column("sequence", sa.BigInteger, nullable=False, autoincrement=True),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("transaction_id", GUID, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False, comment="Reply, framed Avro"),
        sa.PrimaryKeyConstraint("sequence", name="pk_replies_due"),
    )
    op.create_table("release_due", sa.Column("transaction_id", GUID, nullable=False))
    op.create_table(
        "retail_transactions",
        sa.Column("transaction_id", GUID, nullable=False),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="order or cash_and_carry"),
        sa.Column("business_date", sa.Date, nullable=False),
        sa.Column("legal_entity", sa.Text, nullable=False),
        sa.Column("customer_id", GUID, nullable=True),
        sa.Column("account_number", sa.Text, nullable=True, comment="once synchronized; null without a customer"),
        sa.Column(
            "customer_event_id", GUID, nullable=True, comment="the event with which it brought its customer along"
        ),
        sa.Column("delivery_address_id", GUID, nullable=True),
        sa.Column("status", sa.Text, nullable=False, comment="waiting, blocked, rejected, synchronized"),
        sa.Column("reasons", sa.JSON, nullable=False, comment="[{field, code, text}]: why it is blocked or rejected"),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("total", sa.Numeric(precision=28, scale=6), nullable=False),
        sa.Column(
            "content", sa.JSON, nullable=False, comment="lines, charges, taxes, payments, delivery; decimals as text"
        ),
        sa.Column("answer", sa.BigInteger, nullable=False, comment="number of the newest answer to the channel"),
        sa.Column("repeats", sa.Integer, server_default="0", nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("changed_at", TIME, nullable=False, comment="since when it has this status"),
        sa.Column("alarmed_at", TIME, nullable=True, comment="when somebody was told that it waits for too long"),
        sa.PrimaryKeyConstraint("transaction_id", name="pk_retail_transactions"),
    )
    op.create_index(
        "ix_retail_transactions_day",
        "retail_transactions",
        ["channel_id", "business_date"],
        unique=False,
        postgresql_where=sa.text("kind = 'cash_and_carry'"),
    )
    op.create_index(
        "ix_retail_transactions_open",
        "retail_transactions",
        ["customer_id"],
        unique=False,
        postgresql_where=sa.text("status IN ('waiting', 'blocked')"),
    )
    op.create_table(
        "sales_order_lines",
        sa.Column("legal_entity", sa.Text, nullable=False),
        sa.Column("sales_order", sa.Text, nullable=False),
        sa.Column("line_number", sa.Integer, nullable=False, comment="from 1"),
        sa.Column("sku", sa.Text, nullable=False),
        sa.Column("quantity", sa.Numeric(precision=28, scale=6), nullable=False),
        sa.Column("price", sa.Numeric(precision=28, scale=6), nullable=False),
        sa.Column("amount", sa.Numeric(precision=28, scale=6), nullable=False),
        sa.PrimaryKeyConstraint("legal_entity", "sales_order", "line_number", name="pk_sales_order_lines"),
    )
    op.create_table(
        "sales_order_sequences",
        sa.Column("legal_entity", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False, comment="each # is a digit: SO-########"),
        sa.Column(
            "next", sa.BigInteger, nullable=False, comment="the first number not taken yet; there is never a gap"
        ),
        sa.PrimaryKeyConstraint("legal_entity", name="pk_sales_order_sequences"),
    )
    op.create_table(
        "sales_orders",
        sa.Column("legal_entity", sa.Text, nullable=False),
        sa.Column("sales_order", sa.Text, nullable=False),
        sa.Column("transaction_id", GUID, nullable=False),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("business_date", sa.Date, nullable=False),
        sa.Column("customer_id", GUID, nullable=True),
        sa.Column("account_number", sa.Text, nullable=True),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("total", sa.Numeric(precision=28, scale=6), nullable=False),
        sa.Column("delivery_mode", sa.Text, nullable=False),
        sa.Column("delivery_address", sa.JSON, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("legal_entity", "sales_order", name="pk_sales_orders"),
        sa.UniqueConstraint("transaction_id", name="uq_sales_orders_transaction_id"),
    )
    op.create_table(
        "statement_lines",
        sa.Column("transaction_id", GUID, nullable=False, comment="so that it is in one statement at most"),
        sa.Column("statement_id", GUID, nullable=False),
        sa.Column("account_number", sa.Text, nullable=True),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("total", sa.Numeric(precision=28, scale=6), nullable=False),
        sa.PrimaryKeyConstraint("transaction_id", name="pk_statement_lines"),
    )
    op.create_index("ix_statement_lines_statement_id", "statement_lines", ["statement_id"], unique=False)
    op.create_table(
        "statement_listed",
        sa.Column("statement_id", GUID, nullable=False),
        sa.Column("transaction_id", GUID, nullable=False),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("owned", sa.Boolean, nullable=False, comment="false: an earlier statement lists it, and posts it"),
        sa.PrimaryKeyConstraint("statement_id", "transaction_id", name="pk_statement_listed"),
    )
    op.create_index(
        "uq_statement_listed_owned",
        "statement_listed",
        ["transaction_id", "channel_id"],
        unique=True,
        postgresql_where=sa.text("owned"),
    )
    op.create_table(
        "statements",
        sa.Column("statement_id", GUID, nullable=False, comment="of the end of day; an adjustment's is made from it"),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("business_date", sa.Date, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, comment="of that channel and day, from 1"),
        sa.Column("kind", sa.Text, nullable=False, comment="end_of_day, or adjustment: what the channel did not list"),
        sa.Column("status", sa.Text, nullable=False, comment="waiting, blocked, rejected, posted"),
        sa.Column("reasons", sa.JSON, nullable=False, comment="[{field, code, text}]: why it is not posted yet"),
        sa.Column(
            "control_totals",
            sa.JSON,
            nullable=True,
            comment="[{currency, payment_method, amount}] as the channel has them",
        ),
        sa.Column("totals", sa.JSON, nullable=False, comment="once posted: {transactions, amounts} of its lines"),
        sa.Column("answer", sa.BigInteger, nullable=False, comment="number of the newest answer to the channel"),
        sa.Column("repeats", sa.Integer, server_default="0", nullable=False),
        sa.Column("closed_at", TIME, nullable=False, comment="the channel's clock"),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("posted_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("statement_id", name="pk_statements"),
        sa.UniqueConstraint(
            "channel_id", "business_date", "number", name="uq_statements_channel_id_business_date_number"
        ),
    )
    op.create_index(
        "ix_statements_open",
        "statements",
        ["received_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('waiting', 'blocked')"),
    )
