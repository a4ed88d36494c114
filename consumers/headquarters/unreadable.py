"""Records that a consumer group cannot read: send them as dead letters, or stop when there are too many in a row.

Their stores are told, as far as they can be told from the beginning of the record: without a reply a store would send
the record again and again, and each time it would become another dead letter.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from confluent_kafka import Message

from tenten.avro.batches import UnreadableRow
from tenten.avro.primitives import leading_texts
from tenten.avro.wire import Unreadable, WriterSchemas, header_bytes
from tenten.consumers.headquarters.dead_letters import kept_record
from tenten.kafka.records import headers_of
from tenten.kafka.transaction_session import Batch
from tenten.kafka.transactional_producer import Outputs
from tenten.rules.limits import is_guid
from tenten.runtime.counting import count
from tenten.runtime.errors import TooManyDeadLetters
from tenten.runtime.settings import Settings
from tenten.schemas.topics import Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableStreak:
    """The longest streak of consecutive unreadable records in a batch, and the streak at its end."""

    longest: int = 0
    at_end: int = 0

    def after(self, unreadable: Collection[int], record_count: int) -> "UnreadableStreak":
        """The streaks after one more batch of `record_count` records, of which these rows are unreadable."""
        if not unreadable:
            return UnreadableStreak()
        readable = [-1 - self.at_end, *sorted(set(range(record_count)).difference(unreadable)), record_count]
        streaks = [later - earlier - 1 for earlier, later in pairwise(readable)]
        at_end = record_count - 1 - readable[-2]
        return UnreadableStreak(longest=max(streaks), at_end=at_end)


def stop_when_too_many(unreadable: UnreadableStreak, settings: Settings) -> None:
    """Stop before a faulty release of a writer turns all its records into dead letters.

    Raises: `TooManyDeadLetters`.
    """
    if unreadable.longest > settings.headquarters.dead_letters_in_a_row_max:
        raise TooManyDeadLetters(
            f"{unreadable.longest} consecutive records are unreadable, more than dead_letters_in_a_row_max allows: "
            "probably a writer's release is newer than this one, or faulty. Nothing of this batch is consumed. Upgrade "
            "headquarters or stop that writer; to continue anyway, raise dead_letters_in_a_row_max of "
            "[headquarters] in tenten.toml"
        )


def send_dead_letters(
    settings: Settings, out: Outputs, batch: Batch, unreadable: tuple[UnreadableRow, ...], dead_letters: Topic
) -> None:
    """Send each unreadable record, unchanged unless it is too large, with the reason, in the transaction that commits
    its offset.
    """
    now = datetime.now(UTC)
    for bad in unreadable:
        message = batch.messages[bad.row]
        kept = kept_record(message, bad, now)
        _, timestamp_ms = message.timestamp()
        out.send(settings.topic(dead_letters), kept.key, kept.value, kept.headers, timestamp_ms)


def count_dead_letters(unreadable: Sequence[UnreadableRow]) -> None:
    """Count dead letters that were sent."""
    for bad in unreadable:
        count("tenten_dead_letters_total", 1, bad.reason)


def leading_fields(
    message: Message, writers: WriterSchemas, names: Sequence[str], id_field: str
) -> Mapping[str, str] | None:
    """The first fields of a record, whose end may be damaged; None if they cannot be told.

    All are texts. `id_field` is a GUID, and the header `id` does not name another one.
    """
    value = bytes(message.value() or b"")
    try:
        start = header_bytes(value)
    except Unreadable:
        return None
    if not writers.is_known(value[:start]):
        return None
    fields = writers.find(value[:start]).json.get("fields", ())
    if [field["name"] for field in fields[: len(names)]] != list(names):
        return None
    texts = leading_texts(value[start:], len(names))
    if texts is None:
        return None
    found = dict(zip(names, texts, strict=True))
    named = dict(headers_of(message)).get("id")
    is_named = named is None or named == found[id_field].encode()
    return found if is_guid(found[id_field]) and is_named else None
