"""Ingest a batch of transactions in one SQL transaction: sales, ends of day, replies to repeats, positions.

A transaction is identified by its id: a repeat is only counted and gets the current reply again; a rejected transaction
is replaced and classified again. New sales wait until `release.py` releases them.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
import psycopg
from sqlalchemy import Connection, Engine, bindparam, delete, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog import get_logger

from tenten.avro.batches import UnreadableRow
from tenten.consumers.headquarters.positions import StreamPositions, advance_positions, notify_batch_committed
from tenten.consumers.headquarters.record_positions import is_read_again
from tenten.consumers.headquarters.release_queue import enqueue_new
from tenten.consumers.headquarters.transactions.classify import REASONS, ClassifiedBatch, halves
from tenten.consumers.headquarters.transactions.end_of_day import record_ends_of_day
from tenten.consumers.headquarters.transactions.reply_outbox import QueuedReply, enqueue_replies, id_conflict_reply
from tenten.runtime.database_refusal import database_refusal
from tenten.runtime.error_codes import is_data_error, is_transient
from tenten.runtime.errors import WriteConflict
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import ROW, TransactionStatus, reasons_from_json
from tenten.schemas.tables.headquarters import retail_transactions, sales_orders
from tenten.sql.arrays import is_one_of
from tenten.sql.bulk_copy import copy_into
from tenten.sql.customer_frames import as_rows
from tenten.sql.postgresql_driver import driver_cursor

log = get_logger(__name__)

_UTC: Final = pl.Datetime("us", "UTC")


def ingest(engine: Engine, batch: ClassifiedBatch, reached: StreamPositions) -> tuple[UnreadableRow, ...]:
    """Ingest a batch in one SQL transaction, unless the database rejects data in it.

    Then the batch is halved until the one record is found, which is returned as unreadable; each half is an SQL
    transaction of its own.
    Raises: transient errors; of these `WriteConflict` when another worker is ingesting one of these transactions;
    `DatabaseRefused` for any other error that no record causes.
    """
    try:
        _ingest_in_one_transaction(engine, batch, reached)
    except (DBAPIError, psycopg.Error) as error:
        if is_transient(error):
            raise
        if not is_data_error(error):
            raise database_refusal(error, "a batch of transactions") from error
        if batch.transactions == 0:
            raise
        log.warning("transactions_rejected_by_database", transactions=batch.transactions, error=type(error).__name__)
    else:
        return ()
    if batch.transactions == 1:
        _ingest_in_one_transaction(engine, replace(batch, sales=batch.sales.clear(), ends_of_day=()), reached)
        row = batch.ends_of_day[0].row if batch.ends_of_day else batch.sales.item(0, ROW)
        return (UnreadableRow(row=row, reason="database_refused", text="is refused by headquarters' database"),)
    first, second = halves(batch)
    return (*ingest(engine, first, reached.not_advanced()), *ingest(engine, second, reached))


def _ingest_in_one_transaction(engine: Engine, batch: ClassifiedBatch, reached: StreamPositions) -> None:
    now = datetime.now(UTC)
    try:
        with engine.begin() as headquarters:
            stored_to = advance_positions(headquarters, reached)
            replies = [
                *_ingest_sales(headquarters, batch, stored_to, now),
                *record_ends_of_day(headquarters, batch, stored_to, now),
            ]
            enqueue_replies(headquarters, replies, now)
            notify_batch_committed(headquarters)
            failpoint("transactions.before_sql_commit")
    except (IntegrityError, psycopg.errors.UniqueViolation) as error:
        if not isinstance(getattr(error, "orig", error), psycopg.errors.UniqueViolation):
            raise
        raise WriteConflict("another worker is ingesting one of these transactions") from error


def _ingest_sales(
    headquarters: Connection, batch: ClassifiedBatch, stored_to: Mapping[int, int], now: datetime
) -> list[QueuedReply]:
    """Insert new sales, count repeats, replace rejected sales; return the immediate replies.

    `stored_to`: the positions before the batch.
    """
    sales = batch.sales
    if sales.is_empty():
        return []
    stored = _stored(headquarters, sales["transaction_id"])
    if not stored and sales["transaction_id"].is_unique().all():
        _insert(headquarters, batch, sales, {}, now)
        _enqueue(headquarters, sales)
        return _immediate_replies(batch, sales, {})
    chosen = _choose(batch, stored, stored_to)
    new = sales.filter(pl.col(ROW).is_in(list(chosen.rows.values())))
    rejected = {key: row for key, row in stored.items() if row.status == TransactionStatus.REJECTED}
    replaced = {key: rejected[key] for key in new["transaction_id"] if key in rejected}
    if replaced:
        deleted = headquarters.execute(
            delete(retail_transactions).where(
                is_one_of(headquarters, retail_transactions.c.transaction_id, replaced),
                retail_transactions.c.status == TransactionStatus.REJECTED,
            )
        )
        if deleted.rowcount != len(replaced):
            raise WriteConflict("another worker has replaced one of these rejected transactions")
    _insert(headquarters, batch, new, replaced, now)
    _enqueue(headquarters, new)
    _count_repeats(headquarters, chosen.repeats + chosen.replaced)
    unchanged = chosen.repeats.keys() - chosen.rows.keys()
    return [*chosen.id_conflicts, *_immediate_replies(batch, new, replaced), *_current_replies(headquarters, unchanged)]


@dataclass(frozen=True, slots=True)
class _Choice:
    """The rows of a batch to insert; all others are repeats or id conflicts."""

    rows: dict[str, int] = field(default_factory=dict)
    """The row to insert, by transaction id."""
    repeats: Counter[str] = field(default_factory=Counter)
    """By transaction id: rows that repeat an accepted transaction."""
    replaced: Counter[str] = field(default_factory=Counter)
    """By transaction id: rejected rows that a later row of the batch replaces."""
    id_conflicts: list[QueuedReply] = field(default_factory=list)
    """Replies to rows with the id of another channel's transaction."""


