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

import polars as pl
import psycopg
from sqlalchemy import Connection, Engine, bindparam, delete, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog import get_logger

from tenten.avro.batches import UnreadableRow
from tenten.consumers.headquarters.positions import StreamPositions, advance_positions
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.consumers.headquarters.release_queue import note_new
from tenten.consumers.headquarters.transactions.classify import REASONS, Judged, halves
from tenten.consumers.headquarters.transactions.end_of_day import record_days
from tenten.consumers.headquarters.transactions.reply_outbox import Answer, cursor_of, foreign_answer, write_answers
from tenten.runtime.error_codes import error_code, is_transient
from tenten.runtime.errors import WriteConflict
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import ROW, TransactionStatus, reasons_from_json
from tenten.schemas.tables.headquarters import retail_transactions, sales_orders
from tenten.sql.arrays import is_one_of
from tenten.sql.bulk_copy import copy_into
from tenten.sql.customer_frames import as_rows

log = get_logger(__name__)

_UTC: Final = pl.Datetime("us", "UTC")


def record(engine: Engine, judged: Judged, reached: StreamPositions) -> tuple[UnreadableRow, ...]:
    """Take a batch in; in one transaction, unless the database refuses something in it.

    Then the batch is halved until the one record is found, which is given back as unreadable; the halves are
    transactions of their own.
    Raises: what is transient; `WriteConflict` of it when another worker is just taking in one of these.
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


def _in_one_transaction(engine: Engine, judged: Judged, reached: StreamPositions) -> None:
    now = datetime.now(UTC)
    try:
        with engine.begin() as headquarters:
            answers = [*_sales(headquarters, judged, now), *record_days(headquarters, judged, now)]
            write_answers(headquarters, answers, now)
            advance_positions(headquarters, reached)
            failpoint("transactions.before_sql_commit")
    except (IntegrityError, psycopg.errors.UniqueViolation) as error:
        if not isinstance(getattr(error, "orig", error), psycopg.errors.UniqueViolation):
            raise
        raise WriteConflict("another worker is just taking in one of these transactions") from error


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
            foreign.append(foreign_answer(transaction_id, channel_id, places.offsets[row]))
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
            raise WriteConflict("another worker has just judged one of these transactions anew")
    _insert(headquarters, judged, new, judged_anew, now)
    _note(headquarters, new)
    _count(headquarters, again + replaced)
    return [*foreign, *_at_once(new, judged_anew), *_standing(headquarters, again.keys() - chosen.keys())]


def _is_read_again(before: Any, places: RecordPositions, row: int) -> bool:
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
            reasons=reasons_from_json(json.loads(row[REASONS])),
            number=1 + (before[row["transaction_id"]].answer if row["transaction_id"] in before else 0),
        )
        for row in sales.filter(answered).iter_rows(named=True)
    ]


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
            reasons=reasons_from_json(row.reasons),
            account_number=row.account_number,
            sales_order=row.sales_order,
            number=row.answer,
        )
        for row in headquarters.execute(query)
    ]
