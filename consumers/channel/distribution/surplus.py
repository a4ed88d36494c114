"""Surplus customers: those that a resync has not seen in the topic. The table `resync_keys` holds the ones it has."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine, delete, exists, or_, select, text

from tenten.consumers.channel.databases import channel_database
from tenten.consumers.channel.overlay import remove_customers
from tenten.schemas.tables.channel import customers, outbox, resync_keys
from tenten.sql.arrays import is_one_of
from tenten.sql.engine import consistent_view

_SURPLUS_ROWS: Final = 500
_KEY_ROWS: Final = 1_000


def remember_customers(engine: Engine, ids: Sequence[str]) -> None:
    """Record customers as seen. Idempotent."""
    database = channel_database(engine)
    for first in range(0, len(ids), _KEY_ROWS):
        with engine.begin() as connection:
            database.remember_keys(connection, ids[first : first + _KEY_ROWS])


def delete_surplus(engine: Engine) -> None:
    """Delete, in slices, every customer that was not seen, except pending ones and ones with unsettled events."""
    unsettled = exists().where(
        outbox.c.aggregateid == customers.c.customer_id,
        outbox.c.aggregatetype == "customer",
        outbox.c.settled_at.is_(None),
    )
    from_headquarters = or_(customers.c.version > 0, customers.c.account_number.is_not(None))
    unseen = ~exists().where(resync_keys.c.customer_id == customers.c.customer_id)
    surplus = (
        select(customers.c.customer_id)
        .where(from_headquarters, unseen, ~unsettled)
        .order_by(customers.c.customer_id)
        .limit(_SURPLUS_ROWS)
    )
    while True:
        with consistent_view(engine) as connection:
            candidates = list(connection.scalars(surplus))
        if not candidates:
            return
        with engine.begin() as connection:
            # Locked before they are selected again: a clerk may have edited one of them meanwhile.
            channel_database(engine).lock_versions(connection, candidates)
            still_surplus = surplus.where(is_one_of(connection, customers.c.customer_id, candidates))
            remove_customers(connection, list(connection.scalars(still_surplus)))


def forget_seen_customers(engine: Engine) -> None:
    """Empty the table of seen customers. Idempotent."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE resync_keys"))
        return
    slice_of_keys = select(resync_keys.c.customer_id).limit(_KEY_ROWS)
    deleted = 1
    while deleted:
        with engine.begin() as connection:
            statement = delete(resync_keys).where(resync_keys.c.customer_id.in_(slice_of_keys))
            deleted = connection.execute(statement).rowcount
