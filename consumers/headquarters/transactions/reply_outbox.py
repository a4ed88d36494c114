"""The reply outbox: replies to transactions, enqueued in the SQL transaction that changes a status, then published.

A channel may receive a reply twice. Replies to a transaction are numbered upwards, so the channel keeps the newest.
Replies that release 0.1.0 has enqueued are published in the form of this release.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from sqlalchemy import Connection, Engine, delete, text

from tenten.avro.columns import encode_columns
from tenten.avro.wire import contract, decode_body, encode, released_contract
from tenten.consumers.headquarters.transactions.transaction_traces import traces_of
from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.records import Headers, produce
from tenten.runtime.failpoints import failpoint
from tenten.runtime.tracing import HEADER
from tenten.schemas.messages import (
    Reason,
    TransactionReply,
    TransactionStatus,
    to_avro,
    transaction_reply_of_0_1_0,
)
from tenten.schemas.tables.headquarters import replies_due
from tenten.sql.arrays import is_one_of
from tenten.sql.bulk_copy import copy_into
from tenten.sql.postgresql_driver import driver_cursor

REPLIES_CHANNEL: Final = "tenten_answers"
"""PostgreSQL NOTIFY channel: notified in every transaction that enqueues replies."""

REPLIES_MAX: Final = 10_000
"""Maximum number of replies in a row. Rows with fewer than twice as many are published together."""

_ROW_BYTES_MAX: Final = 16 * 1024 * 1024
"""A row ends with the reply that exceeds this size: reasons may be long."""

_PUBLISH_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('tenten.answers', 0))")


class QueuedReply(NamedTuple):
    """The current status of a transaction or an end of day, for its channel."""

    channel_id: str
    transaction_id: str
    status: TransactionStatus
    sequence: int
    input_partition: int | None
    """Null for a statement that release 0.1.0 has stored."""
    input_offset: int | None
    reasons: tuple[Reason, ...] = ()
    sales_order: str | None = None


def id_conflict_reply(transaction_id: str, channel_id: str, partition: int, offset: int) -> QueuedReply:
    """The reply to a transaction that has the id of another channel's, and so cannot be stored."""
    return QueuedReply(
        channel_id=channel_id,
        transaction_id=transaction_id,
        status=TransactionStatus.REJECTED,
        reasons=(_DUPLICATE,),
        # Grows when it is sent again, so that the channel takes the next reply for a newer one.
        sequence=offset + 1,
        input_partition=partition,
        input_offset=offset,
    )


_DUPLICATE: Final = Reason(
    field="transaction_id",
    code="duplicate",
    text="Another channel's transaction has this id: each transaction needs an id of its own.",
)


def enqueue_replies(headquarters: Connection, replies: Sequence[QueuedReply], at: datetime) -> None:
    """Enqueue replies, which are published in this order after the SQL transaction has committed."""
    if not replies:
        return
    without_reasons = iter(_encode([reply for reply in replies if not reply.reasons], at))
    payloads = [framed_reply(reply, at) if reply.reasons else next(without_reasons) for reply in replies]
    for start, end in _rows(payloads):
        part = replies[start:end]
        row = {
            "answer_count": [len(part)],
            "channel_ids": [[reply.channel_id for reply in part]],
            "transaction_ids": [[reply.transaction_id for reply in part]],
            "payloads": [payloads[start:end]],
        }
        copy_into(driver_cursor(headquarters), "replies_due", pl.DataFrame(row, schema=_ROW_SCHEMA))
    headquarters.execute(text(f"NOTIFY {REPLIES_CHANNEL}"))


