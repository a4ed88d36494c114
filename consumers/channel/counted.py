"""The counts of a channel's loop for `/metrics`. Costs nothing in a process that does not serve it."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from tenten.consumers.channel.settlement.replies import AnyReply
from tenten.consumers.channel.snapshots import Changes
from tenten.runtime.counting import count, is_counting, observe
from tenten.schemas.messages import EventKind, Outcome, Reply
from tenten.schemas.tables.channel import outbox
from tenten.sql.arrays import is_one_of


def creates_of(connection: Connection, replies: Sequence[AnyReply]) -> list[datetime]:
    """When the new customers were recorded whose account numbers come with these replies, which are not settled yet."""
    if not is_counting():
        return []
    numbered = [
        reply.event_id for reply in replies if isinstance(reply, Reply) and reply.outcome is Outcome.SYNCHRONIZED
    ]
    if not numbered:
        return []
    created = outbox.c.type == EventKind.CREATED.type_name
    numbered_now = is_one_of(connection, outbox.c.id, numbered)
    query = select(outbox.c.created_at).where(numbered_now, created, outbox.c.settled_at.is_(None))
    return list(connection.scalars(query))


def count_batch(
    replies: int, changes: Changes | None, creates: Sequence[datetime], now: datetime, seconds: float
) -> None:
    """Count a committed batch; `creates` as of `creates_of`."""
    count("tenten_batches_total", 1, "channel")
    count("tenten_batch_records_total", replies, "settlement")
    count("tenten_batch_records_total", 0 if changes is None else changes.rows, "distribution")
    observe("tenten_batch_seconds", seconds, "channel")
    for created_at in creates:
        observe("tenten_create_to_number_seconds", max(0.0, (now - created_at).total_seconds()))
