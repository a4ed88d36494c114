"""Replies to orders, sales and ends of day that are dead letters, as far as their channel and id can be told."""

from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Final

from confluent_kafka import Message

from tenten.avro.batches import UnreadableRow
from tenten.avro.wire import WriterSchemas
from tenten.consumers.headquarters.authenticity import UNANSWERED
from tenten.consumers.headquarters.output import Output
from tenten.consumers.headquarters.transactions.reply_outbox import QueuedReply, framed_reply, reply_headers
from tenten.consumers.headquarters.unreadable import leading_fields
from tenten.kafka.records import record_position
from tenten.schemas.messages import UNREADABLE_SEQUENCE, Reason, TransactionStatus

_ORIGIN: Final = ("channel_id", "transaction_id")
"""The first fields of every transaction."""


def unreadable_replies(
    messages: Sequence[Message],
    unreadable: Sequence[UnreadableRow],
    *,
    writers: WriterSchemas,
    channels: Container[str],
    now: datetime,
) -> list[Output]:
    """The replies to these rows of a batch.

    A record is answered to a known channel only, and only if its key and its header `id` do not name others. One that
    is not authentic, or of a suspended channel, is not answered.
    """
    replies = []
    for bad in unreadable:
        message = messages[bad.row]
        found = origin(message, writers)
        if bad.reason in UNANSWERED or found is None or found["channel_id"] not in channels:
            continue
        if message.key() != found["channel_id"].encode():
            continue
        partition, offset = record_position(message)
        text = f"Headquarters cannot read this transaction: it {bad.text}."
        reply = QueuedReply(
            channel_id=found["channel_id"],
            transaction_id=found["transaction_id"],
            status=TransactionStatus.REJECTED,
            sequence=UNREADABLE_SEQUENCE,
            input_partition=partition,
            input_offset=offset,
            reasons=(Reason(field="", code="unreadable_event", text=text),),
        )
        headers = reply_headers(reply.transaction_id)
        replies.append(Output(reply.channel_id.encode(), framed_reply(reply, now), headers))
    return replies


def origin(message: Message, writers: WriterSchemas) -> Mapping[str, str] | None:
    """Channel and id of a record, whose end may be damaged; None if they cannot be told."""
    return leading_fields(message, writers, _ORIGIN, "transaction_id")
