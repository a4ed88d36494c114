"""Transactions that a release pass cannot release: block them with reasons, report that they wait, raise alarms."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import JSON, Connection, Row, bindparam, text
from structlog import get_logger

from tenten.consumers.headquarters.transactions.reply_outbox import QueuedReply
from tenten.consumers.headquarters.transactions.waiting import WAITING
from tenten.schemas.messages import Reason, TransactionStatus, reasons_as_json, reasons_from_json
from tenten.sql.arrays import pg_array_literal

log = get_logger(__name__)

REPLY_SECONDS: Final = 1.0
"""A channel receives a reply that a transaction waits after this time; most are released before."""

_REPLIES_MAX: Final = 1_000
"""Maximum number of such replies in one pass: of very many that wait, most are released before their turn comes."""

_ALARMS_MAX: Final = 100
"""Maximum number of alarms in one pass."""


def block(headquarters: Connection, reasons: Mapping[str, Reason], now: datetime) -> list[QueuedReply]:
    """Block these transactions, by id; return a reply for each that was not blocked for the same reason before."""
    ids_by_reason: dict[Reason, list[str]] = defaultdict(list)
    for transaction_id, reason in reasons.items():
        ids_by_reason[reason].append(transaction_id)
    replies: list[QueuedReply] = []
    for reason, ids in ids_by_reason.items():
        values = {"ids": pg_array_literal(ids), "why": reasons_as_json([reason]), "now": now}
        replies += replies_of(headquarters.execute(_BLOCK, values))
    return replies


_BLOCK: Final = text(
    """
    UPDATE retail_transactions SET status = 'blocked', reasons = :why, changed_at = :now, answer = answer + 1
    WHERE transaction_id = ANY (CAST(:ids AS uuid[]))
      AND (status = 'waiting' OR reasons::text <> CAST(:why AS json)::text)
    RETURNING transaction_id::text, channel_id, status, reasons, answer, partition, "offset"
    """
).bindparams(bindparam("why", type_=JSON))


def block_rejected(headquarters: Connection, parameters: Mapping[str, Any], *, full_scan: bool) -> list[QueuedReply]:
    """Block transactions whose customer event headquarters has rejected, with its reasons; return their replies."""
    return replies_of(headquarters.execute(_BLOCK_REJECTED[full_scan], parameters))


_BLOCK_REJECTED_WAITING: Final = """
    UPDATE retail_transactions AS waiting
    SET status = 'blocked', reasons = customer_event.reasons, changed_at = :now, answer = waiting.answer + 1
    FROM (
        SELECT waiting.transaction_id, refused.reasons
        FROM retail_transactions AS waiting
        JOIN synchronization_log AS refused
          ON refused.event_id = waiting.customer_event_id AND refused.customer_id = waiting.customer_id
        WHERE {among} AND waiting.status <> 'blocked' AND refused.outcome = 'rejected'
        LIMIT :rows_max
        FOR UPDATE OF waiting SKIP LOCKED
    ) AS customer_event
    WHERE waiting.transaction_id = customer_event.transaction_id
    RETURNING waiting.transaction_id::text, waiting.channel_id, waiting.status, waiting.reasons, waiting.answer,
              waiting.partition, waiting."offset"
    """
_BLOCK_REJECTED: Final = {
    full_scan: text(_BLOCK_REJECTED_WAITING.format(among=among)) for full_scan, among in WAITING.items()
}
"""Not `status = 'waiting'`: for that PostgreSQL would scan the index of all that wait, which `coalesce` prevents."""


def explain_waiting(headquarters: Connection, parameters: Mapping[str, Any], *, of_queue: bool) -> list[QueuedReply]:
    """Store why transactions wait, and return their replies: to those of the release queue whose reasons have changed,
    or the first replies to any that were not released soon.
    """
    values: dict[str, Any] = {**_WAITING_REASONS, "rows_max": min(parameters["rows_max"], _REPLIES_MAX)}
    if of_queue:
        values["ids"] = parameters["ids"]
    else:
        values["before"] = parameters["now"] - timedelta(seconds=REPLY_SECONDS)
    return replies_of(headquarters.execute(_EXPLAIN_WAITING[of_queue], values))


_WAITING_REASONS: Final = {
    name: reasons_as_json([reason])
    for name, reason in (
        (
            "no_customer",
            Reason(
                field="customer_id",
                code="unknown_customer",
                text="Headquarters does not have this customer yet.",
            ),
        ),
        (
            "other_entity",
            Reason(
                field="customer_id",
                code="other_legal_entity",
                text="The customer belongs to another legal entity.",
            ),
        ),
        (
            "no_event",
            Reason(
                field="customer_event",
                code="waiting",
                text="The change of the customer that came with it has not arrived at headquarters yet.",
            ),
        ),
    )
}

_EXPLAIN: Final = """
    UPDATE retail_transactions AS waiting SET reasons = explained.reasons, answer = waiting.answer + 1
    FROM (
        SELECT waiting.transaction_id,
               CASE WHEN customer_event.outcome = 'held' THEN customer_event.reasons
                    WHEN held.reasons IS NOT NULL THEN held.reasons
                    WHEN customers.customer_id IS NULL THEN :no_customer
                    WHEN customers.legal_entity <> waiting.legal_entity THEN :other_entity
                    ELSE :no_event END AS reasons
        FROM retail_transactions AS waiting
        LEFT JOIN customers ON customers.customer_id = waiting.customer_id
        LEFT JOIN synchronization_log AS customer_event
               ON customer_event.event_id = waiting.customer_event_id
              AND customer_event.customer_id = waiting.customer_id
        LEFT JOIN LATERAL (
            SELECT held_events.reasons FROM held_events
            WHERE held_events.customer_id = waiting.customer_id AND held_events.judged_at IS NULL
              AND customers.customer_id IS NULL
            ORDER BY held_id LIMIT 1
        ) AS held ON true
        WHERE {among}
        LIMIT :rows_max
        FOR UPDATE OF waiting SKIP LOCKED
    ) AS explained
    WHERE waiting.transaction_id = explained.transaction_id
      AND (waiting.answer = 0 OR waiting.reasons::text <> explained.reasons::text)
    RETURNING waiting.transaction_id::text, waiting.channel_id, waiting.status, waiting.reasons, waiting.answer,
              waiting.partition, waiting."offset"
    """
_EXPLAIN_WAITING: Final = {
    of_queue: text(_EXPLAIN.format(among=among)).bindparams(*(bindparam(name, type_=JSON) for name in _WAITING_REASONS))
    for of_queue, among in (
        (False, "waiting.status = 'waiting' AND waiting.answer = 0 AND waiting.received_at < :before"),
        (True, f"{WAITING[False]} AND waiting.status <> 'blocked' AND waiting.answer > 0"),
    )
}
"""Why transactions wait: a held event of the customer, a customer or an event that is missing, another legal entity."""


def replies_of(rows: Iterable[Row[Any]]) -> list[QueuedReply]:
    """The replies with the status that transactions have in these rows."""
    return [
        QueuedReply(
            channel_id=row.channel_id,
            transaction_id=row.transaction_id,
            status=TransactionStatus(row.status),
            reasons=reasons_from_json(row.reasons),
            sequence=row.answer,
            input_partition=row.partition,
            input_offset=row.offset,
        )
        for row in rows
    ]


def alarm(headquarters: Connection, now: datetime, waiting_seconds_max: int) -> None:
    """Log each transaction that has waited for longer than this, once."""
    before = now - timedelta(seconds=waiting_seconds_max)
    for row in headquarters.execute(_ALARM, {"now": now, "before": before, "rows_max": _ALARMS_MAX}):
        log.warning(
            "transaction_waits_too_long",
            channel=row.channel_id,
            transaction_id=row.transaction_id,
            waiting_seconds=round((now - row.received_at).total_seconds()),
        )


_ALARM: Final = text(
    """
    UPDATE retail_transactions AS waiting SET alarmed_at = :now
    WHERE waiting.transaction_id IN (
        SELECT transaction_id FROM retail_transactions
        WHERE status = 'waiting' AND alarmed_at IS NULL AND received_at < :before
        LIMIT :rows_max
        FOR UPDATE SKIP LOCKED
    )
    RETURNING transaction_id::text, channel_id, received_at
    """
)
