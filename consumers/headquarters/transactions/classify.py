"""Classify a batch of transactions without I/O: sales as database rows, end-of-day events, customer events to forward.

Sales stay in columns; those that fail the fast path are checked individually, and so are those of a small batch.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import polars as pl

from tenten.avro.batches import LARGE_BYTES, DecodedBatch, UnreadableRow, decode_batch
from tenten.avro.wire import WriterSchemas, contract
from tenten.consumers.headquarters.identifiers import transactions_with_identifiers
from tenten.consumers.headquarters.known_channels import KnownChannels, entities_of
from tenten.consumers.headquarters.misplaced import without_misplaced
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.consumers.headquarters.transactions.embedded_events import check_embedded_events
from tenten.rules.limits import GUID_PATTERN
from tenten.rules.operator_rule_columns import storable_operator
from tenten.rules.transaction_rules import transaction_violations
from tenten.rules.transaction_rules_columns import passes_fast_path
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
"""Column of classified sales: why it is rejected or blocked, as JSON; `[]` for a valid sale."""

SMALL_BATCH: Final = 100
"""Up to this many sales are checked one by one: less than the fast path costs for a single one."""

UNKNOWN_CHANNEL: Final = "unknown_channel"
"""The code of the reason for which a sale is blocked until headquarters has its channel."""


class ForwardedEvent(NamedTuple):
    """A customer event inside a transaction, framed as the channel wrote it."""

    row: int
    """Of the transaction."""
    customer_id: str
    event_id: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedEndOfDay:
    """An end of day, its row in the batch, and the reasons for its rejection, if any."""

    row: int
    event: RetailTransaction
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedBatch:
    """A batch after classification: every row is a sale, an end of day, or unreadable."""

    sales: pl.DataFrame
    """The columns of `retail_transactions` that come from the record, with `row`, `status` and `reasons`."""
    ends_of_day: tuple[ClassifiedEndOfDay, ...]
    forwarded_events: tuple[ForwardedEvent, ...]
    """In the order of the batch, each event once; events with one id and other bytes are other events."""
    unreadable: tuple[UnreadableRow, ...]
    positions: RecordPositions

    @property
    def unknown_channels(self) -> set[str]:
        """The channels of the sales that are blocked because headquarters does not know them."""
        return set(self.sales.filter(pl.col("status") == TransactionStatus.BLOCKED.value)["channel_id"])

    @property
    def transactions(self) -> int:
        """The number of sales and ends of day."""
        return self.sales.height + len(self.ends_of_day)


def decode_and_classify(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    writers: WriterSchemas,
    channels: KnownChannels,
    positions: RecordPositions,
    *,
    partitions: int,
    refuse: Callable[[DecodedBatch], DecodedBatch] = lambda decoded: decoded,
) -> ClassifiedBatch:
    """Decode a batch of framed values and classify it; `partitions` is the number of the topic's.

    `refuse` turns the records that are not accepted from their writer into unreadable ones.
    May block to look up a schema; raises what `writers` raises when that fails.
    """
    decoded = decode_batch(
        contract("RetailTransaction"), keys, values, writers, RECORD_BYTES_MAX, only_columns_above=LARGE_BYTES
    )
    decoded = transactions_with_identifiers(refuse(decoded))
    decoded = without_misplaced(decoded, keys, positions, partitions)
    decoded, mismatches = check_embedded_events(decoded, writers)
    return classify(decoded, channels, positions, mismatches)


def classify(
    decoded: DecodedBatch,
    channels: KnownChannels,
    positions: RecordPositions,
    mismatches: Mapping[int, tuple[Reason, ...]],
) -> ClassifiedBatch:
    """Divide a batch into sales and ends of day, with the reasons for each rejection.

    `mismatches`: by row, the reasons to reject a sale for the customer event inside, which is not forwarded.
    """
    is_end_of_day = pl.col("kind") == TransactionKind.END_OF_DAY
    frame = decoded.frame
    sales = frame.filter(~is_end_of_day)
    ends_of_day = []
    for record in frame.filter(is_end_of_day).iter_rows(named=True):
        event = transaction_from_avro(record)
        # A statement waits for its sales, and those of an unknown channel wait until the channel is known.
        violations = transaction_violations(event, channels.legal_entity_by_channel, {})
        reasons = tuple(reason for reason in violations if reason.code != UNKNOWN_CHANNEL)
        ends_of_day.append(ClassifiedEndOfDay(row=record[ROW], event=event, reasons=reasons))
    return ClassifiedBatch(
        sales=_rows(sales, *_reasons_by_row(sales, channels, mismatches)),
        ends_of_day=tuple(ends_of_day),
        forwarded_events=_forwarded_events(sales.filter(~pl.col(ROW).is_in(list(mismatches))) if mismatches else sales),
        unreadable=decoded.unreadable,
        positions=positions,
    )


def halves(batch: ClassifiedBatch) -> tuple[ClassifiedBatch, ClassifiedBatch]:
    """The sales and ends of day in two halves by row; everything else is in both."""
    rows = sorted([*batch.sales[ROW].to_list(), *(end_of_day.row for end_of_day in batch.ends_of_day)])
    middle = rows[len(rows) // 2]
    first = replace(
        batch,
        sales=batch.sales.filter(pl.col(ROW) < middle),
        ends_of_day=tuple(end_of_day for end_of_day in batch.ends_of_day if end_of_day.row < middle),
    )
    second = replace(
        batch,
        sales=batch.sales.filter(pl.col(ROW) >= middle),
        ends_of_day=tuple(end_of_day for end_of_day in batch.ends_of_day if end_of_day.row >= middle),
    )
    return first, second


def _reasons_by_row(
    sales: pl.DataFrame, channels: KnownChannels, mismatches: Mapping[int, tuple[Reason, ...]]
) -> tuple[dict[int, str], dict[int, str]]:
    """By row of the batch: the reasons of a rejected sale as JSON, and those of one whose channel is not known yet."""
    rejected: dict[int, str] = {}
    blocked: dict[int, str] = {}
    if sales.is_empty():
        return rejected, blocked
    is_checked = pl.repeat(True, sales.height, eager=True)
    if sales.height > SMALL_BATCH:
        entities = entities_of(sales["channel_id"].unique(), channels.legal_entity_by_channel)
        passes = passes_fast_path(sales, entities, channels.transaction_definitions.keys())
        is_checked = ~passes | sales[ROW].is_in(list(mismatches))
    for record in sales.filter(is_checked).iter_rows(named=True):
        violations = (
            *transaction_violations(
                transaction_from_avro(record), channels.legal_entity_by_channel, channels.transaction_definitions
            ),
            *mismatches.get(record[ROW], ()),
        )
        if violations:
            waits = all(reason.code == UNKNOWN_CHANNEL for reason in violations)
            (blocked if waits else rejected)[record[ROW]] = json.dumps(reasons_as_json(violations))
    return rejected, blocked


def _rows(sales: pl.DataFrame, rejected: Mapping[int, str], blocked: Mapping[int, str]) -> pl.DataFrame:
    reasons = {**rejected, **blocked}
    row = pl.col(ROW)
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
        storable_operator(),
        pl.when(row.is_in(list(rejected)))
        .then(pl.lit(TransactionStatus.REJECTED.value))
        .when(row.is_in(list(blocked)))
        .then(pl.lit(TransactionStatus.BLOCKED.value))
        .otherwise(pl.lit(TransactionStatus.WAITING.value))
        .alias("status"),
        row.replace_strict(reasons, default="[]", return_dtype=pl.String).alias(REASONS)
        if reasons
        else pl.lit("[]").alias(REASONS),
        "currency",
        "total",
        _content().alias("content"),
        "occurred_at",
    )


def _guid(value: pl.Expr) -> pl.Expr:
    """Null instead of an invalid GUID, which the database cannot store; the sale is rejected for it."""
    return pl.when(value.str.contains(GUID_PATTERN)).then(value)


def _content() -> pl.Expr:
    """`tenten.rules.transaction_content.content_of` as a column."""
    return pl.struct(
        _with_texts("lines", "quantity", "price", "amount"),
        _with_texts("charges", "amount"),
        _with_texts("taxes", "amount"),
        _with_texts("payments", "amount"),
        "delivery_mode",
        "delivery_address",
        _with_texts("attributes", "decimal"),
    ).struct.json_encode()


def _with_texts(name: str, *decimals: str) -> pl.Expr:
    """A list of records with these decimals as text, without trailing zeros."""
    texts = [
        pl.element().struct.field(field).cast(pl.String).str.strip_chars_end("0").str.strip_suffix(".").alias(field)
        for field in decimals
    ]
    return pl.col(name).list.eval(pl.element().struct.with_fields(*texts)).alias(name)


def _forwarded_events(sales: pl.DataFrame) -> tuple[ForwardedEvent, ...]:
    events = sales.filter(
        pl.col("customer_id").str.contains(GUID_PATTERN)
        & pl.col("customer_event_id").str.contains(GUID_PATTERN)
        & pl.col("customer_event").is_not_null()
    )
    columns = ("customer_id", "customer_event_id", "customer_event")
    forwarded = events.select(ROW, *columns).unique(columns, keep="first", maintain_order=True)
    return tuple(map(ForwardedEvent._make, forwarded.iter_rows()))
