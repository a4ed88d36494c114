"""Customers have a field `known_as`; search names have no accents; a resync can be requested.

A migration is frozen: it declares its types and rules itself, so that later releases do not change it.
"""

import unicodedata
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

GUID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
ROWS = 1_000
LETTERS = str.maketrans(
    {
        "ß": "ss",
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "ħ": "h",
        "\u0131": "i",
        "ł": "l",
        "ŧ": "t",
        "þ": "th",
    }
)


def upgrade() -> None:
    """Add the column and the table, fold the search names, and request a resync.

    Headquarters may have been upgraded earlier: the channel has then read customers without the new field.
    """
    op.add_column("customers", sa.Column("known_as", sa.Text, nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        # SQLite keeps no comments.
        comment = "all names, folded for the clerk's search"
        op.alter_column("customers", "search_name", existing_type=sa.Text, existing_nullable=False, comment=comment)
    op.create_table(
        "resync_requests",
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("reason", name="pk_resync_requests"),
    )
    fold_search_names()
    request_resync("customers have gained the field known_as")


def fold_search_names() -> None:
    """Remove the accents from the stored search names, which are in lower case already."""
    customers = sa.table("customers", sa.column("customer_id", GUID), sa.column("search_name", sa.Text))
    own = customers.c.customer_id
    first = sa.select(own, customers.c.search_name).order_by(own).limit(ROWS)
    update = (
        sa.update(customers).where(own == sa.bindparam("customer", type_=GUID)).values(search_name=sa.bindparam("name"))
    )
    connection = op.get_bind()
    rows = connection.execute(first).all()
    while rows:
        folded = [
            {"customer": row.customer_id, "name": fold(row.search_name)}
            for row in rows
            if not row.search_name.isascii()
        ]
        if folded:
            connection.execute(update, folded)
        rows = connection.execute(first.where(own > rows[-1].customer_id)).all()


def fold(text: str) -> str:
    """The text without accents."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(each for each in decomposed if not unicodedata.combining(each)).translate(LETTERS)


def request_resync(reason: str) -> None:
    """Request a resync, unless the channel has read nothing yet."""
    requests = sa.table("resync_requests", sa.column("reason", sa.Text), sa.column("requested_at", TIME))
    connection = op.get_bind()
    if connection.scalar(sa.text("SELECT count(*) FROM positions")):
        now = datetime.now(UTC)
        requested_at = now if connection.dialect.name == "postgresql" else now.isoformat(timespec="microseconds")
        connection.execute(sa.insert(requests).values(reason=reason, requested_at=requested_at))
