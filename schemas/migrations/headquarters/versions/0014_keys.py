"""Keys of headquarters and of its channels, by which records prove their writer.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, empty: headquarters makes its key pair when its database is upgraded or a worker starts."""
    op.create_table(
        "headquarters_keys",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False, comment="always 1"),
        sa.Column(
            "private_key",
            sa.LargeBinary,
            nullable=False,
            comment="X25519, 32 bytes; whoever has it is headquarters",
        ),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_headquarters_keys"),
    )
    op.create_table(
        "channel_keys",
        sa.Column("kid", sa.Text, nullable=False, comment="id of the key, which its records name"),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False, comment="X25519, 32 bytes"),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("added_by", sa.Text, nullable=True, comment="operator; null if unknown"),
        sa.Column("added_from", sa.Text, nullable=False, comment="how it came: the command, or joining"),
        sa.Column(
            "revoked_at", TIME, nullable=True, comment="null while it is valid; a revoked key never becomes valid again"
        ),
        sa.PrimaryKeyConstraint("kid", name="pk_channel_keys"),
    )
    op.create_index(
        "uq_channel_keys_valid",
        "channel_keys",
        ["channel_id"],
        unique=True,
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
