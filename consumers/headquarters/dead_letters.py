"""Dead letters: unreadable records, kept byte for byte with the reason; list, replay and discard them.

Their headers are Kafka Connect's (KIP-298), as text, and three of tenten's own. None contains personal data.
Source: https://cwiki.apache.org/confluence/display/KAFKA/KIP-298%3A+Error+Handling+in+Connect
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, NamedTuple

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
from tenten.schemas.topics import ALL, ASYNC_CUSTOMERS_DLQ, DEAD_LETTERS_OF, RECORD_BYTES_MAX, Topic

_CONNECT: Final = "__connect.errors."
_OURS: Final = "x-dlq-"

DEAD_LETTER_HEADERS: Final[Mapping[str, str]] = {
    f"{_CONNECT}topic": "The topic of the unreadable record.",
    f"{_CONNECT}partition": "The partition of the unreadable record.",
    f"{_CONNECT}offset": "The offset of the unreadable record.",
    f"{_CONNECT}exception.class.name": "Always `tenten.avro.wire.Unreadable`.",
    f"{_CONNECT}exception.message": "Why the record is unreadable, as a sentence without its subject.",
    f"{_CONNECT}stage": "Always `VALUE_CONVERTER`.",
    f"{_OURS}reason": "Why the record is unreadable, as a code.",
    f"{_OURS}attempt": "How many times the record has become a dead letter; more than 1 after a replay.",
    f"{_OURS}failed-at": "When the record became a dead letter: ISO 8601, UTC, milliseconds.",
    f"{_OURS}cut-from-bytes": (
        "The size of a record that was too large to be kept, which its writer had compressed. The dead letter has the "
        "beginning of its key and value, and none of its headers; it cannot be replayed."
    ),
}
"""The headers of a dead letter by name, with their meaning. The record's own headers come before them."""

_KEPT_BYTES_MAX: Final = 2 * RECORD_BYTES_MAX - 64 * 1024
"""The largest record that is kept whole: with `DEAD_LETTER_HEADERS` it fits the topic, however little it can be
compressed."""

_CUT_KEY_BYTES: Final = 1_024
_CUT_VALUE_BYTES: Final = 64 * 1024
"""The bytes that are kept of the key, and of the value, of a larger record."""


class Kept(NamedTuple):
    """The headers, and the part of key and value, that a dead letter keeps of a record."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def kept_record(message: Message, bad: UnreadableRow, now: datetime) -> Kept:
    """The record byte for byte, or the beginning of one that is too large; its own headers, then those of tenten."""
    key, value, all_headers = message.key(), message.value(), headers_of(message)
    own: Headers = [(name, text) for name, text in all_headers if not name.startswith((_CONNECT, _OURS))]
    size = len(key or b"") + len(value or b"") + sum(len(name) * 4 + len(text or b"") for name, text in all_headers)
    if size <= _KEPT_BYTES_MAX:
        return Kept(key, value, [*own, *_tenten_headers(message, bad, now)])
    cut: Headers = [(f"{_OURS}cut-from-bytes", str(size).encode())]
    return Kept(
        None if key is None else key[:_CUT_KEY_BYTES],
        None if value is None else value[:_CUT_VALUE_BYTES],
        [*_tenten_headers(message, bad, now), *cut],
    )


def _tenten_headers(message: Message, bad: UnreadableRow, now: datetime) -> Headers:
    values = {
        f"{_CONNECT}topic": message.topic(),
        f"{_CONNECT}partition": message.partition(),
        f"{_CONNECT}offset": message.offset(),
        f"{_CONNECT}exception.class.name": "tenten.avro.wire.Unreadable",
        f"{_CONNECT}exception.message": bad.text,
        f"{_CONNECT}stage": "VALUE_CONVERTER",
        f"{_OURS}reason": bad.reason,
        f"{_OURS}attempt": _previous_attempts(message) + 1,
        f"{_OURS}failed-at": now.isoformat(timespec="milliseconds"),
    }
    return [(name, str(values[name]).encode()) for name in DEAD_LETTER_HEADERS if name in values]


def _previous_attempts(message: Message) -> int:
    """How many times this record has been a dead letter before."""
    text = dict(headers_of(message)).get(f"{_OURS}attempt") or b"0"
    return int(text) if text.isdigit() and len(text) < 9 else 0


def position_text(topic: Topic, partition: int, offset: int) -> str:
    """The name of a dead letter: `0/17` on async-customers.dlq, `retail-transactions.dlq/0/17` on other topics."""
    short = f"{partition}/{offset}"
    return short if topic.name == ASYNC_CUSTOMERS_DLQ.name else f"{topic.name}/{short}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record on a dead letter topic, unchanged."""

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
    def position(self) -> str:
        """Its name: see `position_text`."""
        return position_text(self.topic, self.partition, self.offset)

    def header(self, name: str) -> str:
        """The text of a header; empty when it is missing."""
        return (dict(self.headers).get(name) or b"").decode(errors="replace")

    @property
    def reason(self) -> str:
        """Why it is unreadable, as a code."""
        return self.header(f"{_OURS}reason")

    @property
    def text(self) -> str:
        """Why it is unreadable, as a sentence without its subject."""
        return self.header(f"{_CONNECT}exception.message")

    @property
    def is_cut(self) -> bool:
        """Whether only the beginning of its record was kept, so that it cannot be replayed."""
        return f"{_OURS}cut-from-bytes" in dict(self.headers)

    @property
    def origin(self) -> str:
        """The position of the unreadable record: topic, partition and offset."""
        return "/".join(self.header(f"{_CONNECT}{part}") for part in ("topic", "partition", "offset"))


