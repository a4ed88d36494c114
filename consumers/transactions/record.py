"""One SQL transaction for a batch of transactions: sales, ends of days, answers to what came before, positions.

The id of a transaction is its identity: what comes again only counts, and is answered again as it stands; a rejected
one is judged anew. New sales wait; `release.py` lets them through.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import polars as pl
import psycopg
from sqlalchemy import Connection, Engine, Row, bindparam, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog import get_logger

from commerce.bulk import as_rows, copy_into
from commerce.failpoints import failpoint
from commerce.failures import Contended, error_code, is_transient
from commerce.membership import is_one_of
from commerce.retail import totals_as_json
from consumers.headquarters.judge import Places
from consumers.stream_positions import Reached, note_positions
from consumers.transactions.answers import Answer, cursor_of, write_answers
from consumers.transactions.due import note_new
from consumers.transactions.judge import REASONS, Judged, JudgedDay, halves
from schemas.batches import ROW, UnreadableRow
from schemas.headquarters import retail_transactions, sales_orders, statements
from schemas.records import Reason, TransactionStatus

log = get_logger(__name__)

END_OF_DAY: Final = "end_of_day"
ADJUSTMENT: Final = "adjustment"

_UTC: Final = pl.Datetime("us", "UTC")
_DUPLICATE: Final = Reason(
    field="transaction_id",
    code="duplicate",
    text="Another channel's transaction has this id: the writer must give every one an id of its own.",
)


def record(engine: Engine, judged: Judged, reached: Reached) -> tuple[UnreadableRow, ...]:
    """Take a batch in; in one transaction, unless the database refuses something in it.

    Then the batch is halved until the one record is found, which is given back as unreadable; the halves are
    transactions of their own.
    Raises: what is transient; `Contended` of it when another worker is just taking in one of these.
    """
    try:
        _in_one_transaction(engine, judged, reached)
    except (DBAPIError, psycopg.Error) as error:
        if is_transient(error) or judged.transactions == 0 or (error_code(error) or "")[:2] not in OF_A_RECORD:
            raise
        log.warning("batch_refused", transactions=judged.transactions, error=type(error).__name__)
    else:
        return ()
    if judged.transactions == 1:
        _in_one_transaction(engine, replace(judged, sales=judged.sales.clear(), days=()), reached)
        row = judged.days[0].row if judged.days else judged.sales.item(0, ROW)
        return (UnreadableRow(row=row, reason="database_refused", text="is refused by headquarters' database"),)
    first, second = halves(judged)
    return (*record(engine, first, replace(reached, next_offsets={})), *record(engine, second, reached))


OF_A_RECORD: Final = ("22", "23", "54")
"""SQLSTATE classes that a record's content can cause: data, integrity, limits. Any other concerns them all."""


def _in_one_transaction(engine: Engine, judged: Judged, reached: Reached) -> None:
    now = datetime.now(UTC)
    try:
        with engine.begin() as headquarters:
            answers = [*_sales(headquarters, judged, now), *_days(headquarters, judged, now)]
            write_answers(headquarters, answers, now)
            note_positions(headquarters, reached)
            failpoint("transactions.before_sql_commit")
    except (IntegrityError, psycopg.errors.UniqueViolation) as error:
        if not isinstance(getattr(error, "orig", error), psycopg.errors.UniqueViolation):
            raise
        raise Contended("another worker is just taking in one of these transactions") from error


# Sales: orders and cash-and-carry.


