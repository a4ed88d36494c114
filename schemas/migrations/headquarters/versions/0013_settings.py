"""Legal entities and channels, which were in tenten.toml only, and the history of their changes.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, empty: `tenten database upgrade` fills them from tenten.toml."""
    op.create_table(
        "legal_entities",
        sa.Column("legal_entity", sa.Text, nullable=False),
        sa.Column("country", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("legal_entity", name="pk_legal_entities"),
    )
    op.create_table(
        "channels",
        sa.Column("channel_id", sa.Text, nullable=False),
        sa.Column("legal_entity", sa.Text, nullable=False),
        sa.Column("address_books", sa.JSON, nullable=False, comment="sorted; empty: all customers of the legal entity"),
        sa.Column("creation", sa.Text, nullable=False, comment="async or sync"),
        sa.Column("sync_seconds", sa.Double, nullable=False),
        sa.Column("time_zone", sa.Text, nullable=False),
        sa.Column("default_customer", sa.JSON, nullable=False, comment="defaults of new customers"),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("channel_id", name="pk_channels"),
    )
    op.create_table(
        "settings_history",
        sa.Column("change_id", sa.BigInteger, nullable=False, autoincrement=True),
        sa.Column("applied_at", TIME, nullable=False),
        sa.Column("operator", sa.Text, nullable=True, comment="null if unknown"),
        sa.Column("source", sa.Text, nullable=False, comment="the command that applied it"),
        sa.Column(
            "changes", sa.JSON, nullable=False, comment="{added, changed, removed}, each [{setting, before, after}]"
        ),
        sa.PrimaryKeyConstraint("change_id", name="pk_settings_history"),
    )
