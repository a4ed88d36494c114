"""The channel's own key pair, by which its records prove their writer, and what the relay last signed with.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    """Create the tables, empty: a channel has no key before it has joined."""
    op.create_table(
        "identity",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False, comment="always 1"),
        sa.Column("kid", sa.Text, nullable=False, comment="id of the key, which its records name"),
        sa.Column(
            "private_key",
            sa.LargeBinary,
            nullable=False,
            comment="X25519, 32 bytes; whoever has it is this channel",
        ),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("headquarters_public_key", sa.LargeBinary, nullable=False),
        sa.Column("joined_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identity"),
    )
    op.create_table(
        "relay_state",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False, comment="always 1"),
        sa.Column("kid", sa.Text, nullable=True, comment="id of the key with which it signed; null without a key"),
        sa.Column("is_suspended", sa.Boolean, nullable=False, comment="headquarters has suspended the channel"),
        sa.PrimaryKeyConstraint("id", name="pk_relay_state"),
    )
