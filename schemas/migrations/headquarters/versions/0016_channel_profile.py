"""Channels have a cut-off hour, and may do without some or all customers in their own database.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the columns; existing channels go on as they are."""
    hour = sa.Column(
        "cut_off_hour", sa.Integer, nullable=False, server_default="0", comment="when a business day begins"
    )
    op.add_column("channels", hour)
    kept = sa.Column("offline_customers", sa.Text, nullable=False, server_default="all", comment="all, own or none")
    op.add_column("channels", kept)