def _rows(payloads: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Start and end of the replies of each row."""
    start, row_bytes = 0, 0
    for end, payload in enumerate(payloads, start=1):
        row_bytes += len(payload)
        if end - start == REPLIES_MAX or row_bytes > _ROW_BYTES_MAX or end == len(payloads):
            yield start, end
            start, row_bytes = end, 0


_ROW_SCHEMA: Final = pl.Schema(
    {
        "answer_count": pl.Int32(),
        "channel_ids": pl.List(pl.String()),
        "transaction_ids": pl.List(pl.String()),
        "payloads": pl.List(pl.Binary()),
    }
)


_CONTRACT: Final = contract("TransactionReply")


def framed_reply(reply: QueuedReply, at: datetime) -> bytes:
    """The value of a reply's record."""
    message = TransactionReply(
        channel_id=reply.channel_id,
        transaction_id=reply.transaction_id,
        status=reply.status,
        sales_order=reply.sales_order,
        reasons=reply.reasons,
        sequence=reply.sequence,
        answered_at=at,
        input_partition=reply.input_partition,
        input_offset=reply.input_offset,
    )
    return encode(_CONTRACT, to_avro(message))


def reply_headers(transaction_id: str, traceparent: str | None = None) -> Headers:
    """The headers of a reply's record."""
    headers: Headers = [("id", transaction_id), ("type", _CONTRACT.name)]
    return headers if traceparent is None else [*headers, (HEADER, traceparent)]


def _encode(replies: Sequence[QueuedReply], at: datetime) -> list[bytes]:
    """Replies without reasons, framed."""
    columns: dict[str, Sequence[Any]] = {
        "channel_id": [reply.channel_id for reply in replies],
        "transaction_id": [reply.transaction_id for reply in replies],
        "status": [reply.status.value for reply in replies],
        "sales_order": [reply.sales_order for reply in replies],
        "sequence": [reply.sequence for reply in replies],
        "answered_at": [at] * len(replies),
        "input_partition": [reply.input_partition for reply in replies],
        "input_offset": [reply.input_offset for reply in replies],
    }
    return encode_columns(_CONTRACT, columns, _CONTRACT.header)


def publish_replies(engine: Engine, producer: Producer, topic: str) -> int:
    """Publish queued replies, oldest first, then delete them; return how many. One publisher at a time.

    Blocks until the broker has acknowledged them. Raises: `KafkaException` when it does not; then nothing is deleted,
    and the producer cannot be used again.
    """
    published = 0
    while True:
        with engine.begin() as headquarters:
            headquarters.execute(_PUBLISH_LOCK)
            queued = driver_cursor(headquarters, binary=True).execute(_OLDEST, (REPLIES_MAX, REPLIES_MAX)).fetchall()
            if not queued:
                return published
            traces = traces_of(headquarters, [transaction_id for _, _, transaction_id, _ in queued])
            _publish(producer, topic, queued, traces)
            failpoint("answers.after_send")
            sequences = {sequence for sequence, *_ in queued}
            # Not a join: after a vacuum of the empty table PostgreSQL expects it to stay empty, and joins by nested
            # loops.
            headquarters.execute(delete(replies_due).where(is_one_of(headquarters, replies_due.c.sequence, sequences)))
        published += len(queued)


_OLDEST: Final = """
    SELECT due.sequence, answer.channel_id, answer.transaction_id, answer.payload
    FROM (
        SELECT *, sum(answer_count) OVER (ORDER BY sequence) - answer_count AS before
        FROM (SELECT * FROM replies_due ORDER BY sequence LIMIT %s) AS first
    ) AS due, ROWS FROM (unnest(due.channel_ids), unnest(due.transaction_ids), unnest(due.payloads))
        WITH ORDINALITY AS answer (channel_id, transaction_id, payload, place)
    WHERE due.before < %s
    ORDER BY due.sequence, answer.place
    """
"""The oldest rows, until they contain this many replies."""


def _publish(
    producer: Producer, topic: str, queued: Iterable[tuple[int, str, str, bytes]], traces: Mapping[str, str]
) -> None:
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for _, channel_id, transaction_id, payload in queued:
        value, headers = _in_this_form(payload), reply_headers(transaction_id, traces.get(transaction_id))
        produce(producer, topic, channel_id, value, headers=headers, on_delivery=delivered)
    unacknowledged = producer.flush(REQUEST_SECONDS)
    for failure in failures:
        raise KafkaException(failure)
    if unacknowledged:
        raise KafkaException(f"no acknowledgement within {REQUEST_SECONDS} s")


def _in_this_form(payload: bytes) -> bytes:
    """The reply as a `TransactionReply`; release 0.1.0 has enqueued each as a `Reply`."""
    released = released_contract("Reply")
    if not payload.startswith(released.header):
        return payload
    reply = decode_body(payload[len(released.header) :], writer=released, reader=contract("Reply"))
    return encode(_CONTRACT, to_avro(transaction_reply_of_0_1_0(reply)))
