"""Create the simple creates of a batch in bulk: columns all the way, one COPY a table.

No lookup comes first: the unique keys detect a customer or an event that already exists. The number sequences are
locked after the rows that need no account number, so that several workers wait less for each other.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeAlias, TypeVar

import polars as pl
from sqlalchemy import Connection

from tenten.consumers.headquarters.customers.classify import ClassifiedBatch
from tenten.consumers.headquarters.customers.numbering import Allotment
from tenten.consumers.headquarters.customers.synchronization_log import copy_log
from tenten.schemas.messages import ROW
from tenten.sql.bulk_copy import copy_into
from tenten.sql.customer_frames import headquarters_frames
from tenten.sql.postgresql_driver import driver_cursor

T = TypeVar("T")
EncodeCreated: TypeAlias = Callable[[pl.DataFrame], T]
"""Encodes the outputs of new customers: simple creates with `account_number`, `version`, `updated_at` and the input
position. An empty frame lacks these columns.
"""


class NumbersExhausted(Exception):
    """A sequence has fewer numbers left than the batch has simple creates."""


def create_in_bulk(
    headquarters: Connection, allotment: Allotment, batch: ClassifiedBatch, now: datetime, encode: EncodeCreated[T]
) -> T:
    """Copy and number the simple creates; return what `encode` makes of them, in a thread while the rows are copied.

    Raises: `psycopg.errors.UniqueViolation` when a customer or an event already exists; `NumbersExhausted`.
    """
    creates = batch.simple_creates
    if creates.is_empty():
        return encode(creates)
    pending = _with_positions_and_hashes(creates, batch).with_columns(
        pl.lit(None, dtype=pl.String).alias("account_number"),
        pl.lit(1, dtype=pl.Int64).alias("version"),
        pl.lit(now, dtype=pl.Datetime("us", "UTC")).alias("updated_at"),
    )
    # Ordered by customer id, so that two workers cannot deadlock.
    frames = headquarters_frames(
        pending.select("customer_id", "account_number", "version", "updated_at", "customer").sort("customer_id")
    )
    cursor = driver_cursor(headquarters)
    copy_into(cursor, "customer_addresses", frames.addresses)
    copy_into(cursor, "customer_contacts", frames.contacts)
    allotment.lock(legal_entities(creates))
    created = _numbered(pending, allotment)
    with ThreadPoolExecutor(1, "encode") as thread:
        encoded = thread.submit(encode, created)
        numbers = created.sort("customer_id")["account_number"]
        copy_into(cursor, "customers", frames.customers.with_columns(numbers))
        copy_log(headquarters, created, batch.positions.topic, now)
        return encoded.result()


def legal_entities(creates: pl.DataFrame) -> set[str]:
    """The legal entities of simple creates."""
    return set(creates.select(pl.col("customer").struct.field("legal_entity").unique()).to_series())


def _with_positions_and_hashes(creates: pl.DataFrame, batch: ClassifiedBatch) -> pl.DataFrame:
    """The creates with the position and the content hash of the record of each."""
    rows, positions = creates[ROW], batch.positions
    return creates.with_columns(
        pl.Series("input_partition", positions.partitions, dtype=pl.Int32).gather(rows),
        pl.Series("input_offset", positions.offsets, dtype=pl.Int64).gather(rows),
        pl.Series("content_hash", batch.content_hashes, dtype=pl.Int64).gather(rows),
    )


def _numbered(creates: pl.DataFrame, allotment: Allotment) -> pl.DataFrame:
    """The creates with account numbers, grouped by legal entity."""
    parts = []
    for (entity,), part in creates.group_by(pl.col("customer").struct.field("legal_entity"), maintain_order=True):
        numbers = allotment.take(str(entity), part.height)
        if len(numbers) < part.height:
            raise NumbersExhausted
        parts.append(part.with_columns(numbers.alias("account_number")))
    return pl.concat(parts)
