"""Dead letters: records that cannot be read, kept byte for byte with the reason, and what an operator does about them.

Headers are Kafka Connect's (KIP-298) as text, and ours: `x-dlq-reason`, `x-dlq-attempt`, `x-dlq-failed-at`. No
personal data in any. Source: https://cwiki.apache.org/confluence/display/KAFKA/KIP-298%3A+Error+Handling+in+Connect
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from tenten.avro.batches import UnreadableRow
from tenten.kafka.client_config import REQUEST_SECONDS, consumer_configuration, producer_configuration
from tenten.kafka.client_errors import refusal_of
from tenten.kafka.offsets import earliest_offsets, last_stable_offsets
from tenten.kafka.records import Headers, headers_of, produce, read_until, record_position
from tenten.kafka.topics_admin import topic_ids
from tenten.runtime.errors import NoSuchDeadLetter
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import dead_letter_decisions
from tenten.schemas.topics import ALL, ASYNC_CUSTOMERS_DLQ, DEAD_LETTERS_OF, Topic

_CONNECT: Final = "__connect.errors."
_OURS: Final = "x-dlq-"


def dead_letter_headers(message: Message, bad: UnreadableRow, now: datetime) -> Headers:
    """The record's own headers, and why it is a dead letter."""
    kept = [(name, value) for name, value in headers_of(message) if not name.startswith((_CONNECT, _OURS))]
    about = {
        f"{_CONNECT}topic": message.topic(),
        f"{_CONNECT}partition": message.partition(),
        f"{_CONNECT}offset": message.offset(),
        f"{_CONNECT}exception.class.name": "tenten.avro.wire.Unreadable",
        f"{_CONNECT}exception.message": bad.text,
        f"{_CONNECT}stage": "VALUE_CONVERTER",
        f"{_OURS}reason": bad.reason,
        f"{_OURS}attempt": _attempt(message) + 1,
        f"{_OURS}failed-at": now.isoformat(timespec="milliseconds"),
    }
    return [*kept, *((name, str(value).encode()) for name, value in about.items())]


def _attempt(message: Message) -> int:
    """How often this record has been a dead letter before."""
    text = dict(headers_of(message)).get(f"{_OURS}attempt") or b"0"
    return int(text) if text.isdigit() and len(text) < 9 else 0


def place_of(topic: Topic, partition: int, offset: int) -> str:
    """How a dead letter is called: `0/17` among the customers' events, `retail-transactions.dlq/0/17` elsewhere."""
    short = f"{partition}/{offset}"
    return short if topic.name == ASYNC_CUSTOMERS_DLQ.name else f"{topic.name}/{short}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record on a dead letter topic, as it came."""

    topic: Topic
    """The dead letter topic."""
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]]
    decision: Literal["open", "replayed", "discarded"]

    @property
    def place(self) -> str:
        """How it is called."""
        return place_of(self.topic, self.partition, self.offset)

    def header(self, name: str) -> str:
        """The text of one header; empty when there is none."""
        return (dict(self.headers).get(name) or b"").decode(errors="replace")

    @property
    def reason(self) -> str:
        """Why it could not be read, as a word."""
        return self.header(f"{_OURS}reason")

    @property
    def text(self) -> str:
        """Why it could not be read, as a sentence."""
        return self.header(f"{_CONNECT}exception.message")

    @property
    def origin(self) -> str:
        """Where it stood: topic, partition and offset."""
        return "/".join(self.header(f"{_CONNECT}{part}") for part in ("topic", "partition", "offset"))


def list_dead_letters(settings: Settings, engine: Engine, dead_letters: Topic) -> Iterable[DeadLetter]:
    """Every letter that still is on this dead letter topic, oldest first in each partition, with what was decided
    about it.

    Reads to the end that the topic has at the call. Raises: `KafkaRefused`, `KafkaException`.
    """
    topic = settings.topic(dead_letters)
    partitions = topic_ids(settings, [topic])[topic].partitions
    starts = earliest_offsets(settings, topic, partitions)
    ends = last_stable_offsets(settings, topic, partitions)
    decisions = _decisions(engine, topic)
    consumer = Consumer(
        consumer_configuration(
            settings,
            **{
                "group.id": settings.group("dead-letters"),
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            },
        )
    )
    try:
        consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
        for message in read_until(consumer, starts, ends):
            yield _dead_letter(dead_letters, message, decisions)
    finally:
        consumer.close()


