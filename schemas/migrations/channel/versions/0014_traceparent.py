"""The trace of whoever wrote a row of the outbox.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column; rows that exist have no trace."""
    comment = "W3C trace of whoever wrote it; null without one"
    op.add_column("outbox", sa.Column("traceparent", sa.Text, comment=comment))
