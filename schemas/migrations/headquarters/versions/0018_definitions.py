"""Legal entities define the attributes and groups of their customers.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the columns; existing legal entities define nothing, and so allow everything."""
    for name, empty, comment in (
        ("customer_groups", "[]", "sorted; empty: any group"),
        ("attributes", "{}", "definitions by name; empty: any"),
    ):
        column = sa.Column(name, sa.JSON, nullable=False, server_default=empty, comment=comment)
        op.add_column("legal_entities", column)
        op.alter_column("legal_entities", name, server_default=None)
