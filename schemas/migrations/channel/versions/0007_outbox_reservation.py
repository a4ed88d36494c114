"""The relay reserves the rows that it may read; later rows can be folded into the next change of their customer.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the reservation; an earlier release may have sent every row that exists."""
    op.create_table(
        "outbox_reservation",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False, comment="always 1"),
        sa.Column(
            "reserved_to",
            sa.BigInteger,
            nullable=False,
            comment="the relay may have read the rows up to this sequence",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_outbox_reservation"),
    )
    op.execute("INSERT INTO outbox_reservation SELECT 1, coalesce(max(sequence), 0) FROM outbox")
