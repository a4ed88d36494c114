"""With what the relay last sent: also whether headquarters accepted it, and when that last changed.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the table again, empty: a channel with a key sends what is not settled once more."""
    op.drop_table("relay_state")
    op.create_table(
        "relay_state",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False, comment="always 1"),
        sa.Column("kid", sa.Text, nullable=True, comment="id of the key with which it signed; null without a key"),
        sa.Column(
            "is_refused",
            sa.Boolean,
            nullable=False,
            comment="headquarters accepts no record: suspended, or another key",
        ),
        sa.Column("acceptance_changed_at", sa.Text, comment="as published; null: never"),
        sa.PrimaryKeyConstraint("id", name="pk_relay_state"),
    )
