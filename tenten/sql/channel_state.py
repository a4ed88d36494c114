"""What a channel's own database tells about its state: for the heartbeat, which reads it all the time, and for status.

No statement reads a whole table, except the two that say so.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from tenten.runtime.settings import Settings
from tenten.schemas.tables.channel import customers, outbox, outbox_queue, positions, resync_keys, topics
from tenten.schemas.topics import CUSTOMERS

DUPLICATE_NUMBER: Final = "duplicate_account_number"
"""The code of the problem that customers share an account number."""

_REJECTED: Final = "rejected"
_DUPLICATES_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """A change that headquarters has neither settled nor rejected."""

    sequence: int
    created_at: datetime


def oldest_unsent_at(connection: Connection) -> datetime | None:
    """When the oldest change was made that is still to be sent; None without any."""
    query = (
        select(outbox.c.created_at)
        .join(outbox_queue, outbox_queue.c.sequence == outbox.c.sequence)
        .where(outbox.c.settled_at.is_(None), outbox.c.outcome.is_(None))
        .order_by(outbox_queue.c.sequence)
        .limit(1)
    )
    return connection.scalar(query)


def unsent_count(connection: Connection) -> int:
    """The number of changes that are still to be sent. Reads the outbox queue, which is empty in a quiet channel."""
    return connection.scalar(select(func.count()).select_from(outbox_queue)) or 0


def oldest_unsettled(connection: Connection, after: int = 0) -> Unsettled | None:
    """The oldest change after this row of the outbox that headquarters has neither settled nor rejected."""
    query = (
        select(outbox.c.sequence, outbox.c.created_at)
        .where(outbox.c.sequence > after, _is_unsettled())
        .order_by(outbox.c.sequence)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Unsettled(sequence=row.sequence, created_at=row.created_at)


def unsettled_count(connection: Connection, after: int) -> int:
    """The number of changes after this row that headquarters has neither settled nor rejected. Reads all these rows."""
    query = select(func.count()).select_from(outbox).where(outbox.c.sequence > after, _is_unsettled())
    return connection.scalar(query) or 0


def _is_unsettled() -> ColumnElement[bool]:
    is_not_rejected = or_(outbox.c.outcome.is_(None), outbox.c.outcome != _REJECTED)
    return and_(outbox.c.settled_at.is_(None), is_not_rejected)


def last_sequence(connection: Connection) -> int:
    """The last row of the outbox; 0 if it is empty."""
    return connection.scalar(select(func.max(outbox.c.sequence))) or 0


def complete_at(connection: Connection, settings: Settings) -> datetime | None:
    """When the channel was last known to have read every partition of `customers` to its end.

    None if a partition was never read to its end. The positions in an earlier topic of this name count until a resync
    has replaced them.
    """
    topic = settings.topic(CUSTOMERS)
    counts = {
        row.topic_id: row.partitions
        for row in connection.execute(select(topics.c.topic_id, topics.c.partitions).where(topics.c.topic == topic))
    }
    query = select(positions.c.topic_id, positions.c.confirmed_at).where(positions.c.topic == topic)
    read = connection.execute(query).all()
    confirmed = [row.confirmed_at for row in read if row.confirmed_at is not None]
    expected = sum(counts.get(topic_id, 0) for topic_id in {row.topic_id for row in read})
    return min(confirmed) if confirmed and len(confirmed) == expected else None


def read_up_to(connection: Connection, settings: Settings) -> int:
    """A number that grows when the channel reads records of `customers`."""
    is_read = positions.c.topic == settings.topic(CUSTOMERS)
    return connection.scalar(select(func.sum(positions.c.next_offset)).where(is_read)) or 0


def customers_count(connection: Connection) -> int:
    """The number of customers. Reads an index of the whole table."""
    return connection.scalar(select(func.count()).select_from(customers)) or 0


def duplicate_numbers_count(connection: Connection) -> int:
    """The number of account numbers that more than one customer has, at most a hundred.

    Reads an index of the whole table.
    """
    number = customers.c.account_number
    twice = select(number).where(number.is_not(None)).group_by(number).having(func.count() > 1).limit(_DUPLICATES_MAX)
    return connection.scalar(select(func.count()).select_from(twice.subquery())) or 0


def duplicate_numbers_text(channel: str, count: int) -> str:
    """The sentence about this many account numbers that customers of a channel share."""
    numbers = "an account number" if count == 1 else f"{count} account numbers"
    if count == _DUPLICATES_MAX:
        numbers = f"at least {numbers}"
    return (
        f"several customers of this channel share {numbers}: compare headquarters with its topic "
        f"(`tenten headquarters verify`), then read the customers again (`tenten channel resync {channel}`); if the "
        "problem remains, headquarters has assigned a number twice"
    )


def has_kept_customers(connection: Connection) -> bool:
    """Whether the last resync kept customers that it did not find in the topic."""
    return connection.execute(select(resync_keys.c.customer_id).limit(1)).first() is not None
