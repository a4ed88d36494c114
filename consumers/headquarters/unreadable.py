"""Records that a consumer group cannot read: dead letters, and the end of it when there are too many in a row."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from tenten.avro.batches import UnreadableRow
from tenten.consumers.headquarters.dead_letters import dead_letter_headers
from tenten.kafka.transaction_session import Batch, Outputs
from tenten.runtime.errors import TooManyDeadLetters
from tenten.runtime.settings import Settings
from tenten.schemas.topics import Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableInARow:
    """How many records came without a readable one between them: the most within a batch, and those at its end."""

    longest: int = 0
    at_end: int = 0

    def after(self, unreadable: Collection[int], records: int) -> "UnreadableInARow":
        """The same after one more batch of so many records, of which these rows cannot be read."""
        if not unreadable:
            return UnreadableInARow()
        readable = [-1 - self.at_end, *sorted(set(range(records)).difference(unreadable)), records]
        runs = [later - earlier - 1 for earlier, later in pairwise(readable)]
        at_end = records - 1 - readable[-2]
        return UnreadableInARow(longest=max(runs), at_end=at_end)


def stop_when_too_many(unreadable: UnreadableInARow, settings: Settings) -> None:
    """A flood of unreadable records is a bad release, not bad luck: stop before they all are dead letters.

    Raises: `TooManyDeadLetters`.
    """
    if unreadable.longest > settings.headquarters.dead_letters_in_a_row_max:
        raise TooManyDeadLetters(
            f"{unreadable.longest} records in a row cannot be read, more than dead_letters_in_a_row_max allows: "
            "probably a writer's release is newer than this one, or broken. Nothing of this batch is consumed. Upgrade "
            "headquarters or stop that writer; to go on all the same, raise dead_letters_in_a_row_max of "
            "[headquarters] in tenten.toml"
        )


def send_dead_letters(
    settings: Settings, out: Outputs, batch: Batch, unreadable: tuple[UnreadableRow, ...], dead_letters: Topic
) -> None:
    """Each unreadable record as it came, with the reason, in the same transaction as its offset."""
    now = datetime.now(UTC)
    for bad in unreadable:
        message = batch.messages[bad.row]
        headers = dead_letter_headers(message, bad, now)
        _, timestamp_ms = message.timestamp()
        out.send(settings.topic(dead_letters), message.key(), message.value(), headers, timestamp_ms)