def _sales(headquarters: Connection, judged: Judged, now: datetime) -> list[Answer]:
    """Write the new ones, count the repeats, judge rejected ones anew; the answers that are due at once."""
    sales = judged.sales
    if sales.is_empty():
        return []
    known = _known(headquarters, sales["transaction_id"])
    if not known and sales["transaction_id"].is_unique().all():
        _insert(headquarters, judged, sales, {}, now)
        _note(headquarters, sales)
        return _at_once(sales, {})
    foreign, again, replaced = [], Counter[str](), Counter[str]()
    owners = {one: row.channel_id for one, row in known.items()}
    places = judged.places
    taken_in = {one for one, row in known.items() if row.status != TransactionStatus.REJECTED}
    chosen: dict[str, int] = {}
    for row, transaction_id, channel_id, status in sales.select(
        ROW, "transaction_id", "channel_id", "status"
    ).iter_rows():
        if owners.setdefault(transaction_id, channel_id) != channel_id:
            foreign.append(_foreign(transaction_id, channel_id, places.offsets[row]))
        elif transaction_id in taken_in or _is_read_again(known.get(transaction_id), places, row):
            again[transaction_id] += 1
        else:
            # A rejected one gives way to what comes after it, in this batch too.
            replaced[transaction_id] += transaction_id in chosen
            chosen[transaction_id] = row
            if status != TransactionStatus.REJECTED:
                taken_in.add(transaction_id)
    new = sales.filter(pl.col(ROW).is_in(list(chosen.values())))
    rejected = {one: row for one, row in known.items() if row.status == TransactionStatus.REJECTED}
    judged_anew = {one: rejected[one] for one in new["transaction_id"] if one in rejected}
    if judged_anew:
        gone = headquarters.execute(
            delete(retail_transactions).where(
                is_one_of(headquarters, retail_transactions.c.transaction_id, judged_anew),
                retail_transactions.c.status == TransactionStatus.REJECTED,
            )
        )
        if gone.rowcount != len(judged_anew):
            raise Contended("another worker has just judged one of these transactions anew")
    _insert(headquarters, judged, new, judged_anew, now)
    _note(headquarters, new)
    _count(headquarters, again + replaced)
    return [*foreign, *_at_once(new, judged_anew), *_standing(headquarters, again.keys() - chosen.keys())]


def _is_read_again(before: Any, places: Places, row: int) -> bool:
    """Whether this is the very record that was judged before: nobody has sent it again, so it is not judged anew."""
    at = (places.topic, places.partitions[row], places.offsets[row])
    return before is not None and (before.topic, before.partition, before.offset) == at


def _note(headquarters: Connection, new: pl.DataFrame) -> None:
    waiting = new.filter(pl.col("status") == TransactionStatus.WAITING)
    note_new(headquarters, waiting["transaction_id"].to_list(), waiting["customer_id"].to_list())


def _known(headquarters: Connection, ids: Iterable[str]) -> dict[str, Any]:
    """By id: the rows of those that are there already."""
    table = retail_transactions.c
    query = select(
        *(table.transaction_id, table.channel_id, table.status, table.answer, table.repeats),
        *(table.topic, table.partition, table.offset),
    )
    rows = headquarters.execute(query.where(is_one_of(headquarters, table.transaction_id, ids)))
    return {row.transaction_id: row for row in rows}


def _insert(
    headquarters: Connection, judged: Judged, sales: pl.DataFrame, before: Mapping[str, Any], now: datetime
) -> None:
    """Copy sales in. What was rejected `before` goes on counting its answers and repeats, and is answered at once."""
    places = judged.places
    rows = sales[ROW].to_list()
    answered = (sales["status"] == TransactionStatus.REJECTED) | sales["transaction_id"].is_in(list(before))
    earlier = [before.get(one) for one in sales["transaction_id"]] if before else []
    written = sales.with_columns(
        pl.lit(None, dtype=pl.String).alias("account_number"),
        answered.cast(pl.Int64).alias("answer"),
        pl.lit(0, dtype=pl.Int32).alias("repeats"),
        pl.lit(places.topic).alias("topic"),
        pl.Series("partition", [places.partitions[row] for row in rows], dtype=pl.Int32),
        pl.Series("offset", [places.offsets[row] for row in rows], dtype=pl.Int64),
        pl.lit(now, dtype=_UTC).alias("received_at"),
        pl.lit(now, dtype=_UTC).alias("changed_at"),
        pl.lit(None, dtype=_UTC).alias("alarmed_at"),
    )
    if earlier:
        written = written.with_columns(
            pl.col("answer") + pl.Series([0 if one is None else one.answer for one in earlier], dtype=pl.Int64),
            pl.Series("repeats", [0 if one is None else one.repeats + 1 for one in earlier], dtype=pl.Int32),
        )
    copy_into(cursor_of(headquarters), "retail_transactions", as_rows(written, retail_transactions, "postgresql"))


