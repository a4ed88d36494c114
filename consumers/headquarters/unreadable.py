"""Records that a consumer group cannot read: send them as dead letters, or stop when there are too many in a row."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from tenten.avro.batches import UnreadableRow
from tenten.consumers.headquarters.dead_letters import dead_letter_headers
from tenten.kafka.transaction_session import Batch
from tenten.kafka.transactional_producer import Outputs
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
    """Send each unreadable record unchanged, with the reason, in the transaction that commits its offset."""
    now = datetime.now(UTC)
    for bad in unreadable:
        message = batch.messages[bad.row]
        headers = dead_letter_headers(message, bad, now)
        _, timestamp_ms = message.timestamp()
        out.send(settings.topic(dead_letters), message.key(), message.value(), headers, timestamp_ms)
