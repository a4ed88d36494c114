"""The way from a channel to its topics: an idempotent producer, and what the topics are now."""

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from structlog import get_logger

from tenten.avro.wire import WriterSchemas, contract, encode, reframe
from tenten.kafka.client_config import producer_configuration
from tenten.kafka.client_errors import ErrorListener
from tenten.kafka.records import Headers, produce
from tenten.kafka.schema_registry import publish_schemas
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.producers.outbox import CUSTOMER, RETAIL_TRANSACTION, SENT_BYTES_MAX, UnsentRow
from tenten.runtime.error_codes import is_transient
from tenten.runtime.failpoints import failpoint
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ASYNC_CUSTOMERS, RETAIL_TRANSACTIONS, Topic

log = get_logger(__name__)

_ANSWER_SECONDS: Final = 1.0
"""How long the broker is given to answer at the start before it is asked again."""

_ACK_SECONDS: Final = 0.1
_AWAY_SECONDS: Final = 3.0
"""After so long without an acknowledgement the log says so."""

_DRAIN_SECONDS: Final = 5.0
"""How long the last batch is waited for when the relay shall end."""

PRODUCER: Final[dict[str, Any]] = {
    # A retry is neither a duplicate nor out of order: the broker knows what it has by sequence numbers (five in
    # flight at most).
    "enable.idempotence": True,
    "acks": "all",
    "max.in.flight.requests.per.connection": 5,
    # Never give a record up and go on with the next: while the line is down everything waits, in its order. What
    # waits is one batch, and it is in the database as well.
    "message.timeout.ms": 0,
    # The line heals within a second, and a broker that is away is not flooded.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 1_000,
    # A backlog travels in large requests, which cost the broker a fraction. A single record does not wait so long:
    # waiting for its acknowledgement flushes it at once.
    "linger.ms": 20,
    # Less than the topic takes, so that only this client ever refuses one for its size, and that one alone.
    "message.max.bytes": SENT_BYTES_MAX,
    # An acknowledged batch is an empty queue without errors: no call per record.
    "delivery.report.only.error": True,
}


_TOPICS: Final = {CUSTOMER: ASYNC_CUSTOMERS, RETAIL_TRANSACTION: RETAIL_TRANSACTIONS}
"""Where rows go, by aggregate type."""


class DeliveryFailed(KafkaException):
    """Kafka has refused records, or the producer is of no use any more; the rows stay unsent. Carries the error."""


class Batch(NamedTuple):
    """Rows on their way to the broker."""

    rows: list[UnsentRow]
    topic_ids: Mapping[str, str]
    """What their topics were before they were sent, by aggregate type: at worst they are sent again."""
    too_large: list[UnsentRow]
    """Rows that cannot be sent."""

    @property
    def sequences(self) -> list[int]:
        """What names the rows in the outbox."""
        return [row.sequence for row in self.rows]


NO_BATCH: Final = Batch([], {}, [])


class Route(NamedTuple):
    """How rows of one aggregate type travel."""

    topic: str
    framing: Callable[[bytes], bytes] | None
    """What puts payloads behind the header that readers expect; None when they stay as they are."""
    key: str | None
    """The key of every record; None where it is the aggregate's id."""


