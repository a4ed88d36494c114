"""How far a load of all customers is: a resync, or the first one.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "loading",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False, comment="always 1"),
        sa.Column("kind", sa.Text, nullable=False, comment="resync or first_load"),
        sa.Column("done", sa.BigInteger, comment="records so far; null: the positions tell"),
        sa.Column("total", sa.BigInteger, nullable=False, comment="records when it began"),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loading"),
    )
