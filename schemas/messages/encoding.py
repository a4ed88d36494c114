"""Records as the nested dicts that an Avro encoder takes."""

from typing import Any, Final

from tenten.schemas.customer_fields import CustomerState
from tenten.schemas.messages.channel_settings import ChannelSettings
from tenten.schemas.messages.customer import Customer, CustomerEvent, Erasure, Reply
from tenten.schemas.messages.heartbeat import Heartbeat
from tenten.schemas.messages.join import JoinRequest
from tenten.schemas.messages.topic_status import TopicStatus
from tenten.schemas.messages.transaction import RetailTransaction, TransactionReply

ROW: Final = "row"
"""Column of a decoded frame: the position of the record in the batch as Kafka delivered it."""


def to_avro(
    record: CustomerEvent
    | Customer
    | Erasure
    | Reply
    | CustomerState
    | RetailTransaction
    | TransactionReply
    | TopicStatus
    | Heartbeat
    | ChannelSettings
    | JoinRequest,
) -> dict[str, Any]:
    """The record as the nested dict that an Avro encoder takes."""
    return {name: _to_avro(getattr(record, name)) for name in record.__slots__}


def _to_avro(value: Any) -> Any:
    # dataclasses.asdict does the same and copies every leaf, which costs ten times as much.
    if isinstance(value, tuple):
        return [_to_avro(member) for member in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _to_avro(getattr(value, name)) for name in value.__slots__}
    return value
