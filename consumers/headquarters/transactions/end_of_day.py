"""Ends of days of a batch, within its SQL transaction: each becomes a statement, and what it lists is noted.

The first end of day of a channel that lists a transaction owns it. What the channel has forgotten, because it was
restored from a backup, gets a statement of its own: an adjustment.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update

from tenten.consumers.headquarters.transactions.classify import Judged, JudgedDay
from tenten.consumers.headquarters.transactions.reply_outbox import Answer, foreign_answer
from tenten.rules.transaction_rules import totals_as_json
from tenten.schemas.messages import TransactionStatus, reasons_as_json, reasons_from_json
from tenten.schemas.tables.headquarters import statements

END_OF_DAY: Final = "end_of_day"
ADJUSTMENT: Final = "adjustment"


def record_days(headquarters: Connection, judged: Judged, now: datetime) -> list[Answer]:
    """Write the new ones as statements, in order; the answers that are due at once."""
    answers: list[Answer] = []
    for one in judged.days:
        before = headquarters.execute(
            select(statements).where(statements.c.statement_id == one.day.transaction_id)
        ).first()
        if before is not None and before.channel_id != one.day.channel_id:
            answers.append(foreign_answer(one.day.transaction_id, one.day.channel_id, judged.places.offsets[one.row]))
        elif before is not None and before.status != TransactionStatus.REJECTED:
            answers.extend(_repeated_day(headquarters, before))
        else:
            answers.extend(_new_day(headquarters, judged, one, before, now))
    return answers


def _repeated_day(headquarters: Connection, before: Row[Any]) -> Iterable[Answer]:
    headquarters.execute(
        update(statements)
        .where(statements.c.statement_id == before.statement_id)
        .values(repeats=statements.c.repeats + 1)
    )
    if before.answer > 0:
        yield statement_answer(before)


def statement_answer(row: Row[Any]) -> Answer:
    """Where a statement stands, as its row has it."""
    return Answer(
        channel_id=row.channel_id,
        transaction_id=row.statement_id,
        customer_id=None,
        status=TransactionStatus(row.status),
        reasons=reasons_from_json(row.reasons),
        number=row.answer,
    )


def _new_day(
    headquarters: Connection, judged: Judged, one: JudgedDay, before: Row[Any] | None, now: datetime
) -> Iterable[Answer]:
    day = one.day
    rejected = bool(one.reasons)
    if before is not None:
        headquarters.execute(delete(statements).where(statements.c.statement_id == day.transaction_id))
    answer = int(rejected) if before is None else before.answer + 1
    row: dict[str, Any] = {
        "statement_id": day.transaction_id,
        "channel_id": day.channel_id,
        "business_date": day.business_date,
        "number": _next_number(headquarters, one),
        "kind": END_OF_DAY,
        "status": TransactionStatus.REJECTED if rejected else TransactionStatus.WAITING,
        "reasons": reasons_as_json(one.reasons),
        "control_totals": totals_as_json(day.control_totals),
        "totals": {},
        "answer": answer,
        "repeats": 0 if before is None else before.repeats + 1,
        "closed_at": day.occurred_at,
        "received_at": now,
    }
    headquarters.execute(insert(statements), [row])
    if answer:
        yield Answer(
            channel_id=day.channel_id,
            transaction_id=day.transaction_id,
            customer_id=None,
            status=row["status"],
            reasons=one.reasons,
            number=answer,
        )
    if rejected:
        return
    headquarters.execute(
        _LIST, {"statement_id": day.transaction_id, "channel_id": day.channel_id, "ids": list(day.listed)}
    )
    if day.complete:
        _adjust(headquarters, judged, one, row, now)


def _next_number(headquarters: Connection, one: JudgedDay) -> int:
    of_the_day = select(func.max(statements.c.number)).where(
        statements.c.channel_id == one.day.channel_id, statements.c.business_date == one.day.business_date
    )
    return (headquarters.scalar(of_the_day) or 0) + 1


def _adjust(headquarters: Connection, judged: Judged, one: JudgedDay, row: Mapping[str, Any], now: datetime) -> None:
    """What headquarters has of this day and no end of day lists, although the channel sent it before this one: the
    channel was restored from a backup. It gets a statement of its own.
    """
    found = {
        "channel_id": one.day.channel_id,
        "business_date": one.day.business_date,
        "now": now,
        "closed_at": one.day.occurred_at,
        "offset": judged.places.offsets[one.row],
    }
    extra = list(headquarters.scalars(_NOT_LISTED, found))
    if not extra:
        return
    statement_id = str(uuid5(UUID(one.day.transaction_id), ADJUSTMENT))
    adjustment = {
        **row,
        "statement_id": statement_id,
        "number": _next_number(headquarters, one),
        "kind": ADJUSTMENT,
        "control_totals": None,
        "answer": 0,
        "repeats": 0,
    }
    headquarters.execute(insert(statements), [adjustment])
    headquarters.execute(_LIST, {"statement_id": statement_id, "channel_id": one.day.channel_id, "ids": extra})


_LIST: Final = text(
    """
    INSERT INTO statement_listed (statement_id, transaction_id, channel_id, owned)
    SELECT CAST(:statement_id AS uuid), listed.id, :channel_id, NOT EXISTS (
        SELECT FROM statement_listed AS earlier
        WHERE earlier.transaction_id = listed.id AND earlier.channel_id = :channel_id AND earlier.owned
    )
    FROM unnest(CAST(:ids AS uuid[])) AS listed (id)
    """
)
"""What an end of day lists. The first one of the channel that lists a transaction owns it: so it is in one statement,
and no channel can take another's.
"""

_NOT_LISTED: Final = text(
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
"""Within the batch of the end of day itself, which has one time, only what came before it; and nothing that the channel
recorded later, should the end of day come a second time.
"""