def _decisions(engine: Engine, topic: str) -> Mapping[tuple[int, int], Any]:
    with engine.begin() as headquarters:
        rows = headquarters.execute(select(dead_letter_decisions).where(dead_letter_decisions.c.topic == topic))
        return {(row.partition, row.offset): row.decision for row in rows}


def _dead_letter(topic: Topic, message: Message, decisions: Mapping[tuple[int, int], Any]) -> DeadLetter:
    partition, offset = record_position(message)
    return DeadLetter(
        topic=topic,
        partition=partition,
        offset=offset,
        key=message.key(),
        value=message.value(),
        timestamp_ms=message.timestamp()[1],
        headers=headers_of(message),
        decision=decisions.get((partition, offset), "open"),
    )


def find_dead_letter(
    settings: Settings, engine: Engine, dead_letters: Topic, partition: int, offset: int
) -> DeadLetter:
    """The letter at this place of a dead letter topic. Raises: `NoSuchDeadLetter`; as `list_dead_letters`."""
    for letter in list_dead_letters(settings, engine, dead_letters):
        if (letter.partition, letter.offset) == (partition, offset):
            return letter
    raise NoSuchDeadLetter(
        f"there is no dead letter {place_of(dead_letters, partition, offset)}: see `tenten dead-letters list --all`"
    )


def replay(settings: Settings, engine: Engine, letters: Iterable[DeadLetter]) -> int:
    """Send these dead letters to the topic they came from, byte for byte, and note that they were replayed. Gives
    their number.

    Replaying twice does no harm: what was read meanwhile is a repeat. What was not taken stays open.
    Raises: `KafkaRefused`, `KafkaException`.
    """
    producer = Producer(producer_configuration(settings))
    replayed: list[DeadLetter] = []
    failures: list[KafkaError] = []

    def delivered(letter: DeadLetter, error: KafkaError | None, _: Message) -> None:
        if error is None:
            replayed.append(letter)
        else:
            failures.append(error)

    for letter in letters:
        _send_again(producer, settings.topic(_read_topic(letter)), letter, partial(delivered, letter))
    unanswered = producer.flush(REQUEST_SECONDS)
    decide(settings, engine, replayed, "replayed")
    for failure in failures:
        raise refusal_of(KafkaException(failure)) or KafkaException(failure)
    if unanswered:
        raise KafkaException(f"no answer within {REQUEST_SECONDS} s: replay again, it does no harm")
    return len(replayed)


def _read_topic(letter: DeadLetter) -> Topic:
    """The topic whose reader gave this letter up. By the catalogue: a header may say anything."""
    return next(topic for topic in ALL if DEAD_LETTERS_OF.get(topic.name) == letter.topic)


def _send_again(
    producer: Producer, topic: str, letter: DeadLetter, delivered: Callable[[KafkaError | None, Message], None]
) -> None:
    """Queue a dead letter as it came; waits while the queue is full."""
    kept: Headers = [
        (name, value)
        for name, value in letter.headers
        if name == f"{_OURS}attempt" or not name.startswith((_CONNECT, _OURS))
    ]
    produce(producer, topic, letter.key, letter.value, headers=kept, on_delivery=delivered)
    producer.poll(0)


def decide(
    settings: Settings, engine: Engine, letters: Iterable[DeadLetter], decision: Literal["replayed", "discarded"]
) -> None:
    """Note what was decided about these dead letters; the topic itself keeps them until they expire."""
    rows = [
        {
            "topic": settings.topic(letter.topic),
            "partition": letter.partition,
            "offset": letter.offset,
            "decision": decision,
            "decided_at": datetime.now(UTC),
        }
        for letter in letters
    ]
    if rows:
        statement = insert(dead_letter_decisions)
        latest = {name: statement.excluded[name] for name in ("decision", "decided_at")}
        with engine.begin() as headquarters:
            headquarters.execute(
                statement.on_conflict_do_update(index_elements=["topic", "partition", "offset"], set_=latest), rows
            )
