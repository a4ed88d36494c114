"""The filter by which a channel's customers were chosen stands beside its positions, so that a change is noticed.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; the channel's process stores the filter that it finds at its first start."""
    comment = "by which the rows were chosen, as JSON; null where all records are read"
    op.add_column("positions", sa.Column("filter", sa.Text, comment=comment))