class Line:
    """The way to the topics: a producer, and what the topics are now. Use it as a context manager."""

    def __init__(self, settings: Settings, channel: str) -> None:
        self.settings = settings
        self.channel = channel
        self.topics: Mapping[str, TopicInfo] = {}
        """What each topic is, by its name with prefix."""
        self.topic_ids: Mapping[str, str] = {}
        """Their ids, by the aggregate type of the rows that go there."""
        self._routes: Mapping[str, Route] = {}
        self._failed: dict[str, KafkaError] = {}
        self._hearing = ErrorListener()

    def __enter__(self) -> Self:
        own = {**PRODUCER, "on_delivery": self._delivery_failed, "error_cb": self._hearing}
        self._producer = Producer(producer_configuration(self.settings, **own))
        return self

    def __exit__(self, *_: object) -> None:
        # What is still on its way is in the outbox, unsent.
        self._producer.purge()
        self._producer.close()

    def connect(self, stop: Event) -> bool:
        """Wait until the broker answers, then learn what there is to know; False when told to stop meanwhile.

        Raises: `KafkaRefused`, `KafkaException`, `RegistryUnavailable`, `RegistryRefused`.
        """
        while not stop.is_set():
            try:
                self._producer.list_topics(self.settings.topic(ASYNC_CUSTOMERS), timeout=_ANSWER_SECONDS)
            except KafkaException as error:
                if not is_transient(error):
                    raise
                self._producer.poll(0)
                self._hearing.check()
                continue
            self.look()
            headers = publish_schemas(self.settings)
            self._routes = {
                CUSTOMER: self._route(ASYNC_CUSTOMERS, headers, key=None),
                RETAIL_TRANSACTION: self._route(RETAIL_TRANSACTIONS, headers, key=self.channel),
            }
            return True
        return False

    def _route(self, topic: Topic, headers: Mapping[str, bytes], key: str | None) -> Route:
        return Route(self.settings.topic(topic), framing(headers[topic.value], topic.value), key)

    def look(self) -> None:
        """Learn what the topics are now. Raises: `KafkaRefused`, `KafkaException`."""
        names = {kind: self.settings.topic(topic) for kind, topic in _TOPICS.items()}
        self.topics = topic_ids(self.settings, names.values())
        self.topic_ids = {kind: self.topics[name].topic_id for kind, name in names.items()}

    def send(self, rows: Sequence[UnsentRow], stop: Event) -> Batch:
        """Hand these rows to the producer, in this order. Waits only for room in its queue."""
        if not rows:
            return NO_BATCH
        produce, routes = self._producer.produce, self._routes
        sent = []
        too_large = []
        for row in rows:
            _, event_id, aggregate_type, aggregate_id, kind, payload = row
            topic, framing, key = routes[aggregate_type]
            value = payload if framing is None else framing(payload)
            try:
                produce(topic, value, key or aggregate_id, headers=[("id", event_id), ("type", kind)])
            except BufferError:
                if not self._send_slowly(row, value, stop):
                    break
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise DeliveryFailed(error.args[0]) from error
                too_large.append(row)
                continue
            sent.append(row)
        failpoint("relay.after_produce")
        kinds = {row.aggregate_type for row in sent}
        return Batch(sent, {kind: self.topic_ids[kind] for kind in kinds}, too_large)

    def _send_slowly(self, row: UnsentRow, value: bytes, stop: Event) -> bool:
        """Hand one row to the producer once there is room; False when told to stop before."""
        route = self._routes[row.aggregate_type]
        headers: Headers = [("id", row.event_id), ("type", row.type)]
        return produce(self._producer, route.topic, route.key or row.aggregate_id, value, headers=headers, stop=stop)

    def acknowledged(self, batch: Batch, stop: Event) -> list[int]:
        """Wait until the broker has the batch, however long; gives the sequences of the rows that it has.

        Not those of a key of which it refused one: none may overtake another. None when told to stop and it takes
        too long.
        """
        if not batch.rows:
            return []
        started = time.monotonic()
        waiting = False
        stop_at = None
        while self._producer.flush(_ACK_SECONDS):
            now = time.monotonic()
            if stop.is_set():
                stop_at = stop_at or now + _DRAIN_SECONDS
                if now > stop_at:
                    return []
            if not waiting and now - started > _AWAY_SECONDS:
                waiting = True
                log.warning("relay_waiting", channel=self.channel, rows=len(batch.rows))
        if waiting:
            log.info("relay_goes_on", channel=self.channel, waited_seconds=round(time.monotonic() - started, 1))
        failpoint("relay.after_ack")
        return batch.sequences if not self._failed else self._without_failed(batch)

    def _without_failed(self, batch: Batch) -> list[int]:
        keys = {kind: route.key for kind, route in self._routes.items()}
        return [
            row.sequence for row in batch.rows if (keys[row.aggregate_type] or row.aggregate_id) not in self._failed
        ]

    def check(self) -> None:
        """Raises: `DeliveryFailed` when the broker has refused records."""
        for error in self._failed.values():
            raise DeliveryFailed(error)

    def serve(self) -> None:
        """Let the client say what it has to say."""
        self._producer.poll(0)

    def _delivery_failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed[(message.key() or b"").decode()] = error


def framing(header: bytes, name: str = ASYNC_CUSTOMERS.value) -> Callable[[bytes], bytes] | None:
    """What puts records of this contract behind the header that their topic's readers expect; None when they stay as
    they are.
    """
    schema = contract(name)
    if header == schema.header:
        # Without a registry the header names the schema a record was written with, whatever release that was.
        return None

    def framed(payload: bytes) -> bytes:
        if payload.startswith(schema.header):
            return reframe(payload, header)
        return encode(schema, WriterSchemas().decode(payload, schema), header)

    return framed
