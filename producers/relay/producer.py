"""The relay's Kafka producer and the current ids of its topics."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Event
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from structlog import get_logger

from tenten.avro.wire import WriterSchemas, contract, encode, reframe
from tenten.identity.signing import CUSTOMER_EVENT_MAC, RecordSigner
from tenten.kafka.client_config import producer_configuration
from tenten.kafka.client_errors import ErrorListener
from tenten.kafka.records import Headers
from tenten.kafka.records import produce as send_when_free
from tenten.kafka.schema_registry import value_headers
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.producers.outbox.queue import QueuedRow
from tenten.producers.outbox.table import CUSTOMER, RETAIL_TRANSACTION, SENT_BYTES_MAX
from tenten.producers.relay.embedded_event import embedded_event
from tenten.runtime.counting import count
from tenten.runtime.error_codes import is_transient
from tenten.runtime.failpoints import failpoint
from tenten.runtime.settings import Settings
from tenten.runtime.tracing import HEADER, BegunSpan, begin_span
from tenten.schemas.topics import ASYNC_CUSTOMERS, CHANNEL_STATUS, EVENT_BYTES_MAX, RETAIL_TRANSACTIONS, Topic

log = get_logger(__name__)

_CONNECT_SECONDS: Final = 1.0
"""The timeout of one attempt to reach the broker at the start."""

_ACK_SECONDS: Final = 0.1
_UNAVAILABLE_SECONDS: Final = 3.0
"""Without an acknowledgement for this time, the broker is logged as unavailable."""

_DRAIN_SECONDS: Final = 5.0
"""How long to wait for the last batch when the relay stops."""

PRODUCER: Final[dict[str, Any]] = {
    # Retries neither duplicate nor reorder records: the broker recognises them by sequence number (with at most five
    # requests in flight).
    "enable.idempotence": True,
    "acks": "all",
    "max.in.flight.requests.per.connection": 5,
    # Never drop a record and continue with the next: while the broker is unavailable all records wait, in their order.
    # At most one batch waits in memory, and the database has it as well.
    "message.timeout.ms": 0,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 1_000,
    # A backlog is sent in large requests, which cost the broker a fraction. A single record does not wait this long:
    # waiting for its acknowledgement flushes it at once.
    "linger.ms": 20,
    # Less than the topic's limit, so that only this client rejects a record for its size, and no other with it.
    "message.max.bytes": SENT_BYTES_MAX,
    # No callback per record: an empty queue without errors means that the batch is acknowledged.
    "delivery.report.only.error": True,
}


_TOPICS: Final = {CUSTOMER: ASYNC_CUSTOMERS, RETAIL_TRANSACTION: RETAIL_TRANSACTIONS}
"""The topic of rows, by aggregate type."""


class DeliveryFailed(KafkaException):
    """Kafka has rejected records, or the producer has failed; the rows stay unsent. The argument is the error."""


class TopicRoute(NamedTuple):
    """The topic, framing and record key of rows of one aggregate type."""

    topic: str
    framing: Callable[[bytes], bytes] | None
    """Replaces the header of payloads with the one that readers expect; None to leave payloads unchanged."""
    key: str | None
    """The key of every record; None for the aggregate's id."""
    logical_topic: str
    """The topic's name without prefix."""


