"""When the key of a channel changed, or a suspension began or ended, last.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the column; for channels with a key, or that are suspended, with the last time that is known."""
    comment = "last change of its key or suspension; null: never"
    op.add_column("channels", sa.Column("acceptance_changed_at", TIME, comment=comment))
    op.execute(
        """
        UPDATE channels SET acceptance_changed_at = greatest(
            suspended_at,
            (SELECT max(greatest(added_at, revoked_at)) FROM channel_keys WHERE channel_id = channels.channel_id)
        )
        """
    )
