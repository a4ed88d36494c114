"""Erasing customers is a privilege of a channel, which no existing channel has.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the column; existing channels may not erase."""
    comment = "customers of its legal entity"
    op.add_column(
        "channels", sa.Column("may_erase", sa.Boolean, nullable=False, server_default=sa.false(), comment=comment)
    )
