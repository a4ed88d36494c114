"""Customer events inside transactions that headquarters knows already, because the channel has sent them before."""

from collections.abc import Sequence

from sqlalchemy import Engine, select

from tenten.consumers.headquarters.content_hash import content_hashes
from tenten.consumers.headquarters.transactions.classify import ForwardedEvent
from tenten.schemas.tables.headquarters import synchronization_log
from tenten.sql.arrays import is_one_of


def without_known(engine: Engine, events: Sequence[ForwardedEvent]) -> list[ForwardedEvent]:
    """These events without those that are logged for the same customer and with the same content: judged, and answered,
    or held.

    Raises: errors of the database.
    """
    if not events:
        return []
    table = synchronization_log.c
    query = select(table.event_id, table.customer_id, table.content_hash).where(table.content_hash.is_not(None))
    with engine.connect() as connection:
        ids = {event.event_id for event in events}
        known = {tuple(row) for row in connection.execute(query.where(is_one_of(connection, table.event_id, ids)))}
    hashes = content_hashes([event.value for event in events])
    return [
        event
        for event, content_hash in zip(events, hashes, strict=True)
        if (event.event_id, event.customer_id, content_hash) not in known
    ]