def _choose(batch: ClassifiedBatch, stored: Mapping[str, Any], stored_to: Mapping[int, int]) -> _Choice:
    """Decide which rows of a batch are inserted, given the stored rows of its transactions and the positions before."""
    choice = _Choice()
    positions = batch.positions
    channels = {key: row.channel_id for key, row in stored.items()}
    accepted = {key for key, row in stored.items() if row.status != TransactionStatus.REJECTED}
    stored_at = {key: (row.partition, row.offset) for key, row in stored.items()}
    columns = batch.sales.select(ROW, "transaction_id", "channel_id", "status")
    for row, transaction_id, channel_id, status in columns.iter_rows():
        if channels.setdefault(transaction_id, channel_id) != channel_id:
            partition, offset = positions.partitions[row], positions.offsets[row]
            choice.id_conflicts.append(id_conflict_reply(transaction_id, channel_id, partition, offset))
        elif transaction_id in accepted or is_read_again(positions, row, stored_at.get(transaction_id), stored_to):
            choice.repeats[transaction_id] += 1
        else:
            # A rejected sale is replaced by a later one, also within the batch.
            choice.replaced[transaction_id] += transaction_id in choice.rows
            choice.rows[transaction_id] = row
            if status != TransactionStatus.REJECTED:
                accepted.add(transaction_id)
    return choice


def _enqueue(headquarters: Connection, new: pl.DataFrame) -> None:
    waiting = new.filter(pl.col("status") == TransactionStatus.WAITING)
    enqueue_new(headquarters, waiting["transaction_id"].to_list(), waiting["customer_id"].to_list())


def _stored(headquarters: Connection, ids: Iterable[str]) -> dict[str, Any]:
    """The rows of these transactions that exist already, by id."""
    table = retail_transactions.c
    query = select(
        *(table.transaction_id, table.channel_id, table.status, table.answer, table.repeats),
        *(table.partition, table.offset),
    )
    rows = headquarters.execute(query.where(is_one_of(headquarters, table.transaction_id, ids)))
    return {row.transaction_id: row for row in rows}


def _insert(
    headquarters: Connection, batch: ClassifiedBatch, sales: pl.DataFrame, replaced: Mapping[str, Any], now: datetime
) -> None:
    """Copy sales into the table. A sale that replaces a rejected one keeps counting its replies and repeats."""
    positions = batch.positions
    rows = sales[ROW].to_list()
    replied = (sales["status"] != TransactionStatus.WAITING) | sales["transaction_id"].is_in(list(replaced))
    earlier = [replaced.get(key) for key in sales["transaction_id"]] if replaced else []
    written = sales.with_columns(
        pl.lit(None, dtype=pl.String).alias("account_number"),
        replied.cast(pl.Int64).alias("answer"),
        pl.lit(0, dtype=pl.Int32).alias("repeats"),
        pl.lit(positions.topic).alias("topic"),
        pl.Series("partition", [positions.partitions[row] for row in rows], dtype=pl.Int32),
        pl.Series("offset", [positions.offsets[row] for row in rows], dtype=pl.Int64),
        pl.lit(now, dtype=_UTC).alias("received_at"),
        pl.lit(now, dtype=_UTC).alias("changed_at"),
        pl.lit(None, dtype=_UTC).alias("alarmed_at"),
    )
    if earlier:
        written = written.with_columns(
            pl.col("answer") + pl.Series([0 if row is None else row.answer for row in earlier], dtype=pl.Int64),
            pl.Series("repeats", [0 if row is None else row.repeats + 1 for row in earlier], dtype=pl.Int32),
        )
    copy_into(driver_cursor(headquarters), "retail_transactions", as_rows(written, retail_transactions, "postgresql"))


def _immediate_replies(batch: ClassifiedBatch, sales: pl.DataFrame, replaced: Mapping[str, Any]) -> list[QueuedReply]:
    """Replies to rejected and blocked sales, and to sales that replace a rejected one."""
    replied = (pl.col("status") != TransactionStatus.WAITING) | pl.col("transaction_id").is_in(list(replaced))
    return [
        QueuedReply(
            channel_id=row["channel_id"],
            transaction_id=row["transaction_id"],
            status=TransactionStatus(row["status"]),
            reasons=reasons_from_json(json.loads(row[REASONS])),
            sequence=1 + (replaced[row["transaction_id"]].answer if row["transaction_id"] in replaced else 0),
            input_partition=batch.positions.partitions[row[ROW]],
            input_offset=batch.positions.offsets[row[ROW]],
        )
        for row in sales.filter(replied).iter_rows(named=True)
    ]


def _count_repeats(headquarters: Connection, repeats: Mapping[str, int]) -> None:
    if repeats:
        headquarters.execute(
            update(retail_transactions)
            .where(retail_transactions.c.transaction_id == bindparam("of"))
            .values(repeats=retail_transactions.c.repeats + bindparam("times")),
            [{"of": key, "times": times} for key, times in sorted(repeats.items())],
        )


def _current_replies(headquarters: Connection, ids: Collection[str]) -> list[QueuedReply]:
    """Replies with the current status of repeated transactions: the last reply may have been lost. Transactions that
    have had no reply yet will get their first.
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
        QueuedReply(
            channel_id=row.channel_id,
            transaction_id=row.transaction_id,
            status=TransactionStatus(row.status),
            reasons=reasons_from_json(row.reasons),
            sales_order=row.sales_order,
            sequence=row.answer,
            input_partition=row.partition,
            input_offset=row.offset,
        )
        for row in headquarters.execute(query)
    ]
