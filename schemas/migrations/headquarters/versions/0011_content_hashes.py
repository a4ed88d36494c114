"""The log has a hash of each event's content, and counts the events that had its id with other content.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns. The content of events that were logged before is not known."""
    op.add_column(
        "synchronization_log",
        sa.Column(
            "content_hash", sa.BigInteger, nullable=True, comment="null if its content never arrived, or was not hashed"
        ),
    )
    op.add_column(
        "synchronization_log",
        sa.Column(
            "conflicts",
            sa.Integer,
            nullable=False,
            server_default="0",
            comment="rejected: its id with other content",
        ),
    )
