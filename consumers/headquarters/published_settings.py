"""The content of `channel-settings`: the newest record of each channel, and the settings that headquarters wrote."""

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.wire import Unreadable, contract
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.published_acceptance import take_back
from tenten.identity.signing import KID, MAC, RecordSigner
from tenten.kafka.client_config import consumer_configuration
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.records import headers_of, read_until
from tenten.kafka.schema_registry import writer_schemas
from tenten.runtime.settings import Settings
from tenten.schemas.messages import ChannelSettings, channel_settings_from_avro
from tenten.schemas.topics import CHANNEL_SETTINGS

log = get_logger(__name__)

MARK_HEADER: Final = "mark"
"""The header with the mark of the content."""

_NAMES_MAX: Final = 50
"""The most channels that a log event names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRecord:
    """The newest record of a channel."""

    channel_id: str
    value: bytes
    headers: Mapping[str, bytes | None]

    @property
    def mark(self) -> str:
        """The mark of its content; empty without one."""
        return (self.headers.get(MARK_HEADER) or b"").decode(errors="replace")

    def is_signed_by(self, signer: RecordSigner) -> bool:
        """Whether this signer has written it, with this key and value."""
        expected = signer.mac(CHANNEL_SETTINGS.name, self.channel_id.encode(), self.value)
        return self.headers.get(KID) == signer.kid.encode() and hmac.compare_digest(
            expected, self.headers.get(MAC) or b""
        )


def read_published(settings: Settings, partitions: int) -> list[PublishedRecord]:
    """The newest record of each channel; channels that were removed are left out. Raises: `KafkaException`."""
    name = settings.topic(CHANNEL_SETTINGS)
    starts, ends = earliest_offsets(settings, name, partitions), last_stable_offsets(settings, name, partitions)
    options = {"group.id": settings.reader_group(), "auto.offset.reset": "error", "enable.partition.eof": True}
    consumer = Consumer(consumer_configuration(settings, **options))
    found: dict[str, PublishedRecord] = {}
    try:
        consumer.assign([TopicPartition(name, partition, offset) for partition, offset in starts.items()])
        for message in read_until(consumer, starts, ends):
            channel_id, value = (message.key() or b"").decode(errors="replace"), message.value()
            if value is None:
                found.pop(channel_id, None)
            else:
                headers = dict(headers_of(message))
                found[channel_id] = PublishedRecord(channel_id=channel_id, value=value, headers=headers)
    finally:
        consumer.close()
    return list(found.values())


def take_back_acceptance(settings: Settings, engine: Engine, published: Iterable[PublishedRecord]) -> list[str]:
    """Take back keys and suspensions that the database lacks, and return the channels concerned. Idempotent.

    Records that headquarters has not signed with its own key prove nothing, and neither do unreadable ones.
    """
    with engine.begin() as headquarters:
        signer = RecordSigner.of_headquarters(ensure_headquarters_keys(headquarters))
    own = list(_decoded(settings, (record for record in published if record.is_signed_by(signer))))
    if not own:
        return []
    with engine.begin() as headquarters:
        channels = take_back(headquarters, own, datetime.now(UTC))
    if channels:
        log.warning("acceptance_taken_back", count=len(channels), channels=channels[:_NAMES_MAX])
    return channels


def _decoded(settings: Settings, records: Iterable[PublishedRecord]) -> Iterator[ChannelSettings]:
    schema, writers = contract(CHANNEL_SETTINGS.value), writer_schemas(settings)
    for record in records:
        try:
            found = channel_settings_from_avro(writers.decode(record.value, schema))
        except Unreadable:
            continue
        if found.channel_id == record.channel_id:
            yield found
