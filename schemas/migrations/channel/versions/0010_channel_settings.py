"""A channel stores the settings that headquarters has published for it.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create the table; the settings arrive with the next start of the channel."""
    time = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
    op.create_table(
        "channel_settings",
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("topic_id", sa.Text, nullable=False, comment="of channel-settings"),
        sa.Column("offset", sa.BigInteger, nullable=False, comment="of the record in the partition of this channel"),
        sa.Column("settings", sa.JSON, nullable=False, comment="ChannelSettings; times as text, bytes in hexadecimal"),
        sa.Column("received_at", time, nullable=False),
        sa.PrimaryKeyConstraint("channel_id", name="pk_channel_settings"),
    )
