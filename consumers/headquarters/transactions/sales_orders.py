"""The statements of a release pass that number sales orders and make sales ready to post; `release.py` runs them.

Sales order numbers have no gap. They come from one sequence per legal entity.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, select, text, update
from sqlalchemy.exc import DBAPIError

from tenten.consumers.headquarters.transactions.reply_outbox import QueuedReply
from tenten.consumers.headquarters.transactions.waiting import RELEASABLE
from tenten.rules.number_sequence import number_format
from tenten.runtime.error_codes import is_data_error
from tenten.schemas.messages import Reason, TransactionStatus
from tenten.schemas.tables.headquarters import sales_order_sequences
from tenten.sql.arrays import pg_array_literal


class Released(NamedTuple):
    """The result of releasing: replies to released transactions, and reasons by id for those without a number."""

    replies: list[QueuedReply]
    blocked: dict[str, Reason]


def release_together(headquarters: Connection, parameters: Mapping[str, Any], *, full_scan: bool) -> Released:
    """Release all that can be released, in one SQL statement."""
    sequences = {row.legal_entity: row for row in headquarters.execute(_SEQUENCES)}
    remaining = json.dumps([_remaining_numbers(row) for row in sequences.values()])
    result, used = Released([], {}), Counter[str]()
    rows = headquarters.execute(_RELEASE[full_scan], {**parameters, "sequences": remaining}).all()
    for legal_entity, is_released, transaction_id, channel_id, sales_order, sequence, partition, offset in rows:
        if not is_released:
            result.blocked[transaction_id] = _USED_UP if legal_entity in sequences else _NO_SEQUENCE
            continue
        if sales_order is not None:
            used[legal_entity] += 1
        reply = QueuedReply(
            channel_id=channel_id,
            transaction_id=transaction_id,
            status=TransactionStatus.SYNCHRONIZED,
            sales_order=sales_order,
            sequence=sequence,
            input_partition=partition,
            input_offset=offset,
        )
        result.replies.append(reply)
    table = sales_order_sequences
    for legal_entity, count in sorted(used.items()):
        headquarters.execute(
            update(table).where(table.c.legal_entity == legal_entity).values(next=table.c.next + count)
        )
    return result


_SEQUENCES: Final = select(sales_order_sequences).order_by(sales_order_sequences.c.legal_entity).with_for_update()

_USED_UP: Final = Reason(
    field="sales_order",
    code="number_sequence_used_up",
    text="The sequence of sales order numbers is used up: give it a longer format.",
)
_NO_SEQUENCE: Final = Reason(
    field="legal_entity",
    code="no_sequence",
    text="This legal entity has no sequence of sales order numbers: run `tenten settings apply FILE`.",
)


def _remaining_numbers(sequence: Row[Any]) -> dict[str, str | int]:
    written = number_format(sequence.format)
    return {
        "legal_entity": sequence.legal_entity,
        "next": sequence.next,
        "last": written.number_max,
        "before": written.before,
        "digits": written.digits,
        "after": written.after,
    }


_RELEASE_RELEASABLE: Final = """
    WITH due AS ({releasable}), ranked AS (
        SELECT *, row_number() OVER (
            PARTITION BY legal_entity, kind = 'order' ORDER BY is_blocked, received_at, partition, "offset"
        ) - 1 AS rank
        FROM due
    ), numbered AS (
        SELECT ranked.*,
               kind <> 'order' OR coalesce(sequence.next + rank <= sequence.last, false) AS is_released,
               CASE WHEN kind = 'order' AND sequence.next + rank <= sequence.last
                    THEN sequence.before || lpad((sequence.next + rank)::text, sequence.digits, '0') || sequence.after
               END AS sales_order
        FROM ranked LEFT JOIN json_to_recordset(CAST(:sequences AS json)) AS sequence (
            legal_entity text, next bigint, last bigint, before text, digits integer, after text
        ) ON sequence.legal_entity = ranked.legal_entity
    ), released AS (
        UPDATE retail_transactions AS waiting
        SET status = 'synchronized', reasons = '[]', changed_at = :now, answer = waiting.answer + 1,
            account_number = numbered.account_number
        FROM numbered
        WHERE waiting.transaction_id = numbered.transaction_id AND numbered.is_released
        RETURNING waiting.*, numbered.sales_order
    ), orders AS (
        INSERT INTO sales_orders (
            legal_entity, sales_order, transaction_id, channel_id, business_date, customer_id, account_number,
            currency, total, delivery_mode, delivery_address, created_at
        )
        SELECT legal_entity, sales_order, transaction_id, channel_id, business_date, customer_id, account_number,
               currency, total, delivery.delivery_mode, delivery.delivery_address, :now
        FROM released, json_to_record(released.content) AS delivery (delivery_mode text, delivery_address json)
        WHERE sales_order IS NOT NULL
    )
    SELECT legal_entity, is_released, transaction_id::text, channel_id, sales_order, answer + 1, partition, "offset"
    FROM numbered
    """
_RELEASE: Final = {
    full_scan: text(_RELEASE_RELEASABLE.format(releasable=releasable)) for full_scan, releasable in RELEASABLE.items()
}
"""Number the orders, change the status, and insert the sales orders."""


def release_individually(headquarters: Connection, parameters: Mapping[str, Any], *, full_scan: bool) -> Released:
    """Release each transaction in a savepoint of its own, so that data that the database rejects blocks no other. Slow.

    Raises: transient errors, and errors that no single record causes.
    """
    result = Released([], {})
    for transaction_id in headquarters.scalars(_RELEASABLE_IDS[full_scan], parameters).all():
        try:
            with headquarters.begin_nested():
                single = {**parameters, "ids": pg_array_literal([transaction_id])}
                released = release_together(headquarters, single, full_scan=False)
        except DBAPIError as error:
            if not is_data_error(error):
                raise
            result.blocked[transaction_id] = _CANNOT_BE_WRITTEN
        else:
            result.replies.extend(released.replies)
            result.blocked.update(released.blocked)
    return result


_RELEASABLE_IDS: Final = {
    full_scan: text(f"SELECT transaction_id::text FROM ({releasable}) AS due")  # noqa: S608 - constants of this package
    for full_scan, releasable in RELEASABLE.items()
}

_CANNOT_BE_WRITTEN: Final = Reason(
    field="",
    # `waiting.RELEASABLE` excludes this code: it is not tried again.
    code="cannot_be_written",
    text="The database rejected the sales order; manual action is needed (see the log).",
)
