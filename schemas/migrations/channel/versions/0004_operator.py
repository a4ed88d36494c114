"""Orders, sales, ends of day and loyalty cards have an operator.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns: null in every existing row."""
    for table, comment in (
        ("transactions", "who recorded it"),
        ("end_of_days", "who closed the date"),
        ("loyalty_cards", "who requested it"),
    ):
        op.add_column(table, sa.Column("operator", sa.Text, nullable=True, comment=comment))
