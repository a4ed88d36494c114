"""Judge a batch of transactions without I/O: rows for the database, ends of days, and the customer events to forward.

Orders and cash-and-carry stay in columns; only what may break a rule is looked at one by one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import polars as pl

from tenten.avro.batches import DecodedBatch, UnreadableRow, decode_batch
from tenten.avro.wire import WriterSchemas, contract
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.rules.limits import GUID
from tenten.rules.transaction_rules import transaction_reasons
from tenten.rules.transaction_rules_columns import surely_valid
from tenten.schemas.messages import (
    ROW,
    Reason,
    RetailTransaction,
    TransactionKind,
    TransactionStatus,
    reasons_as_json,
    transaction_from_avro,
)
from tenten.schemas.topics import RECORD_BYTES_MAX

REASONS: Final = "reasons"
"""Column of judged sales: why it is rejected, as JSON, `[]` for a valid one."""

CHANNEL_CHARACTERS_MAX: Final = 64
"""As long as a channel's name in the settings may be. Who has a longer one cannot be answered, and is no channel."""

_NAMELESS: Final = {"reason": "malformed", "text": "has a channel_id that is longer than any channel's name"}

_GUID: Final = f"^{GUID.pattern}$"


class Forward(NamedTuple):
    """A customer's event that came inside a transaction, framed as the channel wrote it."""

    customer_id: str
    event_id: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedDay:
    """An end of day, where it stood, and why it is rejected."""

    row: int
    day: RetailTransaction
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A batch, judged: every row is a sale, an end of day, or unreadable."""

    sales: pl.DataFrame
    """The columns of `retail_transactions` that the record itself has, with `row`, `status` and `reasons`."""
    days: tuple[JudgedDay, ...]
    forwards: tuple[Forward, ...]
    """In the order of the batch, each event once."""
    unreadable: tuple[UnreadableRow, ...]
    places: RecordPositions

    @property
    def transactions(self) -> int:
        """How many there are; dead letters are none."""
        return self.sales.height + len(self.days)


def take_in(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    writers: WriterSchemas,
    legal_entity_by_channel: Mapping[str, str],
    places: RecordPositions,
) -> Judged:
    """Read a batch of framed values and judge it.

    May block where a schema is looked up; raises what `writers` raises when that cannot be reached.
    """
    decoded = decode_batch(contract("RetailTransaction"), keys, values, writers, RECORD_BYTES_MAX)
    return judge(decoded, legal_entity_by_channel, places)


def judge(decoded: DecodedBatch, legal_entity_by_channel: Mapping[str, str], places: RecordPositions) -> Judged:
    """Divide a batch into sales and ends of days, and say of each why it is rejected, if it is."""
    is_day = pl.col("kind") == TransactionKind.END_OF_DAY
    is_named = pl.col("channel_id").str.len_chars() <= CHANNEL_CHARACTERS_MAX
    nameless = decoded.frame.filter(~is_named)[ROW]
    frame = decoded.frame.filter(is_named)
    sales = frame.filter(~is_day)
    days = []
    for record in frame.filter(is_day).iter_rows(named=True):
        day = transaction_from_avro(record)
        days.append(JudgedDay(row=record[ROW], day=day, reasons=transaction_reasons(day, legal_entity_by_channel)))
    reasons = _reasons(sales, legal_entity_by_channel)
    return Judged(
        sales=_rows(sales, reasons),
        days=tuple(days),
        forwards=_forwards(sales),
        unreadable=(*decoded.unreadable, *(UnreadableRow(row=row, **_NAMELESS) for row in nameless)),
        places=places,
    )


def halves(judged: Judged) -> tuple[Judged, Judged]:
    """The sales and ends of days in two by their rows; the rest stays with the whole."""
    rows = sorted([*judged.sales[ROW].to_list(), *(one.row for one in judged.days)])
    middle = rows[len(rows) // 2]
    first = replace(
        judged,
        sales=judged.sales.filter(pl.col(ROW) < middle),
        days=tuple(one for one in judged.days if one.row < middle),
    )
    second = replace(
        judged,
        sales=judged.sales.filter(pl.col(ROW) >= middle),
        days=tuple(one for one in judged.days if one.row >= middle),
    )
    return first, second


def _reasons(sales: pl.DataFrame, legal_entity_by_channel: Mapping[str, str]) -> dict[int, str]:
    """By row of the batch: why it is rejected, as JSON. Valid ones are missing."""
    if sales.is_empty():
        return {}
    found = {}
    for record in sales.filter(~surely_valid(sales, legal_entity_by_channel)).iter_rows(named=True):
        reasons = transaction_reasons(transaction_from_avro(record), legal_entity_by_channel)
        if reasons:
            found[record[ROW]] = json.dumps(reasons_as_json(reasons))
    return found


def _rows(sales: pl.DataFrame, reasons: Mapping[int, str]) -> pl.DataFrame:
    rejected = pl.col(ROW).is_in(list(reasons))
    return sales.select(
        ROW,
        "transaction_id",
        "channel_id",
        pl.col("kind").str.to_lowercase(),
        "business_date",
        "legal_entity",
        _guid(pl.col("customer_id")).alias("customer_id"),
        _guid(pl.col("customer_event_id")).alias("customer_event_id"),
        _guid(pl.col("delivery_address").struct.field("address_id")).alias("delivery_address_id"),
        pl.when(rejected)
        .then(pl.lit(TransactionStatus.REJECTED.value))
        .otherwise(pl.lit(TransactionStatus.WAITING.value))
        .alias("status"),
        pl.col(ROW).replace_strict(reasons, default="[]", return_dtype=pl.String).alias(REASONS)
        if reasons
        else pl.lit("[]").alias(REASONS),
        "currency",
        "total",
        _content().alias("content"),
        "occurred_at",
    )


def _guid(value: pl.Expr) -> pl.Expr:
    """Only what a database takes for one; the transaction is rejected otherwise."""
    return pl.when(value.str.contains(_GUID)).then(value)


def _content() -> pl.Expr:
    """As `tenten.rules.transaction_rules.content_of` has it, in columns."""
    return pl.struct(
        _with_texts("lines", "quantity", "price", "amount"),
        _with_texts("charges", "amount"),
        _with_texts("taxes", "amount"),
        _with_texts("payments", "amount"),
        "delivery_mode",
        "delivery_address",
    ).struct.json_encode()


def _with_texts(name: str, *decimals: str) -> pl.Expr:
    """A list of records with these decimals as text, without needless zeros."""
    texts = [
        pl.element().struct.field(one).cast(pl.String).str.strip_chars_end("0").str.strip_suffix(".").alias(one)
        for one in decimals
    ]
    return pl.col(name).list.eval(pl.element().struct.with_fields(*texts)).alias(name)


def _forwards(sales: pl.DataFrame) -> tuple[Forward, ...]:
    brought = sales.filter(
        pl.col("customer_id").str.contains(_GUID)
        & pl.col("customer_event_id").str.contains(_GUID)
        & pl.col("customer_event").is_not_null()
    )
    once = brought.unique("customer_event_id", keep="first", maintain_order=True)
    return tuple(map(Forward._make, once.select("customer_id", "customer_event_id", "customer_event").iter_rows()))
