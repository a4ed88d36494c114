"""Tokens with which stores join, answers to their requests, and the suspension of channels.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, empty, and the columns, null: no channel is suspended."""
    op.add_column("channels", sa.Column("suspended_at", TIME, comment="since when its records are not accepted"))
    op.add_column("channels", sa.Column("suspended_reason", sa.Text))
    op.create_table(
        "channel_tokens",
        sa.Column("token_id", sa.Text, nullable=False, comment="derived from the secret; may be shown"),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column(
            "verifier", sa.LargeBinary, nullable=False, comment="derived from the secret; proofs are checked with it"
        ),
        sa.Column(
            "has_password", sa.Boolean, nullable=False, comment="the store's password at Kafka follows from the secret"
        ),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("enrolled_at", TIME, nullable=False),
        sa.Column("enrolled_by", sa.Text, comment="the operator; null if unknown"),
        sa.Column("enrolled_from", sa.Text, nullable=False, comment="name of the machine"),
        sa.Column("withdrawn_at", TIME, comment="when a newer token replaced it, unused"),
        sa.Column("used_at", TIME),
        sa.Column("used_kid", sa.Text, comment="the key that joined with it"),
        sa.Column("used_from", sa.Text, comment="name of the machine, as the store gave it"),
        sa.Column(
            "refused", sa.Integer, nullable=False, server_default="0", comment="requests with another key after it"
        ),
        sa.Column("refused_at", TIME, comment="the last of them"),
        sa.PrimaryKeyConstraint("token_id", name="pk_channel_tokens"),
    )
    op.create_index("ix_channel_tokens_channel_id", "channel_tokens", ["channel_id"])
    op.create_table(
        "join_answers",
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("nonce", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False, comment="headquarters' proof, for the key of the request"),
        sa.Column(
            "is_proven", sa.Boolean, nullable=False, comment="whether the request proved that its writer has a token"
        ),
        sa.Column("answered_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("channel_id", "nonce", name="pk_join_answers"),
    )
