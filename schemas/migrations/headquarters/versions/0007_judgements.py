"""Judgements of events are counted; statements have an input position; replies to transactions are their own record.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns. Every logged event counts as judged once; the positions of earlier statements are not known.

    Replies that the last release has enqueued stay as they are: the worker publishes them in the new form.
    """
    op.add_column(
        "synchronization_log",
        sa.Column(
            "judgement", sa.Integer, nullable=False, server_default="1", comment="counts the judgements of the event"
        ),
    )
    comment = "of the end of day in retail-transactions; null if stored by 0.1.0"
    op.add_column("statements", sa.Column("partition", sa.Integer, nullable=True, comment=comment))
    op.add_column("statements", sa.Column("offset", sa.BigInteger, nullable=True))
    op.alter_column(
        "replies_due",
        "payloads",
        existing_type=ARRAY(sa.LargeBinary),
        existing_nullable=False,
        comment="TransactionReply, framed Avro",
    )
