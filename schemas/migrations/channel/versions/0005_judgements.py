"""The outbox has the number of the judgement that each reply states; replies to transactions are a record of their own.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column. Replies of the last release had no number: they count as 0, which every other exceeds."""
    comment = "of the newest reply to a customer event; 0 before the first"
    op.add_column("outbox", sa.Column("judgement", sa.BigInteger, nullable=False, server_default="0", comment=comment))
    if op.get_bind().dialect.name == "postgresql":
        # SQLite keeps no comments.
        for table in ("transactions", "end_of_days"):
            comment = "pending, then as in TransactionReply"
            op.alter_column(table, "status", existing_type=sa.Text, existing_nullable=False, comment=comment)
