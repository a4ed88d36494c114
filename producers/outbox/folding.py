"""Folding: changes of a customer that were certainly never sent become part of the customer's next change.

A customer that is edited a thousand times without a connection has one event to send then, not a thousand. Only events
after the relay's reservation are folded (`queue.py`), and only those that no order or sale carries along: headquarters
knows an embedded event by its id, and may receive it at any time.
"""

from collections.abc import Collection
from datetime import datetime
from itertools import takewhile
from typing import Final

from sqlalchemy import Connection, text, update

from tenten.producers.outbox.customer_events import OutboxEvent
from tenten.schemas.tables.channel import outbox
from tenten.sql.arrays import is_one_of

FOLDED: Final = "folded"
"""The outcome of an event that has become part of a later one."""

# The relay raises its reservation only after this transaction.
_LOCK_RESERVATION_POSTGRESQL: Final = text("SELECT reserved_to FROM outbox_reservation FOR SHARE")

# The customer's events after the reservation and after the last transaction that may carry one of them.
_NEVER_SENT: Final = text(
    """
    SELECT event.id FROM outbox AS event JOIN outbox_queue ON outbox_queue.sequence = event.sequence
    WHERE event.aggregateid = :customer_id AND event.aggregatetype = 'customer'
          AND event.settled_at IS NULL AND event.outcome IS NULL
          AND event.sequence > (SELECT reserved_to FROM outbox_reservation)
          AND event.sequence > (
              SELECT coalesce(max(sold.sequence), 0)
              FROM transactions JOIN outbox AS sold ON sold.id = transactions.transaction_id
              WHERE transactions.customer_id = :customer_id
          )
    """
)
_DELETE_ENTRIES: Final = text(
    "DELETE FROM outbox_queue WHERE sequence IN (SELECT sequence FROM outbox WHERE id = :event_id)"
)


def foldable(
    connection: Connection, customer_id: str, events: Collection[OutboxEvent], operator: str | None
) -> list[OutboxEvent]:
    """The newest events of a customer that a change by this operator can take in, oldest first.

    `events` are all of its overlay.

    The customer's row must be locked. Until the transaction ends, the relay does not read these events.
    """
    unanswered = [event for event in events if not event.settled and not event.rejected]
    if not unanswered or unanswered[-1].event.operator != operator:
        return []
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_RESERVATION_POSTGRESQL)
    never_sent = {str(event_id) for event_id in connection.scalars(_NEVER_SENT, {"customer_id": customer_id})}
    newest_first = takewhile(
        lambda event: event.event.event_id in never_sent and event.event.operator == operator, reversed(list(events))
    )
    return list(newest_first)[::-1]


def settle_folded(connection: Connection, event_ids: Collection[str], now: datetime) -> None:
    """Settle these events as folded. Their ids stay, because a call that is repeated is recognised by them.

    They no longer belong to their customer, so that they do not make its next change slower.
    """
    if not event_ids:
        return
    connection.execute(_DELETE_ENTRIES, [{"event_id": event_id} for event_id in event_ids])
    connection.execute(
        update(outbox)
        .where(is_one_of(connection, outbox.c.id, event_ids))
        .values(settled_at=now, outcome=FOLDED, payload=b"", aggregateid=outbox.c.id)
    )
