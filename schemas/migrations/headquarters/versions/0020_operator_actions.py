"""Actions of operators at the dashboard, and indexes for what it shows.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table, and the indexes: two of rejected rows only, and one of summaries."""
    op.create_table(
        "operator_actions",
        sa.Column("action_id", sa.BigInteger, nullable=False),
        sa.Column("acted_at", TIME, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("via", sa.Text, nullable=False, comment="how the operator signed in: token or proxy"),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column(
            "subject", sa.Text, nullable=False, comment="the customer, event, dead letter or channel; no personal data"
        ),
        sa.Column("reason", sa.Text, comment="as the operator gave it"),
        sa.Column(
            "outcome", sa.Text, comment="done or failed; null while it is under way, and if the process ended then"
        ),
        sa.PrimaryKeyConstraint("action_id", name="pk_operator_actions"),
    )
    op.create_index("ix_operator_actions_acted_at", "operator_actions", ["acted_at"])
    log, sold = "synchronization_log", "retail_transactions"
    rejected = sa.text("outcome = 'rejected'")
    op.create_index("ix_synchronization_log_rejected", log, ["received_at"], postgresql_where=rejected)
    rejected = sa.text("status = 'rejected'")
    op.create_index("ix_retail_transactions_rejected", sold, ["received_at"], postgresql_where=rejected)
    op.create_index(
        "ix_synchronization_log_summary",
        log,
        ["received_at", "customer_id"],
        postgresql_using="brin",
        postgresql_ops={"customer_id": "uuid_bloom_ops"},
        postgresql_with={"autosummarize": "on"},
    )
