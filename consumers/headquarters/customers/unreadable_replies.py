"""Replies to events that are dead letters, as far as their channel, customer and id can be told."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from confluent_kafka import Message

from tenten.avro.batches import UnreadableRow
from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.consumers.headquarters.authenticity import UNANSWERED
from tenten.consumers.headquarters.customers.outputs import output_headers
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.output import Output
from tenten.consumers.headquarters.unreadable import leading_fields
from tenten.kafka.records import record_position
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

    A record is answered to a known channel only, and only if its header `id` does not name another event. One that is
    not authentic, or of a suspended channel, is not answered.
    """
    replies = []
    for bad in unreadable:
        message = messages[bad.row]
        found = origin(message, writers)
        if bad.reason in UNANSWERED or found is None or found["channel_id"] not in channels.legal_entity_by_channel:
            continue
        partition, offset = record_position(message)
        reply = Reply(
            channel_id=found["channel_id"],
            event_id=found["event_id"],
            customer_id=found["customer_id"],
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


def origin(message: Message, writers: WriterSchemas) -> Mapping[str, str] | None:
    """Customer, event and channel of a record, whose end may be damaged; None if they cannot be told."""
    found = leading_fields(message, writers, _ORIGIN, "event_id")
    return found if found is not None and is_guid(found["customer_id"]) else None