class RelayProducer:
    """An idempotent producer for the outbox of a channel. Use it as a context manager."""

    def __init__(self, settings: Settings, channel: str) -> None:
        self.settings = settings
        self.channel = channel
        self.topics: Mapping[str, TopicInfo] = {}
        """The current topics, by name with prefix."""
        self.topic_names: Mapping[str, str] = {kind: settings.topic(topic) for kind, topic in _TOPICS.items()}
        """The topics, by aggregate type of the rows."""
        self.heartbeat_header = b""
        """The bytes before the Avro bytes of a heartbeat; known after `connect`."""
        self._routes: Mapping[str, TopicRoute] = {}
        self._sent: list[tuple[int, str]] = []
        self._spans: list[BegunSpan] = []
        """Those of the traced rows among them."""
        self.sent_bytes = 0
        """The payload bytes of these rows."""
        self.signer: RecordSigner | None = None
        """Signs the rows that are sent from now on; None for a store that has no key."""
        self._acknowledged_at = time.monotonic()
        self._failed: dict[str, KafkaError] = {}
        self._error_listener = ErrorListener()

    def __enter__(self) -> Self:
        own = {
            **PRODUCER,
            "on_delivery": self._delivery_failed,
            "delivery.report.only.error": True,
            "error_cb": self._error_listener,
        }
        self._producer = Producer(producer_configuration(self.settings, **own))
        return self

    def __exit__(self, *_: object) -> None:
        # Records that are not acknowledged stay unsent in the outbox.
        self._producer.purge()
        self._producer.close()

    def connect(self, stop: Event) -> bool:
        """Wait for the broker, then read topic ids and the headers of values; False when `stop` is set before that.

        Raises: `KafkaRefused`, `KafkaException`, `RegistryUnavailable`, `RegistryRefused`.
        """
        while not stop.is_set():
            try:
                self._producer.list_topics(self.settings.topic(ASYNC_CUSTOMERS), timeout=_CONNECT_SECONDS)
            except KafkaException as error:
                if not is_transient(error):
                    raise
                self._producer.poll(0)
                self._error_listener.check()
                continue
            self.refresh_topics()
            headers = value_headers(self.settings)
            self._routes = {
                CUSTOMER: self._route(ASYNC_CUSTOMERS, headers, key=None),
                RETAIL_TRANSACTION: self._route(RETAIL_TRANSACTIONS, headers, key=self.channel),
            }
            self.heartbeat_header = headers[CHANNEL_STATUS.value]
            return True
        return False

    def _route(self, topic: Topic, headers: Mapping[str, bytes], key: str | None) -> TopicRoute:
        return TopicRoute(self.settings.topic(topic), framing(headers[topic.value], topic.value), key, topic.name)

    def refresh_topics(self) -> None:
        """Read the current topic ids. Raises: `KafkaRefused`, `KafkaException`."""
        self.topics = topic_ids(self.settings, self.topic_names.values())

    @property
    def sent_rows(self) -> int:
        """The number of rows on their way to the broker, which has not acknowledged them yet."""
        return len(self._sent)

    def send(self, rows: Sequence[QueuedRow], stop: Event) -> list[QueuedRow]:
        """Queue these rows for sending, in this order; return those that are too large for the topic or its reader.

        Blocks only while the producer's queue is full. When `stop` is set meanwhile, the rows after that are not sent.
        """
        produce, routes = self._producer.produce, self._routes
        too_large = []
        for row in rows:
            sequence, event_id, aggregate_type, aggregate_id, kind, payload, traceparent = row
            topic, framing, fixed_key, logical_topic = routes[aggregate_type]
            key = fixed_key or aggregate_id
            value = payload if framing is None else framing(payload)
            if aggregate_type == CUSTOMER and len(value) > EVENT_BYTES_MAX:
                too_large.append(row)
                continue
            headers: Headers = [("id", event_id), ("type", kind)]
            if traceparent is not None:
                headers.append((HEADER, self._begin_span(traceparent, topic, event_id)))
            if self.signer is not None:
                headers += _signatures(self.signer, aggregate_type, logical_topic, key, value)
            try:
                produce(topic, value, key, headers=headers)
            except BufferError:
                if not send_when_free(self._producer, topic, key, value, headers=headers, stop=stop):
                    break
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise DeliveryFailed(error.args[0]) from error
                too_large.append(row)
                continue
            self._sent.append((sequence, key))
            self.sent_bytes += len(payload)
        if rows:
            failpoint("relay.after_produce")
        return too_large

    def acknowledged(self, stop: Event) -> list[int]:
        """Wait, without limit, until the broker has all rows that were sent, and return their sequences.

        If the broker rejected a record, all rows with its key are left out, so that none overtakes another. When
        `stop` is set, waits for a few more seconds and then returns an empty list.
        """
        sent, self._sent, self.sent_bytes = self._sent, [], 0
        spans, self._spans = self._spans, []
        started = time.monotonic()
        unavailable = False
        stop_at = None
        while self._producer.flush(_ACK_SECONDS):
            now = time.monotonic()
            if stop.is_set():
                stop_at = stop_at or now + _DRAIN_SECONDS
                if now > stop_at:
                    return []
            if not unavailable and now - started > _UNAVAILABLE_SECONDS:
                unavailable = True
                log.warning("broker_unavailable", channel=self.channel, rows=len(sent))
        if unavailable:
            log.info("relay_resumed", channel=self.channel, waited_seconds=round(time.monotonic() - started, 1))
        self._acknowledged_at = time.monotonic()
        failpoint("relay.after_ack")
        acknowledged = [sequence for sequence, key in sent if key not in self._failed]
        count("tenten_outbox_sent_total", len(acknowledged))
        for span in spans:
            span.end()
        return acknowledged

    def _begin_span(self, traceparent: str, topic: str, event_id: str) -> str:
        """Begin the span of a traced row; the trace for its record."""
        span = begin_span("relay", traceparent, {"channel": self.channel, "topic": topic, "event_id": event_id})
        self._spans.append(span)
        return span.traceparent

    def check(self) -> None:
        """Raises: `DeliveryFailed` when the broker has rejected records."""
        for error in self._failed.values():
            raise DeliveryFailed(error)

    def is_delivering(self) -> bool:
        """Whether the broker takes records: none is on its way, or it has acknowledged rows a moment ago."""
        return not len(self._producer) or time.monotonic() - self._acknowledged_at < _UNAVAILABLE_SECONDS

    def send_heartbeat(
        self, topic: str, value: bytes, signer: RecordSigner | None, on_failure: Callable[[], None]
    ) -> None:
        """Queue a heartbeat, which is sent when the rows are; left out while the queue is full. Any thread may call it.

        `signer` is None for a store that has no key. `on_failure` is called if the broker has not accepted it; that
        does not concern the rows.
        """

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                on_failure()

        with suppress(BufferError):
            key = self.channel.encode()
            headers = [] if signer is None else signer.headers(CHANNEL_STATUS.name, key, value)
            self._producer.produce(topic, value, key, headers=headers, on_delivery=delivered)

    def serve(self) -> None:
        """Serve delivery and error callbacks."""
        self._producer.poll(0)

    def _delivery_failed(self, error: KafkaError, message: Message) -> None:
        self._failed[(message.key() or b"").decode()] = error


def _signatures(signer: RecordSigner, aggregate_type: str, logical_topic: str, key: str, value: bytes) -> Headers:
    """The headers by which a record proves its writer; of a transaction also those of the customer event inside it."""
    headers = signer.headers(logical_topic, key.encode(), value)
    if aggregate_type == RETAIL_TRANSACTION:
        event = embedded_event(value)
        if event is not None:
            code = signer.mac(ASYNC_CUSTOMERS.name, event.customer_id, event.value)
            headers.append((CUSTOMER_EVENT_MAC, code))
    return headers


def framing(header: bytes, name: str = ASYNC_CUSTOMERS.value) -> Callable[[bytes], bytes] | None:
    """A function that replaces the header of payloads with this one, which the topic's readers expect; None if payloads
    have it already.
    """
    schema = contract(name)
    if header == schema.header:
        # Without a registry each payload keeps the header of the schema it was written with, of any release.
        return None

    def framed(payload: bytes) -> bytes:
        if payload.startswith(schema.header):
            return reframe(payload, header)
        return encode(schema, WriterSchemas().decode(payload, schema), header)

    return framed
