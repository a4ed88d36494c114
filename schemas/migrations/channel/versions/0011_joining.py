"""The key with which a channel asks to join, until headquarters has accepted it.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    """Create the table, empty."""
    op.create_table(
        "joining",
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("private_key", sa.LargeBinary, nullable=False, comment="X25519, 32 bytes; empty after joining"),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("nonce", sa.Text, nullable=False, comment="names the attempt in headquarters' answer"),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("joined_at", TIME, comment="null until headquarters has accepted the key"),
        sa.PrimaryKeyConstraint("token_id", name="pk_joining"),
    )
