"""Orders, cash-and-carry sales, end-of-day events and loyalty cards.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

GUID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    """Create the tables, and update the comments of the outbox."""
    if op.get_bind().dialect.name == "postgresql":
        # SQLite keeps no comments.
        op.alter_column("outbox", "aggregateid", existing_type=GUID, comment="customer id or transaction id")
        payload = "the record, Avro in single-object encoding"
        op.alter_column("outbox", "payload", existing_type=sa.LargeBinary, comment=payload)
    op.create_table(
        "end_of_days",
        sa.Column("end_of_day_id", GUID, nullable=False),
        sa.Column("business_date", sa.Date, nullable=False),
        sa.Column("transactions", sa.Integer, nullable=False, comment="how many it lists"),
        sa.Column("control_totals", sa.JSON, nullable=False, comment="[{currency, payment_method, amount}]"),
        sa.Column("status", sa.Text, nullable=False, comment="pending, then as in Reply"),
        sa.Column("reasons", sa.JSON, nullable=True, comment="[{field, code, text}]"),
        sa.Column("answer", sa.BigInteger, nullable=False, comment="number of the newest answer; 0 before the first"),
        sa.Column("closed_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("end_of_day_id", name="pk_end_of_days"),
    )
    op.create_index("ix_end_of_days_business_date", "end_of_days", ["business_date"], unique=False)
    op.create_table(
        "loyalty_cards",
        sa.Column("card_number", sa.Text, nullable=False),
        sa.Column("customer_id", GUID, nullable=False),
        sa.Column("status", sa.Text, nullable=False, comment="kept, until the account number is there; then issued"),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("issued_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("card_number", name="pk_loyalty_cards"),
    )
    op.create_index("ix_loyalty_cards_customer_id", "loyalty_cards", ["customer_id"], unique=False)
    op.create_index(
        "ix_loyalty_cards_kept",
        "loyalty_cards",
        ["card_number"],
        unique=False,
        postgresql_where=sa.text("status = 'kept'"),
        sqlite_where=sa.text("status = 'kept'"),
    )
    op.create_table(
        "transactions",
        sa.Column("transaction_id", GUID, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="order or cash_and_carry"),
        sa.Column("business_date", sa.Date, nullable=False),
        sa.Column("customer_id", GUID, nullable=True),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("total", sa.Text, nullable=False, comment="a decimal as text: exact in both databases"),
        sa.Column(
            "content", sa.JSON, nullable=False, comment="lines, charges, taxes, payments, delivery; decimals as text"
        ),
        sa.Column("status", sa.Text, nullable=False, comment="pending, then as in Reply"),
        sa.Column("sales_order", sa.Text, nullable=True),
        sa.Column("reasons", sa.JSON, nullable=True, comment="[{field, code, text}]"),
        sa.Column("answer", sa.BigInteger, nullable=False, comment="number of the newest answer; 0 before the first"),
        sa.Column("end_of_day_id", GUID, nullable=True, comment="the end of day that lists it"),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("transaction_id", name="pk_transactions"),
    )
    op.create_index("ix_transactions_business_date", "transactions", ["business_date"], unique=False)
    op.create_index("ix_transactions_customer_id", "transactions", ["customer_id"], unique=False)
