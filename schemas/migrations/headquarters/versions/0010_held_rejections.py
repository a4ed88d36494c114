"""A person may decide to reject an event that is held.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column; nothing is decided yet."""
    op.add_column(
        "held_events",
        sa.Column(
            "rejection", sa.JSON, nullable=True, comment="[{field, code, text}]: a person has decided to reject it"
        ),
    )
