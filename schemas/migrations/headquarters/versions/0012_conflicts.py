"""The events whose id came with other content can be counted without reading the log.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the index; it holds next to nothing."""
    op.create_index(
        "ix_synchronization_log_conflicts",
        "synchronization_log",
        ["event_id"],
        postgresql_where=sa.text("conflicts > 0"),
    )