def _at_once(sales: pl.DataFrame, before: Mapping[str, Any]) -> list[Answer]:
    """Answers that wait for nothing: to what is rejected, and to what was, which is not any more."""
    answered = (pl.col("status") == TransactionStatus.REJECTED) | pl.col("transaction_id").is_in(list(before))
    return [
        Answer(
            channel_id=row["channel_id"],
            transaction_id=row["transaction_id"],
            customer_id=row["customer_id"],
            status=TransactionStatus(row["status"]),
            reasons=reasons_of(json.loads(row[REASONS])),
            number=1 + (before[row["transaction_id"]].answer if row["transaction_id"] in before else 0),
        )
        for row in sales.filter(answered).iter_rows(named=True)
    ]


def _foreign(transaction_id: str, channel_id: str, offset: int) -> Answer:
    """The answer to a transaction with the id of another channel's: no repeat, and the table has no place for it."""
    return Answer(
        channel_id=channel_id,
        transaction_id=transaction_id,
        customer_id=None,
        status=TransactionStatus.REJECTED,
        reasons=(_DUPLICATE,),
        # Whoever sends it again is to take the next answer for a newer one.
        number=offset + 1,
    )


def _count(headquarters: Connection, again: Mapping[str, int]) -> None:
    if again:
        headquarters.execute(
            update(retail_transactions)
            .where(retail_transactions.c.transaction_id == bindparam("of"))
            .values(repeats=retail_transactions.c.repeats + bindparam("times")),
            [{"of": one, "times": times} for one, times in sorted(again.items())],
        )


def _standing(headquarters: Connection, ids: Collection[str]) -> list[Answer]:
    """Where transactions stand that came again: the answer may have been lost. One that was never answered still
    will be.
    """
    if not ids:
        return []
    table = retail_transactions
    query = (
        select(table, sales_orders.c.sales_order)
        .join(sales_orders, sales_orders.c.transaction_id == table.c.transaction_id, isouter=True)
        .where(is_one_of(headquarters, table.c.transaction_id, ids), table.c.answer > 0)
    )
    return [
        Answer(
            channel_id=row.channel_id,
            transaction_id=row.transaction_id,
            customer_id=row.customer_id,
            status=TransactionStatus(row.status),
            reasons=reasons_of(row.reasons),
            account_number=row.account_number,
            sales_order=row.sales_order,
            number=row.answer,
        )
        for row in headquarters.execute(query)
    ]


def reasons_of(stored: Iterable[Mapping[str, str]]) -> tuple[Reason, ...]:
    """Reasons as `[{field, code, text}]` has them."""
    return tuple(Reason(**reason) for reason in stored)


# Ends of days.


def _days(headquarters: Connection, judged: Judged, now: datetime) -> list[Answer]:
    """Write the new ones as statements, in order; the answers that are due at once."""
    answers: list[Answer] = []
    for one in judged.days:
        before = headquarters.execute(
            select(statements).where(statements.c.statement_id == one.day.transaction_id)
        ).first()
        if before is not None and before.channel_id != one.day.channel_id:
            answers.append(_foreign(one.day.transaction_id, one.day.channel_id, judged.places.offsets[one.row]))
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
        reasons=reasons_of(row.reasons),
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
        "reasons": [{"field": why.field, "code": why.code, "text": why.text} for why in one.reasons],
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
