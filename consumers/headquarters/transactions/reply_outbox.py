"""Answers to transactions: written into headquarters' database together with what they tell, then sent.

A channel may get the same answer twice; each has a number, which only ever grows, so it keeps the newest.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import polars as pl
import psycopg
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from sqlalchemy import Connection, Engine, delete, text

from tenten.avro.columns import encode_columns
from tenten.avro.wire import contract, encode
from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.records import Headers, produce
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import NO_CUSTOMER, Outcome, Reason, Reply, TransactionStatus, to_avro
from tenten.schemas.tables.headquarters import replies_due
from tenten.sql.arrays import is_one_of
from tenten.sql.bulk_copy import copy_into

ANSWERS_CHANNEL: Final = "tenten_answers"
"""PostgreSQL: notified in every transaction that writes answers, for whoever sends them."""

SEND_MAX: Final = 10_000
"""At most so many answers lie in a row. Rows are sent together until there are so many: fewer than twice as many."""

_ROW_BYTES_MAX: Final = 16 * 1024 * 1024
"""A row ends with the answer that makes it larger than that: reasons may be long."""

_SEND_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('tenten.answers', 0))")


class Answer(NamedTuple):
    """Where a transaction or an end of day stands now."""

    channel_id: str
    transaction_id: str
    customer_id: str | None
    status: TransactionStatus
    number: int
    reasons: tuple[Reason, ...] = ()
    account_number: str | None = None
    sales_order: str | None = None


def foreign_answer(transaction_id: str, channel_id: str, offset: int) -> Answer:
    """The answer to a transaction with the id of another channel's: no repeat, and the table has no place for it."""
    return Answer(
        channel_id=channel_id,
        transaction_id=transaction_id,
        customer_id=None,
        status=TransactionStatus.REJECTED,
        reasons=(_DUPLICATE,),
        # Whoever sends it again is to take the next answer for a newer one.
        number=offset + 1,
    )


_DUPLICATE: Final = Reason(
    field="transaction_id",
    code="duplicate",
    text="Another channel's transaction has this id: the writer must give every one an id of its own.",
)


def write_answers(headquarters: Connection, answers: Sequence[Answer], at: datetime) -> None:
    """Have these answers sent once the transaction has committed, in this order."""
    if not answers:
        return
    header = contract("Reply").header
    plain = iter(_encode([one for one in answers if not one.reasons], at, header))
    payloads = [
        encode(contract("Reply"), to_avro(_reply(one, at)), header) if one.reasons else next(plain) for one in answers
    ]
    for start, end in _rows(payloads):
        part = answers[start:end]
        row = {
            "answer_count": [len(part)],
            "channel_ids": [[one.channel_id for one in part]],
            "transaction_ids": [[one.transaction_id for one in part]],
            "payloads": [payloads[start:end]],
        }
        copy_into(cursor_of(headquarters), "replies_due", pl.DataFrame(row, schema=_DUE_SCHEMA))
    headquarters.execute(text(f"NOTIFY {ANSWERS_CHANNEL}"))


def _rows(payloads: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Where the answers of each row begin and end."""
    start, row_bytes = 0, 0
    for end, payload in enumerate(payloads, start=1):
        row_bytes += len(payload)
        if end - start == SEND_MAX or row_bytes > _ROW_BYTES_MAX or end == len(payloads):
            yield start, end
            start, row_bytes = end, 0


_DUE_SCHEMA: Final = pl.Schema(
    {
        "answer_count": pl.Int32(),
        "channel_ids": pl.List(pl.String()),
        "transaction_ids": pl.List(pl.String()),
        "payloads": pl.List(pl.Binary()),
    }
)


def _reply(answer: Answer, at: datetime) -> Reply:
    return Reply(
        channel_id=answer.channel_id,
        event_id=answer.transaction_id,
        customer_id=answer.customer_id or NO_CUSTOMER,
        outcome=_outcome(answer.status),
        reasons=answer.reasons,
        account_number=answer.account_number,
        version=answer.number,
        answered_at=at,
        transaction_status=answer.status,
        sales_order=answer.sales_order,
    )


def _outcome(status: TransactionStatus) -> Outcome:
    return Outcome.REJECTED if status is TransactionStatus.REJECTED else Outcome.SYNCHRONIZED


def _encode(answers: Sequence[Answer], at: datetime, header: bytes) -> list[bytes]:
    """Answers without reasons as framed replies."""
    columns: dict[str, Sequence[Any]] = {
        "channel_id": [answer.channel_id for answer in answers],
        "event_id": [answer.transaction_id for answer in answers],
        "customer_id": [answer.customer_id or NO_CUSTOMER for answer in answers],
        "outcome": [_outcome(answer.status).value for answer in answers],
        "account_number": [answer.account_number for answer in answers],
        "version": [answer.number for answer in answers],
        "transaction_status": [answer.status.value for answer in answers],
        "sales_order": [answer.sales_order for answer in answers],
        "answered_at": [at] * len(answers),
    }
    return encode_columns(contract("Reply"), columns, header)


def cursor_of(headquarters: Connection, *, binary: bool = False) -> psycopg.Cursor[Any]:
    """A cursor of the driver's own, in the connection's transaction."""
    driver = headquarters.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor(binary=binary)


def send_answers(engine: Engine, producer: Producer, topic: str) -> int:
    """Send what is due, oldest first, and strike it off once the broker has it; how many. One sender at a time.

    Blocks until the broker has taken them. Raises: `KafkaException` when it does not; nothing is struck off then, and
    the producer is of no use any more.
    """
    sent = 0
    while True:
        with engine.begin() as headquarters:
            headquarters.execute(_SEND_LOCK)
            due = cursor_of(headquarters, binary=True).execute(_DUE, (SEND_MAX, SEND_MAX)).fetchall()
            if not due:
                return sent
            _send(producer, topic, due)
            failpoint("answers.after_send")
            sequences = {sequence for sequence, *_ in due}
            # Not a join: after a vacuum found the table empty, PostgreSQL takes it to stay so, and compares each with
            # each.
            headquarters.execute(delete(replies_due).where(is_one_of(headquarters, replies_due.c.sequence, sequences)))
        sent += len(due)


_DUE: Final = """
    SELECT due.sequence, answer.channel_id, answer.transaction_id, answer.payload
    FROM (
        SELECT *, sum(answer_count) OVER (ORDER BY sequence) - answer_count AS before
        FROM (SELECT * FROM replies_due ORDER BY sequence LIMIT %s) AS first
    ) AS due, ROWS FROM (unnest(due.channel_ids), unnest(due.transaction_ids), unnest(due.payloads))
        WITH ORDINALITY AS answer (channel_id, transaction_id, payload, place)
    WHERE due.before < %s
    ORDER BY due.sequence, answer.place
    """
"""So many answers, oldest first, and what else was written with the last of them."""


def _send(producer: Producer, topic: str, due: Iterable[tuple[int, str, str, bytes]]) -> None:
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for _, channel_id, transaction_id, payload in due:
        headers: Headers = [("id", transaction_id), ("type", "Reply")]
        produce(producer, topic, channel_id, payload, headers=headers, on_delivery=delivered)
    unanswered = producer.flush(REQUEST_SECONDS)
    for failure in failures:
        raise KafkaException(failure)
    if unanswered:
        raise KafkaException(f"no answer within {REQUEST_SECONDS} s")
