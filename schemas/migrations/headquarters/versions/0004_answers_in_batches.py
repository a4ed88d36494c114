"""Unpublished replies to transactions are stored in one row per SQL transaction, not one row per reply.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Move the unpublished replies to the new table, in their order."""
    # Wait for workers that are writing replies; a worker that comes later fails on the new table and retries.
    op.execute("LOCK TABLE replies_due IN ACCESS EXCLUSIVE MODE")
    op.execute("CREATE TEMPORARY TABLE replies_due_before ON COMMIT DROP AS SELECT * FROM replies_due")
    op.drop_table("replies_due")
    op.create_table(
        "replies_due",
        sa.Column("sequence", sa.BigInteger(), nullable=False, autoincrement=True),
        sa.Column("answer_count", sa.Integer(), nullable=False, comment="the length of each of the lists"),
        sa.Column("channel_ids", ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "transaction_ids", ARRAY(sa.Text()), nullable=False, comment="as text: they only become record headers"
        ),
        sa.Column("payloads", ARRAY(sa.LargeBinary()), nullable=False, comment="Reply, framed Avro"),
        sa.PrimaryKeyConstraint("sequence", name="pk_replies_due"),
    )
    op.execute(
        """
        ALTER TABLE replies_due
            ALTER channel_ids SET STORAGE EXTERNAL,
            ALTER transaction_ids SET STORAGE EXTERNAL,
            ALTER payloads SET STORAGE EXTERNAL
        """
    )
    op.execute(
        """
        INSERT INTO replies_due (answer_count, channel_ids, transaction_ids, payloads)
        SELECT count(*), array_agg(channel_id ORDER BY sequence), array_agg(transaction_id::text ORDER BY sequence),
               array_agg(payload ORDER BY sequence)
        FROM (SELECT *, row_number() OVER (ORDER BY sequence) - 1 AS place FROM replies_due_before) AS placed
        GROUP BY place / 10000
        ORDER BY place / 10000
        """
    )
