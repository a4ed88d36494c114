"""Replies to orders, cash-and-carry sales and ends of day: store their status, settle the outbox rows, write channel
events.

A reply has a number among those to its transaction, and only a higher one than the stored counts: replies may arrive
twice, and in any order, since those of release 0.1.0 and of later ones are on different topics. A reply to a record
that headquarters could not read has no number of its own: it counts while the transaction is pending.

Runs within settlement's SQL transaction.
"""

import json
from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, literal, select, text

from tenten.schemas.messages import UNREADABLE_SEQUENCE, TransactionReply, TransactionStatus, reasons_as_json
from tenten.schemas.tables.channel import end_of_days, outbox, outbox_queue, transactions
from tenten.sql.arrays import is_one_of
from tenten.sql.channel_events import EventType, NewEvent, Subject, write_events


def settle_transactions(connection: Connection, replies: Sequence[TransactionReply], at: datetime) -> None:
    """Store the reply with the highest number of each transaction. Idempotent. A fixed number of statements.

    Any reply settles an outbox row that is no longer queued: headquarters has it. A queued row was sent before: either
    the reply arrived before the relay took the row off the queue, or it is being sent again; then only a new reply
    settles it.
    Locks the rows in the order of their ids.
    """
    newest: dict[str, TransactionReply] = {}
    for reply in sorted(replies, key=lambda reply: reply.sequence, reverse=True):
        newest.setdefault(reply.transaction_id, reply)
    unreadable = [reply.transaction_id for reply in newest.values() if reply.sequence == UNREADABLE_SEQUENCE]
    queued = _queued(connection, unreadable) if unreadable else frozenset()
    rows, events = [], []
    for key, number, status, kind in _STORED:
        is_answered = is_one_of(connection, key, newest)
        query = select(key, number, status, kind).where(is_answered).order_by(key).with_for_update()
        for transaction_id, stored_number, stored_status, stored_kind in connection.execute(query):
            reply = newest[transaction_id]
            is_new = (
                _counts(stored_number, stored_status, is_queued=transaction_id in queued)
                if reply.sequence == UNREADABLE_SEQUENCE
                else reply.sequence > stored_number
            )
            rows.append(_row(reply, stored_number, is_new, at))
            if is_new:
                events.append(_event(reply, stored_kind))
    for change, where in _CHANGES:
        statement = " ".join((change, _REPLIES[connection.dialect.name], where))
        connection.execute(text(statement), {"replies": json.dumps(rows)})
    write_events(connection, events, at)


_STORED: Final = (
    (transactions.c.transaction_id, transactions.c.answer, transactions.c.status, transactions.c.kind),
    (end_of_days.c.end_of_day_id, end_of_days.c.answer, end_of_days.c.status, literal(Subject.END_OF_DAY.value)),
)

_EVENT_TYPES: Final = {
    TransactionStatus.WAITING: EventType.WAITING,
    TransactionStatus.BLOCKED: EventType.BLOCKED,
    TransactionStatus.REJECTED: EventType.REJECTED,
}


def _event(reply: TransactionReply, kind: str) -> NewEvent:
    """What this reply to a transaction of that kind has changed."""
    return NewEvent(
        type=_EVENT_TYPES.get(TransactionStatus(reply.status), EventType.POSTED),
        subject=Subject.END_OF_DAY if kind == Subject.END_OF_DAY else Subject.of_kind(kind),
        subject_id=reply.transaction_id,
        number=reply.sales_order,
        codes=tuple(reason.code for reason in reply.reasons),
    )


def _queued(connection: Connection, transaction_ids: Iterable[str]) -> Container[str]:
    """Those of these transactions that are queued to be sent."""
    query = select(outbox.c.id).join(outbox_queue, outbox_queue.c.sequence == outbox.c.sequence)
    return set(connection.scalars(query.where(is_one_of(connection, outbox.c.id, transaction_ids))))


def _counts(stored_number: int, stored_status: str, *, is_queued: bool) -> bool:
    """Whether the reply that a record is unreadable counts: not when a later one was sent, or is going to be."""
    return stored_status == TransactionStatus.PENDING and (stored_number == 0 or not is_queued)


def _row(reply: TransactionReply, stored_number: int, is_new: bool, at: datetime) -> dict[str, object]:
    """A reply as the statements below read it; `stored_number` is that of the newest reply in the channel."""
    return {
        "id": reply.transaction_id,
        "outcome": "rejected" if reply.status == TransactionStatus.REJECTED else "synchronized",
        "status": reply.status,
        "sales_order": reply.sales_order,
        "reasons": reasons_as_json(reply.reasons) or None,
        "answer": max(reply.sequence, stored_number or reply.sequence),
        "is_new": is_new,
        "at": at.isoformat(timespec="microseconds"),
    }


# The change and the condition of each statement: a transaction takes only a new reply; the outbox see above.
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
        """
        WHERE outbox.id = r.id AND outbox.settled_at IS NULL
              AND (r.is_new OR NOT EXISTS (SELECT 1 FROM outbox_queue WHERE outbox_queue.sequence = outbox.sequence))
        """,
    ),
)

# The replies as rows.
_REPLIES: Final = {
    "postgresql": """
        FROM json_to_recordset(CAST(:replies AS json)) AS r (id uuid, outcome text, status text, sales_order text,
            reasons json, answer bigint, is_new boolean, at timestamptz)
        """,
    "sqlite": """
        FROM (SELECT json_extract(value, '$.id') AS id, json_extract(value, '$.outcome') AS outcome,
                json_extract(value, '$.status') AS status, json_extract(value, '$.sales_order') AS sales_order,
                json_extract(value, '$.reasons') AS reasons, json_extract(value, '$.answer') AS answer,
                json_extract(value, '$.is_new') AS is_new, json_extract(value, '$.at') AS at
            FROM json_each(:replies)) AS r
        """,
}


def send_open_transactions_again(connection: Connection) -> None:
    """Queue the settled outbox rows of transactions that wait or are blocked at headquarters, to learn their status.

    Headquarters recognises a repeat and replies with the current status. Idempotent.
    """
    for statement in _SEND_AGAIN:
        connection.execute(statement, {"open": [TransactionStatus.WAITING.value, TransactionStatus.BLOCKED.value]})


_IS_OPEN: Final = """
    settled_at IS NOT NULL AND (
        id IN (SELECT transaction_id FROM transactions WHERE status IN :open)
        OR id IN (SELECT end_of_day_id FROM end_of_days WHERE status IN :open)
    )
    """

# Queue the rows; then they are unsettled again.
_SEND_AGAIN: Final = tuple(
    text(statement + _IS_OPEN + also).bindparams(bindparam("open", expanding=True))
    for statement, also in (
        ("INSERT INTO outbox_queue (sequence) SELECT sequence FROM outbox WHERE ", " ON CONFLICT DO NOTHING"),
        ("UPDATE outbox SET settled_at = NULL, outcome = NULL, reasons = NULL WHERE ", ""),
    )
)
