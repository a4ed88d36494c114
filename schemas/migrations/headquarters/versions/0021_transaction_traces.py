"""The traces of transactions.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Create the table, empty: transactions that were received before have no trace."""
    op.create_table(
        "transaction_traces",
        sa.Column("transaction_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("traceparent", sa.Text, nullable=False, comment="W3C trace of the record with which it came"),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("transaction_id", name="pk_transaction_traces"),
    )
    op.create_index("ix_transaction_traces_noted_at", "transaction_traces", ["noted_at"])
