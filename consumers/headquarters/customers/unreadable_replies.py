"""Replies to events that are dead letters, as far as their channel, customer and id can be told.

Without a reply the store would send the event again and again, and each time it would become another dead letter.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from confluent_kafka import Message

from tenten.avro.batches import UnreadableRow
from tenten.avro.primitives import leading_texts
from tenten.avro.wire import Unreadable, WriterSchemas, contract, encode, header_bytes
from tenten.consumers.headquarters.customers.outputs import Output, output_headers
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.kafka.records import headers_of, record_position
from tenten.rules.limits import is_guid
from tenten.schemas.messages import Outcome, Reason, Reply, to_avro

_ORIGIN: Final = ("customer_id", "event_id", "channel_id")
"""The first fields of every event."""

NOT_JUDGED: Final = 0
"""The judgement number: lower than that of any reply to the event, should it be read in the end."""


def unreadable_replies(
    messages: Sequence[Message],
    unreadable: Sequence[UnreadableRow],
    *,
    writers: WriterSchemas,
    channels: KnownChannels,
    header: bytes,
    now: datetime,
) -> list[Output]:
    """The replies to these rows of a batch; `header` is the framing of a `Reply`.

    A record is answered to a known channel only, and only if its header `id` does not name another event.
    """
    replies = []
    for bad in unreadable:
        message = messages[bad.row]
        origin = _origin(message, writers)
        if origin is None or origin["channel_id"] not in channels.legal_entity_by_channel:
            continue
        partition, offset = record_position(message)
        reply = Reply(
            channel_id=origin["channel_id"],
            event_id=origin["event_id"],
            customer_id=origin["customer_id"],
            outcome=Outcome.UNREADABLE,
            reasons=(
                Reason(field="", code="unreadable_event", text=f"Headquarters cannot read this change: it {bad.text}."),
            ),
            answered_at=now,
            judgement=NOT_JUDGED,
            input_partition=partition,
            input_offset=offset,
        )
        replies.append(
            Output(
                key=reply.channel_id.encode(),
                value=encode(contract("Reply"), to_avro(reply), header),
                headers=output_headers("Reply", reply.event_id),
            )
        )
    return replies


def _origin(message: Message, writers: WriterSchemas) -> Mapping[str, str] | None:
    """Customer, event and channel of a record, whose end may be damaged; None if they cannot be told."""
    value = bytes(message.value() or b"")
    try:
        start = header_bytes(value)
        fields = writers.find(value[:start]).json.get("fields", ())
    except Unreadable:
        return None
    if tuple(field["name"] for field in fields[: len(_ORIGIN)]) != _ORIGIN:
        return None
    texts = leading_texts(value[start:], len(_ORIGIN))
    if texts is None:
        return None
    origin = dict(zip(_ORIGIN, texts, strict=True))
    named = dict(headers_of(message)).get("id")
    is_named = named is None or named == origin["event_id"].encode()
    return origin if is_guid(origin["customer_id"]) and is_guid(origin["event_id"]) and is_named else None
