"""Events that headquarters cannot judge yet are held, with their original bytes.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

GUID = sa.Uuid(as_uuid=False)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table. Events that were rejected before stay rejected."""
    op.create_table(
        "held_events",
        sa.Column("held_id", sa.BigInteger, nullable=False, autoincrement=True),
        sa.Column("event_id", GUID, nullable=False),
        sa.Column("customer_id", GUID, nullable=False, comment="the key of the record"),
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False, comment="[{field, code, text}]: why it cannot be judged yet"),
        sa.Column("code", sa.Text, nullable=False, comment="of the first reason"),
        sa.Column("subject", sa.Text, nullable=False, comment="what must change: a channel or a legal entity"),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column(
            "value", sa.LargeBinary, nullable=False, comment="the original bytes; empty if the customer is erased"
        ),
        sa.Column("headers", sa.JSON, nullable=False, comment="[[name, value in hexadecimal or null]]"),
        sa.Column("bytes", sa.Integer, nullable=False, comment="of value and headers"),
        sa.Column("held_at", TIME, nullable=False),
        sa.Column("touched_at", TIME, nullable=True, comment="when headquarters last sent a touch for it"),
        sa.Column("touches", sa.Integer, nullable=False, server_default="0"),
        sa.Column("judged_at", TIME, nullable=True, comment="its reply may not be on the topic yet"),
        sa.PrimaryKeyConstraint("held_id", name="pk_held_events"),
        sa.UniqueConstraint("event_id", name="uq_held_events_event_id"),
    )
    op.create_index("ix_held_events_customer_id", "held_events", ["customer_id"])
    op.create_index("ix_held_events_code_subject", "held_events", ["code", "subject"])
