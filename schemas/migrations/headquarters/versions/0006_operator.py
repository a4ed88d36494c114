"""Events, audited changes, orders, sales and statements have an operator.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns: null in every existing row."""
    for table, comment in (
        ("synchronization_log", "who made the change; null if unknown"),
        ("customer_audit", "who made the change; null if unknown"),
        ("retail_transactions", "who recorded it; null if unknown"),
        ("statements", "who closed the date; null if unknown, and for an adjustment"),
    ):
        op.add_column(table, sa.Column("operator", sa.Text, nullable=True, comment=comment))
