"""Let waiting transactions through: an order becomes a sales order with a number, a cash-and-carry can be posted.

One round is one SQL transaction, one round at a time, whichever process makes it. A transaction is let through when

- it has no customer, or
- headquarters has taken in the event that it brought along, or it brought none and the customer is there, one of the
  same legal entity, or
- the customer is erased, or
- the event was rejected, but customer and address are known all the same.

The way of its customer does not matter: whoever brings it, in whatever order, the next round finds it. A transaction
whose event was rejected is blocked with the reasons, and let through by a round after the correction.

A round looks at what `consumers/headquarters/release_queue.py` has noted, and at new statements; a sweep looks at all
that waits, so that nothing depends on the notes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import JSON, Connection, Engine, Row, bindparam, select, text, update
from sqlalchemy.exc import DBAPIError
from structlog import get_logger

from tenten.consumers.headquarters.release_queue import take_due
from tenten.consumers.headquarters.transactions.ingest import OF_A_RECORD
from tenten.consumers.headquarters.transactions.reply_outbox import Answer, write_answers
from tenten.consumers.headquarters.transactions.statements import judge_statements
from tenten.rules.number_sequence import number_format
from tenten.runtime.error_codes import error_code, is_transient
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import Reason, TransactionStatus, reasons_as_json, reasons_from_json
from tenten.schemas.tables.headquarters import sales_order_sequences
from tenten.sql.arrays import pg_array_literal

log = get_logger(__name__)

ROUND_MAX: Final = 10_000
"""Transactions that one SQL transaction lets through."""

ANSWER_SECONDS: Final = 1.0
"""A transaction that waits for so long is said to be waiting; most do not."""

_ANSWERS_MAX: Final = 1_000
"""So many of them in one sweep: where very many wait, most will have come through before they are told."""

GIVE_UP_SECONDS: Final = 60.0
"""For so long an event that headquarters has not seen is waited for where customer and address are known without it."""

_ALARMS_MAX: Final = 100
"""Alarms of one round."""

_CANNOT_BE_WRITTEN: Final = "cannot_be_written"
"""The code of what is blocked by the database itself: it is not tried again."""

ONE_BY_ONE_MAX: Final = 500
"""Transactions of a round in which each is let through on its own."""

_BEGIN: Final = text(
    """
    SELECT pg_advisory_xact_lock(hashtextextended('tenten.release', 0)), set_config('work_mem', '64MB', true),
           set_config('random_page_cost', '1', true)
    """
)
"""One round at a time. What it passes from one step to the next stays in memory. Most of what it looks at lies there
too, so a lookup by key costs no more than any other read.
"""


class Round(NamedTuple):
    """What a round came to."""

    released: int
    statements: int
    """How many statements have changed."""
    noted: bool
    """Whether as much was noted as one round takes."""
    full: bool
    """Whether there may be more to do at once."""


def release(engine: Engine, waiting_seconds_max: int, *, sweep: bool) -> Round:
    """Make one round, or a sweep. What the database refuses to let through is blocked, alone.

    Raises: what is transient, and what is nobody's fault in particular; nothing has happened then.
    """
    try:
        return _round(engine, waiting_seconds_max, sweep=sweep, one_by_one=False)
    except DBAPIError as error:
        if is_transient(error) or (error_code(error) or "")[:2] not in OF_A_RECORD:
            raise
        log.warning("round_refused", code=error_code(error))
    return _round(engine, waiting_seconds_max, sweep=True, one_by_one=True)


def _round(engine: Engine, waiting_seconds_max: int, *, sweep: bool, one_by_one: bool) -> Round:
    with engine.begin() as headquarters:
        headquarters.execute(_BEGIN)
        now = datetime.now(UTC)
        noted, ids = take_due(headquarters, ROUND_MAX)
        rows_max = ONE_BY_ONE_MAX if one_by_one else ROUND_MAX
        looked_at = {"ids": ids, "rows_max": rows_max, "give_up": now - _GIVE_UP, "now": now}
        let_through = _one_by_one if one_by_one else _let_through
        found = let_through(headquarters, looked_at, sweep=sweep) if sweep or noted else _Found([], {})
        answers = [*found.released, *_block(headquarters, found.refused, now)]
        if sweep or noted > len(found.released):
            answers += _changed(headquarters.execute(_BLOCK_REJECTED[sweep], looked_at))
        if sweep:
            answers += _answer_waiting(headquarters, now)
            _alarm(headquarters, now, waiting_seconds_max)
        statements = judge_statements(headquarters, now, sweep=sweep)
        write_answers(headquarters, [*answers, *statements], now)
        failpoint("release.before_commit")
    failpoint("release.after_commit")
    is_noted = noted == ROUND_MAX
    full = is_noted or len(found.released) == rows_max
    return Round(len(found.released), len(statements), noted=is_noted, full=full)


_GIVE_UP: Final = timedelta(seconds=GIVE_UP_SECONDS)

_AMONG: Final = {
    True: "waiting.status IN ('waiting', 'blocked')",
    # The ids have no type of their own, so that PostgreSQL reads them as an array once. `coalesce` keeps it from going
    # through all that waits, by the index of that, instead of these ids.
    False: """
        waiting.transaction_id = ANY (CAST(:ids AS uuid[])) AND coalesce(waiting.status, '') IN ('waiting', 'blocked')
    """,
}
"""What a sweep looks at, and what a round that is none does."""

_DUE_AMONG: Final = """
    SELECT waiting.transaction_id, waiting.channel_id, waiting.kind, waiting.legal_entity, waiting.customer_id,
           waiting.answer, customers.account_number,
           waiting.status = 'blocked' AS is_blocked, waiting.received_at, waiting.partition, waiting."offset"
    FROM retail_transactions AS waiting
    LEFT JOIN customers ON customers.customer_id = waiting.customer_id
    LEFT JOIN synchronization_log AS brought
           ON brought.event_id = waiting.customer_event_id AND brought.customer_id = waiting.customer_id
    WHERE {among}
      AND NOT (waiting.status = 'blocked' AND waiting.reasons::text LIKE '%"cannot_be_written"%')
      AND (
          waiting.customer_id IS NULL
          OR customers.erased_at IS NOT NULL
          OR customers.legal_entity = waiting.legal_entity AND (
              waiting.customer_event_id IS NULL
              OR brought.outcome <> 'rejected'
              OR (brought.outcome = 'rejected' OR waiting.received_at < :give_up) AND (
                  waiting.delivery_address_id IS NULL
                  OR EXISTS (
                      SELECT FROM customer_addresses AS known
                      WHERE known.customer_id = waiting.customer_id AND known.address_id = waiting.delivery_address_id
                  )
              )
          )
      )
    ORDER BY is_blocked, waiting.received_at, waiting.partition, waiting."offset"
    LIMIT :rows_max
    FOR UPDATE OF waiting SKIP LOCKED
    """
_DUE: Final = {sweep: _DUE_AMONG.format(among=among) for sweep, among in _AMONG.items()}
"""What can be let through, in the order in which it came; what is blocked, perhaps for want of a number, keeps nobody
from it. What another transaction holds is for the next round.
"""


class _Found(NamedTuple):
    """What became of what was due."""

    released: list[Answer]
    refused: dict[str, Reason]
    """By transaction id: why an order has no number."""


def _one_by_one(headquarters: Connection, looked_at: Mapping[str, Any], *, sweep: bool) -> _Found:
    """Each on its own, so that what the database refuses harms no other. Slow, and rare."""
    found = _Found([], {})
    for transaction_id in headquarters.scalars(_DUE_IDS[sweep], looked_at).all():
        try:
            with headquarters.begin_nested():
                one = _let_through(headquarters, {**looked_at, "ids": pg_array_literal([transaction_id])}, sweep=False)
        except DBAPIError as error:
            if is_transient(error) or (error_code(error) or "")[:2] not in OF_A_RECORD:
                raise
            text = "Headquarters' database refuses what would become of it: somebody has to look."
            found.refused[transaction_id] = Reason(field="", code=_CANNOT_BE_WRITTEN, text=text)
        else:
            found.released.extend(one.released)
            found.refused.update(one.refused)
    return found


_IDS_OF_DUE: Final = "SELECT transaction_id::text FROM ({due}) AS due"
_DUE_IDS: Final = {sweep: text(_IDS_OF_DUE.format(due=due)) for sweep, due in _DUE.items()}


def _let_through(headquarters: Connection, looked_at: Mapping[str, Any], *, sweep: bool) -> _Found:
    """Make sales orders of what is due, with numbers that have no gap, from a sequence for each legal entity."""
    sequences = {row.legal_entity: row for row in headquarters.execute(_SEQUENCES)}
    known = json.dumps([_numbers_left(row) for row in sequences.values()])
    found, taken = _Found([], {}), Counter[str]()
    due = headquarters.execute(_LET_THROUGH[sweep], {**looked_at, "sequences": known}).all()
    for legal_entity, is_released, transaction_id, channel_id, customer_id, account_number, sales_order, number in due:
        if not is_released:
            found.refused[transaction_id] = _USED_UP if legal_entity in sequences else _NO_SEQUENCE
            continue
        if sales_order is not None:
            taken[legal_entity] += 1
        answer = Answer(
            channel_id=channel_id,
            transaction_id=transaction_id,
            customer_id=customer_id,
            status=TransactionStatus.SYNCHRONIZED,
            account_number=account_number,
            sales_order=sales_order,
            number=number,
        )
        found.released.append(answer)
    table = sales_order_sequences
    for legal_entity, count in sorted(taken.items()):
        headquarters.execute(
            update(table).where(table.c.legal_entity == legal_entity).values(next=table.c.next + count)
        )
    return found


_SEQUENCES: Final = select(sales_order_sequences).order_by(sales_order_sequences.c.legal_entity).with_for_update()

_USED_UP: Final = Reason(
    field="sales_order",
    code="number_sequence_used_up",
    text="The sequence of sales order numbers has run out: give it a longer format.",
)
_NO_SEQUENCE: Final = Reason(
    field="legal_entity",
    code="no_sequence",
    text="This legal entity has no sequence of sales order numbers: run `tenten database upgrade headquarters`.",
)


def _numbers_left(sequence: Row[Any]) -> dict[str, str | int]:
    written = number_format(sequence.format)
    return {
        "legal_entity": sequence.legal_entity,
        "next": sequence.next,
        "last": written.number_max,
        "before": written.before,
        "digits": written.digits,
        "after": written.after,
    }


_LET_THROUGH_DUE: Final = """
    WITH due AS ({due}), ranked AS (
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
    SELECT legal_entity, is_released, transaction_id::text, channel_id, customer_id::text, account_number, sales_order,
           answer + 1
    FROM numbered
    """
_LET_THROUGH: Final = {sweep: text(_LET_THROUGH_DUE.format(due=due)) for sweep, due in _DUE.items()}
"""Everything that letting through writes, in one statement."""


def _block(headquarters: Connection, refused: Mapping[str, Reason], now: datetime) -> list[Answer]:
    """Block what could be let through but for a number; nothing where it is blocked for that already."""
    alike: dict[Reason, list[str]] = defaultdict(list)
    for transaction_id, reason in refused.items():
        alike[reason].append(transaction_id)
    answers: list[Answer] = []
    for reason, ids in alike.items():
        blocked = {"ids": pg_array_literal(ids), "why": reasons_as_json([reason]), "now": now}
        answers += _changed(headquarters.execute(_BLOCK, blocked))
    return answers


_BLOCK: Final = text(
    """
    UPDATE retail_transactions SET status = 'blocked', reasons = :why, changed_at = :now, answer = answer + 1
    WHERE transaction_id = ANY (CAST(:ids AS uuid[]))
      AND (status = 'waiting' OR reasons::text <> CAST(:why AS json)::text)
    RETURNING transaction_id::text, channel_id, customer_id::text, status, reasons, answer
    """
).bindparams(bindparam("why", type_=JSON))


_BLOCK_REJECTED_AMONG: Final = """
    UPDATE retail_transactions AS waiting
    SET status = 'blocked', reasons = brought.reasons, changed_at = :now, answer = waiting.answer + 1
    FROM (
        SELECT waiting.transaction_id, refused.reasons
        FROM retail_transactions AS waiting
        JOIN synchronization_log AS refused
          ON refused.event_id = waiting.customer_event_id AND refused.customer_id = waiting.customer_id
        WHERE {among} AND waiting.status <> 'blocked' AND refused.outcome = 'rejected'
        LIMIT :rows_max
        FOR UPDATE OF waiting SKIP LOCKED
    ) AS brought
    WHERE waiting.transaction_id = brought.transaction_id
    RETURNING waiting.transaction_id::text, waiting.channel_id, waiting.customer_id::text, waiting.status,
              waiting.reasons, waiting.answer
    """
_BLOCK_REJECTED: Final = {sweep: text(_BLOCK_REJECTED_AMONG.format(among=among)) for sweep, among in _AMONG.items()}
"""Block what waits for an event that headquarters has rejected, with its reasons. Not `status = 'waiting'`: that alone
would let PostgreSQL go through all that waits, which `coalesce` keeps it from.
"""


def _answer_waiting(headquarters: Connection, now: datetime) -> list[Answer]:
    """Tell the channel of what has not been let through at once."""
    before = now - timedelta(seconds=ANSWER_SECONDS)
    return list(_changed(headquarters.execute(_ANSWER_WAITING, {"before": before, "rows_max": _ANSWERS_MAX})))


_ANSWER_WAITING: Final = text(
    """
    UPDATE retail_transactions AS waiting SET answer = 1
    WHERE waiting.transaction_id IN (
        SELECT transaction_id FROM retail_transactions
        WHERE status = 'waiting' AND answer = 0 AND received_at < :before
        LIMIT :rows_max
        FOR UPDATE SKIP LOCKED
    )
    RETURNING transaction_id::text, channel_id, customer_id::text, status, reasons, answer
    """
)


def _changed(rows: Iterable[Row[Any]]) -> Iterable[Answer]:
    for row in rows:
        yield Answer(
            channel_id=row.channel_id,
            transaction_id=row.transaction_id,
            customer_id=row.customer_id,
            status=TransactionStatus(row.status),
            reasons=reasons_from_json(row.reasons),
            number=row.answer,
        )


def _alarm(headquarters: Connection, now: datetime, waiting_seconds_max: int) -> None:
    """Say once of each transaction that it waits for too long."""
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
