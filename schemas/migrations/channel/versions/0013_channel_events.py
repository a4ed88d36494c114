"""Events for those who follow the channel through HTTP, and the idempotency keys of their requests.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_GUID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
_TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    """Create the tables; events begin with the upgrade."""
    op.create_table(
        "channel_events",
        sa.Column("sequence", sa.BigInteger, nullable=False, autoincrement=False, comment="rises with every commit"),
        sa.Column(
            "type", sa.Text, nullable=False, comment="numbered, synchronized, rejected, held, erased, posted, ..."
        ),
        sa.Column("subject", sa.Text, nullable=False, comment="customer, order, sale or end_of_day"),
        sa.Column("subject_id", _GUID, nullable=False),
        sa.Column("number", sa.Text, comment="account number or sales order"),
        sa.Column("codes", sa.JSON, comment="of the reasons"),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_channel_events"),
    )
    op.create_table(
        "channel_event_state",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False, comment="always 1"),
        sa.Column("last_sequence", sa.BigInteger, nullable=False, comment="of the newest event"),
        sa.Column("pruned_to", sa.BigInteger, nullable=False, comment="events up to this sequence may be deleted"),
        sa.PrimaryKeyConstraint("id", name="pk_channel_event_state"),
    )
    op.execute("INSERT INTO channel_event_state VALUES (1, 0, 0)")
    op.create_table(
        "request_keys",
        sa.Column("request_key", _GUID, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("request_key", name="pk_request_keys"),
    )
    op.create_index("ix_request_keys_recorded_at", "request_keys", ["recorded_at"])
