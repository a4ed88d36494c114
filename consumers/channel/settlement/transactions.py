"""What headquarters' answers change of a channel's orders, cash-and-carry and ends of day, within settlement's own SQL
transaction.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select, text

from tenten.schemas.messages import Reply, reasons_as_json
from tenten.schemas.tables.channel import end_of_days, transactions
from tenten.sql.arrays import is_one_of


def settle_sales(connection: Connection, replies: Sequence[Reply], at: datetime) -> None:
    """Take in replies to transactions: of each the newest counts, by its number. A fixed number of statements.

    Any answer settles a row of the outbox that was sent: headquarters has it. One that is unsent was sent before, and
    either the answer was quicker than the relay's mark, or a clerk sends it again: then only a new answer settles it.
    Called twice it changes nothing more. The rows are locked in the order of their ids.
    """
    newest = {reply.event_id: reply for reply in sorted(replies, key=_number)}
    known: dict[str, int] = {}
    for key, answer in _ANSWERED:
        query = select(key, answer).where(is_one_of(connection, key, newest)).order_by(key).with_for_update()
        known.update((row[0], row[1]) for row in connection.execute(query))
    rows = [_row(newest[transaction_id], known[transaction_id], at) for transaction_id in sorted(known)]
    for change, where in _CHANGES:
        statement = " ".join((change, _ANSWERS[connection.dialect.name], where))
        connection.execute(text(statement), {"answers": json.dumps(rows)})


_ANSWERED: Final = (
    (transactions.c.transaction_id, transactions.c.answer),
    (end_of_days.c.end_of_day_id, end_of_days.c.answer),
)


def _number(reply: Reply) -> int:
    """Which answer to its transaction it is, counted from 1."""
    return reply.version or 0


def _row(reply: Reply, known: int, at: datetime) -> dict[str, object]:
    """A reply as the statements below read it; `known` is the number of the newest answer that the channel has."""
    return {
        "id": reply.event_id,
        "outcome": reply.outcome.lower(),
        "status": reply.transaction_status,
        "sales_order": reply.sales_order,
        "reasons": reasons_as_json(reply.reasons) or None,
        "answer": _number(reply),
        "is_new": _number(reply) > known,
        "at": at.isoformat(timespec="microseconds"),
    }


_CHANGES: Final = (
    (
        """
        UPDATE transactions SET status = r.status, reasons = r.reasons, answer = r.answer, updated_at = r.at,
            sales_order = coalesce(r.sales_order, transactions.sales_order)
        """,
        "WHERE transactions.transaction_id = r.id AND r.is_new",
    ),
    (
        "UPDATE end_of_days SET status = r.status, reasons = r.reasons, answer = r.answer, updated_at = r.at",
        "WHERE end_of_days.end_of_day_id = r.id AND r.is_new",
    ),
    (
        "UPDATE outbox SET outcome = r.outcome, reasons = r.reasons, settled_at = r.at",
        "WHERE outbox.id = r.id AND outbox.settled_at IS NULL AND (r.is_new OR outbox.sent_at IS NOT NULL)",
    ),
)
"""What is set, and where: only where the answer is new, the outbox as said above."""

_ANSWERS: Final = {
    "postgresql": """
        FROM json_to_recordset(CAST(:answers AS json)) AS r (id uuid, outcome text, status text, sales_order text,
            reasons json, answer bigint, is_new boolean, at timestamptz)
        """,
    "sqlite": """
        FROM (SELECT json_extract(value, '$.id') AS id, json_extract(value, '$.outcome') AS outcome,
                json_extract(value, '$.status') AS status, json_extract(value, '$.sales_order') AS sales_order,
                json_extract(value, '$.reasons') AS reasons, json_extract(value, '$.answer') AS answer,
                json_extract(value, '$.is_new') AS is_new, json_extract(value, '$.at') AS at
            FROM json_each(:answers)) AS r
        """,
}
"""The answers as rows."""