class Origin(NamedTuple):
    """Why a record is a dead letter, and where it was."""

    reason: str
    partition: int
    offset: int


def origin_of(message: Message) -> Origin | None:
    """The origin of a dead letter, from the headers that headquarters has added; None if it has none."""
    headers = dict(headers_of(message))
    try:
        partition, offset = (int(headers.get(f"{_CONNECT}{name}") or b"") for name in ("partition", "offset"))
    except ValueError:
        return None
    return Origin((headers.get(f"{_OURS}reason") or b"").decode(errors="replace"), partition, offset)


def list_dead_letters(
    settings: Settings, engine: Engine, dead_letters: Topic, after: Mapping[int, int] | None = None
) -> Iterable[DeadLetter]:
    """Every letter on this dead letter topic with its decision, oldest first in each partition.

    `after`: by partition, the last offset that the caller has. Reads up to the end of the topic at the time of the
    call. Raises: `KafkaRefused`, `KafkaException`.
    """
    topic = settings.topic(dead_letters)
    partitions = topic_ids(settings, [topic])[topic].partitions
    known = after or {}
    ends = last_stable_offsets(settings, topic, partitions)
    starts = {
        partition: max(start, min(known.get(partition, -1) + 1, ends[partition]))
        for partition, start in earliest_offsets(settings, topic, partitions).items()
    }
    if all(starts[partition] >= end for partition, end in ends.items()):
        return
    decisions = _decisions(engine, topic)
    consumer = Consumer(
        consumer_configuration(
            settings,
            **{
                "group.id": settings.reader_group(),
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
    """The letter at this position of a dead letter topic. Raises: `NoSuchDeadLetter`; as `list_dead_letters`."""
    for letter in list_dead_letters(settings, engine, dead_letters, {partition: offset - 1}):
        if (letter.partition, letter.offset) == (partition, offset):
            return letter
    raise NoSuchDeadLetter(
        f"no dead letter {position_text(dead_letters, partition, offset)}: see `tenten dead-letters list --all`"
    )


def replay(settings: Settings, engine: Engine, letters: Iterable[DeadLetter]) -> int:
    """Send these dead letters to their original topic, byte for byte; return their number.

    Idempotent: an event that was read meanwhile counts as a repeat. A letter that was cut, or that the broker does not
    accept, stays open; the others are recorded as replayed.
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
        if letter.is_cut:
            continue
        _send_to_origin(producer, settings.topic(_read_topic(letter)), letter, partial(delivered, letter))
    unanswered = producer.flush(REQUEST_SECONDS)
    record_decision(settings, engine, replayed, "replayed")
    for failure in failures:
        raise refusal_of(KafkaException(failure)) or KafkaException(failure)
    if unanswered:
        raise KafkaException(f"no acknowledgement within {REQUEST_SECONDS} s: replay again, which is safe")
    return len(replayed)


def _read_topic(letter: DeadLetter) -> Topic:
    """The original topic of this letter: by the catalogue, because its headers are not trustworthy."""
    return next(topic for topic in ALL if DEAD_LETTERS_OF.get(topic.name) == letter.topic)


def _send_to_origin(
    producer: Producer, topic: str, letter: DeadLetter, delivered: Callable[[KafkaError | None, Message], None]
) -> None:
    """Queue a dead letter with its own headers and its attempt; blocks while the queue is full."""
    headers: Headers = [
        (name, value)
        for name, value in letter.headers
        if name == f"{_OURS}attempt" or not name.startswith((_CONNECT, _OURS))
    ]
    produce(producer, topic, letter.key, letter.value, headers=headers, on_delivery=delivered)
    producer.poll(0)


def record_decision(
    settings: Settings, engine: Engine, letters: Iterable[DeadLetter], decision: Literal["replayed", "discarded"]
) -> None:
    """Record the decision about these dead letters; the topic itself keeps them until they expire."""
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
