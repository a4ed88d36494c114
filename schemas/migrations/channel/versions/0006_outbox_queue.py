"""What is still to be sent is a table of its own, the outbox queue; the outbox no longer records when a row was sent.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create both tables, queue the rows that earlier releases have not sent, and drop their marks."""
    op.create_table(
        "outbox_queue",
        sa.Column("sequence", SEQUENCE, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_outbox_queue"),
    )
    op.create_table(
        "outbox_resends",
        sa.Column("sequence", SEQUENCE, nullable=False, autoincrement=False),
        sa.Column("resend_at", TIME, nullable=False, comment="when it is queued again, if it is still unsettled then"),
        sa.Column("attempts", sa.Integer, nullable=False, comment="how often it was queued again"),
        sa.PrimaryKeyConstraint("sequence", name="pk_outbox_resends"),
    )
    op.create_index("ix_outbox_resends_resend_at", "outbox_resends", ["resend_at"])
    op.execute(
        "INSERT INTO outbox_queue (sequence) "
        "SELECT sequence FROM outbox WHERE sent_at IS NULL AND settled_at IS NULL AND outcome IS NULL"
    )
    op.drop_index("ix_outbox_unsent", "outbox")
    op.drop_column("outbox", "sent_at")
    op.drop_column("outbox", "sent_topic_id")
