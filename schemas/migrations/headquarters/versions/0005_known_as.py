"""Customers have a field `known_as`.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column: null for every existing customer."""
    op.add_column("customers", sa.Column("known_as", sa.Text, nullable=True))
