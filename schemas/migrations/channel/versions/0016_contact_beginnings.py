"""The index of phone numbers and e-mail addresses finds their beginnings, in a PostgreSQL database of any collation.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Build the index again with the order of `LIKE`. That of SQLite has it."""
    if op.get_bind().dialect.name != "postgresql":
        return
    name = "ix_customer_contacts_value"
    op.drop_index(name, "customer_contacts")
    op.create_index(name, "customer_contacts", ["value"], postgresql_ops={"value": "text_pattern_ops"})
