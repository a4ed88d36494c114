"""End-of-day events of a batch, within its SQL transaction: each becomes a statement with a list of transactions.

A transaction is posted by the first end of day of its channel that lists it. Transactions that a channel lost, because
it was restored from a backup, get a statement of their own: an adjustment.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update

from tenten.consumers.headquarters.record_positions import is_read_again
from tenten.consumers.headquarters.transactions.classify import ClassifiedBatch, ClassifiedEndOfDay
from tenten.consumers.headquarters.transactions.reply_outbox import QueuedReply, id_conflict_reply
from tenten.rules.operator_rule import storable_operator
from tenten.rules.transaction_content import totals_as_json
from tenten.schemas.messages import TransactionStatus, reasons_as_json, reasons_from_json
from tenten.schemas.tables.headquarters import statements

END_OF_DAY: Final = "end_of_day"
ADJUSTMENT: Final = "adjustment"


def record_ends_of_day(
    headquarters: Connection, batch: ClassifiedBatch, stored_to: Mapping[int, int], now: datetime
) -> list[QueuedReply]:
    """Insert the new ones as statements, in order; return the immediate replies.

    `stored_to`: the positions before the batch.
    """
    replies: list[QueuedReply] = []
    for end_of_day in batch.ends_of_day:
        event = end_of_day.event
        before = headquarters.execute(
            select(statements).where(statements.c.statement_id == event.transaction_id)
        ).first()
        if before is not None and before.channel_id != event.channel_id:
            partition, offset = batch.positions.partitions[end_of_day.row], batch.positions.offsets[end_of_day.row]
            replies.append(id_conflict_reply(event.transaction_id, event.channel_id, partition, offset))
        elif before is not None and (
            before.status != TransactionStatus.REJECTED
            or is_read_again(batch.positions, end_of_day.row, (before.partition, before.offset), stored_to)
        ):
            replies.extend(_repeated(headquarters, before))
        else:
            replies.extend(_new_statement(headquarters, batch, end_of_day, before, now))
    return replies


def _repeated(headquarters: Connection, before: Row[Any]) -> Iterable[QueuedReply]:
    headquarters.execute(
        update(statements)
        .where(statements.c.statement_id == before.statement_id)
        .values(repeats=statements.c.repeats + 1)
    )
    if before.answer > 0:
        yield statement_reply(before)


def statement_reply(row: Row[Any]) -> QueuedReply:
    """The reply with the status that a statement has in its row."""
    return QueuedReply(
        channel_id=row.channel_id,
        transaction_id=row.statement_id,
        status=TransactionStatus(row.status),
        reasons=reasons_from_json(row.reasons),
        sequence=row.answer,
        input_partition=row.partition,
        input_offset=row.offset,
    )


def _new_statement(
    headquarters: Connection,
    batch: ClassifiedBatch,
    end_of_day: ClassifiedEndOfDay,
    before: Row[Any] | None,
    now: datetime,
) -> Iterable[QueuedReply]:
    """Insert a statement, replacing a rejected one."""
    event = end_of_day.event
    rejected = bool(end_of_day.reasons)
    if before is not None:
        headquarters.execute(delete(statements).where(statements.c.statement_id == event.transaction_id))
    reply_number = int(rejected) if before is None else before.answer + 1
    row: dict[str, Any] = {
        "statement_id": event.transaction_id,
        "channel_id": event.channel_id,
        "business_date": event.business_date,
        "number": _next_number(headquarters, end_of_day),
        "kind": END_OF_DAY,
        "status": TransactionStatus.REJECTED if rejected else TransactionStatus.WAITING,
        "reasons": reasons_as_json(end_of_day.reasons),
        "control_totals": totals_as_json(event.control_totals),
        "totals": {},
        "answer": reply_number,
        "repeats": 0 if before is None else before.repeats + 1,
        "operator": storable_operator(event.operator),
        "partition": batch.positions.partitions[end_of_day.row],
        "offset": batch.positions.offsets[end_of_day.row],
        "closed_at": event.occurred_at,
        "received_at": now,
    }
    headquarters.execute(insert(statements), [row])
    if reply_number:
        yield QueuedReply(
            channel_id=event.channel_id,
            transaction_id=event.transaction_id,
            status=row["status"],
            reasons=end_of_day.reasons,
            sequence=reply_number,
            input_partition=row["partition"],
            input_offset=row["offset"],
        )
    if rejected:
        return
    headquarters.execute(
        _INSERT_LISTED,
        {"statement_id": event.transaction_id, "channel_id": event.channel_id, "ids": list(event.listed)},
    )
    if event.complete:
        _adjust(headquarters, batch, end_of_day, row, now)


def _next_number(headquarters: Connection, end_of_day: ClassifiedEndOfDay) -> int:
    same_date = select(func.max(statements.c.number)).where(
        statements.c.channel_id == end_of_day.event.channel_id,
        statements.c.business_date == end_of_day.event.business_date,
    )
    return (headquarters.scalar(same_date) or 0) + 1


def _adjust(
    headquarters: Connection,
    batch: ClassifiedBatch,
    end_of_day: ClassifiedEndOfDay,
    row: Mapping[str, Any],
    now: datetime,
) -> None:
    """Insert an adjustment for sales of this date that the channel sent before this end of day and never listed: the
    channel was restored from a backup.
    """
    event = end_of_day.event
    values = {
        "channel_id": event.channel_id,
        "business_date": event.business_date,
        "now": now,
        "closed_at": event.occurred_at,
        "offset": batch.positions.offsets[end_of_day.row],
    }
    unlisted = list(headquarters.scalars(_UNLISTED, values))
    if not unlisted:
        return
    statement_id = str(uuid5(UUID(event.transaction_id), ADJUSTMENT))
    adjustment = {
        **row,
        "statement_id": statement_id,
        "number": _next_number(headquarters, end_of_day),
        "kind": ADJUSTMENT,
        "control_totals": None,
        "operator": None,
        "answer": 0,
        "repeats": 0,
    }
    headquarters.execute(insert(statements), [adjustment])
    headquarters.execute(
        _INSERT_LISTED, {"statement_id": statement_id, "channel_id": event.channel_id, "ids": unlisted}
    )


_INSERT_LISTED: Final = text(
    """
    INSERT INTO statement_listed (statement_id, transaction_id, channel_id, owned)
    SELECT CAST(:statement_id AS uuid), listed.id, :channel_id, NOT EXISTS (
        SELECT FROM statement_listed AS earlier
        WHERE earlier.transaction_id = listed.id AND earlier.channel_id = :channel_id AND earlier.owned
    )
    FROM unnest(CAST(:ids AS uuid[])) AS listed (id)
    """
)
"""The transactions of an end of day. `owned` is true in the first statement of the channel that lists a transaction, so
each is posted once, and no channel can post the transactions of another.
"""

_UNLISTED: Final = text(
    """
    SELECT transaction_id::text FROM retail_transactions AS sold
    WHERE kind = 'cash_and_carry' AND channel_id = :channel_id AND business_date = :business_date
          AND status <> 'rejected' AND (received_at < :now OR "offset" < :offset) AND occurred_at <= :closed_at
          AND NOT EXISTS (
              SELECT FROM statement_listed AS listed
              WHERE listed.transaction_id = sold.transaction_id AND listed.channel_id = sold.channel_id AND listed.owned
          )
    ORDER BY transaction_id
    """
)
"""Within the batch of the end of day, which has one time, only earlier records; and nothing that the channel recorded
later, should the end of day be sent again.
"""
