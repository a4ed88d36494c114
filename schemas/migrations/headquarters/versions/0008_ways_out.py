"""Interrupted commands that are to be continued, and the results of comparisons of database and topic.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, empty."""
    op.create_table(
        "unfinished_commands",
        sa.Column("command", sa.Text, nullable=False, comment="recover or republish"),
        sa.Column("topic_id", sa.Text, nullable=True, comment="of the topic to which customers are sent again"),
        sa.Column("customer_id", sa.Uuid(as_uuid=False), nullable=True, comment="the last customer that was sent"),
        sa.Column("started_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("command", name="pk_unfinished_commands"),
    )
    op.create_table(
        "verifications",
        sa.Column("finished_at", TIME, nullable=False),
        sa.Column("customers", sa.BigInteger, nullable=False, comment="in the database"),
        sa.Column("missing", sa.BigInteger, nullable=False, comment="in the database and not on the topic"),
        sa.Column("surplus", sa.BigInteger, nullable=False, comment="on the topic and not in the database"),
        sa.Column("different", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("finished_at", name="pk_verifications"),
    )
