"""Let waiting transactions through: an order becomes a sales order with a number, a cash-and-carry can be posted.

One round is one SQL transaction, one round at a time, whichever process makes it. A transaction is let through when

- it has no customer, or
- headquarters has taken in the event that it brought along, or it brought none and the customer is there, one of the
  same legal entity, or
- the customer is erased, or
- the event was rejected, but customer and address are known all the same.

The way of its customer does not matter: whoever brings it, in whatever order, the next round finds it. A transaction
whose event was rejected is blocked with the reasons, and let through by a round after the correction.

A round looks at what `due.py` has noted; a sweep looks at all that waits, so that nothing depends on the notes.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import JSON, Connection, Engine, Row, bindparam, select, text, update
from sqlalchemy.exc import DBAPIError
from structlog import get_logger

from commerce.failpoints import failpoint
from commerce.failures import error_code, is_transient
from commerce.number_sequence import number_format, take
from consumers.transactions.answers import Answer, write_answers
from consumers.transactions.due import guid_array, take_due
from consumers.transactions.record import OF_A_RECORD
from consumers.transactions.statements import judge_statements
from schemas.headquarters import sales_order_sequences
from schemas.records import Reason, TransactionStatus, reasons_as_json, reasons_from_json

log = get_logger(__name__)

ROUND_MAX: Final = 10_000
"""Transactions that one SQL transaction lets through."""

ANSWER_SECONDS: Final = 1.0
"""A transaction that waits for so long is said to be waiting; most do not."""

GIVE_UP_SECONDS: Final = 60.0
"""For so long an event that headquarters has not seen is waited for where customer and address are known without it."""

_ALARMS_MAX: Final = 100
"""Alarms of one round."""

_CANNOT_BE_WRITTEN: Final = "cannot_be_written"
"""The code of what is blocked by the database itself: it is not tried again."""

ONE_BY_ONE_MAX: Final = 500
"""Transactions of a round in which each is let through on its own."""

_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('tenten.release', 0))")


class Round(NamedTuple):
    """What a round came to."""

    released: int
    statements: int
    """How many statements have changed."""
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
        headquarters.execute(_LOCK)
        now = datetime.now(UTC)
        noted = take_due(headquarters, ROUND_MAX)
        rows_max = ONE_BY_ONE_MAX if one_by_one else ROUND_MAX
        looked_at = {"ids": guid_array(noted), "rows_max": rows_max, "give_up": now - _GIVE_UP, "now": now}
        due = headquarters.execute(_DUE[sweep], looked_at).all() if sweep or noted else []
        numbered = _one_by_one(headquarters, due, now) if one_by_one else _together(headquarters, due, now)
        answers = [_released(row, numbered.sales_orders) for row in due if row.transaction_id in numbered.sales_orders]
        answers += _block(headquarters, numbered.refused, now)
        if sweep or noted:
            answers += _changed(headquarters.execute(_BLOCK_REJECTED[sweep], looked_at))
        if sweep:
            answers += _answer_waiting(headquarters, now)
            _alarm(headquarters, now, waiting_seconds_max)
        statements = judge_statements(headquarters, now)
        write_answers(headquarters, [*answers, *statements], now)
        failpoint("release.before_commit")
    failpoint("release.after_commit")
    full = len(noted) == ROUND_MAX or len(numbered.sales_orders) == rows_max
    return Round(len(numbered.sales_orders), len(statements), full=full)


_GIVE_UP: Final = timedelta(seconds=GIVE_UP_SECONDS)

_AMONG: Final = {
    True: {"among": "retail_transactions AS waiting", "status": "waiting.status"},
    # `coalesce` keeps PostgreSQL from going through all that waits by its index, not by these ids.
    False: {
        "among": """
        (SELECT DISTINCT unnest(CAST(:ids AS uuid[])) AS id) AS noted
        JOIN retail_transactions AS waiting ON waiting.transaction_id = noted.id
        """,
        "status": "coalesce(waiting.status, '')",
    },
}
"""What a sweep looks at, and what a round that is none does."""

_DUE_AMONG: Final = """
    SELECT waiting.transaction_id::text, waiting.channel_id, waiting.kind, waiting.legal_entity,
           waiting.customer_id::text, waiting.answer, customers.account_number
    FROM {among}
    LEFT JOIN customers ON customers.customer_id = waiting.customer_id
    LEFT JOIN synchronization_log AS brought
           ON brought.event_id = waiting.customer_event_id AND brought.customer_id = waiting.customer_id
    WHERE {status} IN ('waiting', 'blocked')
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
    ORDER BY waiting.status = 'blocked', waiting.received_at, waiting.partition, waiting."offset"
    LIMIT :rows_max
    FOR UPDATE OF waiting SKIP LOCKED
    """
_DUE: Final = {sweep: text(_DUE_AMONG.format(**among)) for sweep, among in _AMONG.items()}
"""What can be let through, in the order in which it came; what is blocked, perhaps for want of a number, keeps nobody
from it. What another transaction holds is for the next round.
"""


def _together(headquarters: Connection, due: Sequence[Row[Any]], now: datetime) -> "_Numbered":
    numbered = _number(headquarters, due)
    _let_through(headquarters, due, numbered.sales_orders, now)
    return numbered


def _one_by_one(headquarters: Connection, due: Sequence[Row[Any]], now: datetime) -> "_Numbered":
    """Each on its own, so that what the database refuses harms no other. Slow, and rare."""
    numbered = _Numbered({}, {})
    for row in due:
        try:
            with headquarters.begin_nested():
                one = _together(headquarters, [row], now)
        except DBAPIError as error:
            if is_transient(error) or (error_code(error) or "")[:2] not in OF_A_RECORD:
                raise
            text = "Headquarters' database refuses what would become of it: somebody has to look."
            numbered.refused[row.transaction_id] = Reason(field="", code=_CANNOT_BE_WRITTEN, text=text)
        else:
            numbered.sales_orders.update(one.sales_orders)
            numbered.refused.update(one.refused)
    return numbered


class _Numbered(NamedTuple):
    sales_orders: dict[str, str | None]
    """By transaction id: the number of an order, None of a cash-and-carry."""
    refused: dict[str, Reason]
    """By transaction id: why there is no number."""


def _number(headquarters: Connection, due: Sequence[Row[Any]]) -> _Numbered:
    """Give orders their numbers: gap-free, from a sequence for each legal entity."""
    numbered = _Numbered({row.transaction_id: None for row in due if row.kind != "order"}, {})
    orders: dict[str, list[str]] = defaultdict(list)
    for row in due:
        if row.kind == "order":
            orders[row.legal_entity].append(row.transaction_id)
    for entity, ids in sorted(orders.items()):
        _number_of_entity(headquarters, entity, ids, numbered)
    return numbered


def _number_of_entity(headquarters: Connection, entity: str, ids: Sequence[str], numbered: _Numbered) -> None:
    table = sales_order_sequences
    sequence = headquarters.execute(select(table).where(table.c.legal_entity == entity).with_for_update()).first()
    if sequence is None:
        text = "This legal entity has no sequence of sales order numbers: run `tenten database upgrade headquarters`."
        numbered.refused.update(dict.fromkeys(ids, Reason(field="legal_entity", code="no_sequence", text=text)))
        return
    written = number_format(sequence.format)
    taken = take(written, sequence.next, len(ids))
    numbers = map(written.account_number, taken.numbers)
    numbered.sales_orders.update(zip(ids, numbers, strict=False))
    text = "The sequence of sales order numbers has run out: give it a longer format."
    used_up = Reason(field="sales_order", code="used_up", text=text)
    numbered.refused.update(dict.fromkeys(ids[len(taken.numbers) :], used_up))
    headquarters.execute(
        update(table).where(table.c.legal_entity == entity).values(next=sequence.next + len(taken.numbers))
    )


def _let_through(
    headquarters: Connection, due: Sequence[Row[Any]], sales_orders: Mapping[str, str | None], now: datetime
) -> None:
    if sales_orders:
        numbered = [
            {
                "transaction_id": row.transaction_id,
                "account_number": row.account_number,
                "sales_order": sales_orders[row.transaction_id],
            }
            for row in due
            if row.transaction_id in sales_orders
        ]
        headquarters.execute(_LET_THROUGH, {"numbered": json.dumps(numbered), "now": now})


_LET_THROUGH: Final = text(
    """
    WITH released AS (
        UPDATE retail_transactions AS waiting
        SET status = 'synchronized', reasons = '[]', changed_at = :now, answer = waiting.answer + 1,
            account_number = numbered.account_number
        FROM json_to_recordset(CAST(:numbered AS json))
             AS numbered (transaction_id uuid, account_number text, sales_order text)
        WHERE waiting.transaction_id = numbered.transaction_id
        RETURNING waiting.*, numbered.sales_order
    ), orders AS (
        INSERT INTO sales_orders (
            legal_entity, sales_order, transaction_id, channel_id, business_date, customer_id, account_number,
            currency, total, delivery_mode, delivery_address, created_at
        )
        SELECT legal_entity, sales_order, transaction_id, channel_id, business_date, customer_id, account_number,
               currency, total, content->>'delivery_mode', content->'delivery_address', :now
        FROM released WHERE sales_order IS NOT NULL
    )
    INSERT INTO sales_order_lines (legal_entity, sales_order, line_number, sku, quantity, price, amount)
    SELECT released.legal_entity, released.sales_order, line.number, line.sku, line.quantity, line.price, line.amount
    FROM released, ROWS FROM (
        json_to_recordset(released.content->'lines') AS (sku text, quantity numeric, price numeric, amount numeric)
    ) WITH ORDINALITY AS line (sku, quantity, price, amount, number)
    WHERE released.sales_order IS NOT NULL
    """
)
"""Everything that letting through writes, in one statement."""


def _released(row: Row[Any], sales_orders: Mapping[str, str | None]) -> Answer:
    return Answer(
        channel_id=row.channel_id,
        transaction_id=row.transaction_id,
        customer_id=row.customer_id,
        status=TransactionStatus.SYNCHRONIZED,
        account_number=row.account_number,
        sales_order=sales_orders[row.transaction_id],
        number=row.answer + 1,
    )


def _block(headquarters: Connection, refused: Mapping[str, Reason], now: datetime) -> list[Answer]:
    """Block what could be let through but for a number; nothing where it is blocked for that already."""
    rows = [{"of": one, "why": reasons_as_json([reason])} for one, reason in refused.items()]
    return [answer for row in rows for answer in _changed(headquarters.execute(_BLOCK, {**row, "now": now}))]


_BLOCK: Final = text(
    """
    UPDATE retail_transactions SET status = 'blocked', reasons = :why, changed_at = :now, answer = answer + 1
    WHERE transaction_id = :of AND (status = 'waiting' OR reasons::text <> CAST(:why AS json)::text)
    RETURNING transaction_id::text, channel_id, customer_id::text, status, reasons, answer
    """
).bindparams(bindparam("why", type_=JSON))


_BLOCK_REJECTED_AMONG: Final = """
    UPDATE retail_transactions AS waiting
    SET status = 'blocked', reasons = brought.reasons, changed_at = :now, answer = waiting.answer + 1
    FROM (
        SELECT waiting.transaction_id, refused.reasons
        FROM {among}
        JOIN synchronization_log AS refused
          ON refused.event_id = waiting.customer_event_id AND refused.customer_id = waiting.customer_id
        WHERE {status} = 'waiting' AND refused.outcome = 'rejected'
        LIMIT :rows_max
        FOR UPDATE OF waiting SKIP LOCKED
    ) AS brought
    WHERE waiting.transaction_id = brought.transaction_id
    RETURNING waiting.transaction_id::text, waiting.channel_id, waiting.customer_id::text, waiting.status,
              waiting.reasons, waiting.answer
    """
_BLOCK_REJECTED: Final = {sweep: text(_BLOCK_REJECTED_AMONG.format(**among)) for sweep, among in _AMONG.items()}
"""Block what waits for an event that headquarters has rejected, with its reasons."""


def _answer_waiting(headquarters: Connection, now: datetime) -> list[Answer]:
    """Tell the channel of what has not been let through at once."""
    before = now - timedelta(seconds=ANSWER_SECONDS)
    return list(_changed(headquarters.execute(_ANSWER_WAITING, {"before": before, "rows_max": ROUND_MAX})))


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
