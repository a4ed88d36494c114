"""What a writer of rubbish can do to others: nothing. Each channel's dead letters in a row are counted for itself.

A channel that writes too many is suspended: its records are dead letters that are not answered, so its store sends them
again after `tenten channel resume`. Rubbish that no channel has signed counts for nobody and stops nobody; it becomes
dead letters, as fast as the quota of its writer at Kafka allows. Only with `authentication = "off"` headquarters cannot
tell who writes, and stops.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.batches import UnreadableRow
from tenten.consumers.headquarters.authenticity import Signers
from tenten.consumers.headquarters.channel_streaks import ChannelStreaks
from tenten.consumers.headquarters.unreadable import UnreadableStreak, stop_when_too_many
from tenten.identity.channel_changes import By
from tenten.identity.suspension import suspend
from tenten.runtime.errors import SettingsError
from tenten.runtime.settings import Settings

log = get_logger(__name__)

_NOT_COUNTED: Final = frozenset({"suspended", "wrong_partition"})
"""Reasons of dead letters that do not count: anybody may send what a channel has signed again, to another partition."""


class Containment:
    """Counts the dead letters of a worker, batch by batch."""

    def __init__(self, settings: Settings, suspend: Callable[[str, str], None]) -> None:
        """`suspend` suspends a channel for a reason, in an SQL transaction of its own. Idempotent."""
        self._settings = settings
        self._suspend = suspend
        self._streak = self._new_streak = UnreadableStreak()
        self._of_channels = self._new_of_channels = ChannelStreaks()

    def check(self, dead_letters: Sequence[UnreadableRow], signers: Signers) -> bool:
        """Count the dead letters of a batch. True if a channel is suspended now: the batch must be checked again.

        Raises: `TooManyDeadLetters`; what `suspend` raises.
        """
        rows = [bad.row for bad in dead_letters if bad.reason not in _NOT_COUNTED]
        if self._settings.authentication == "off":
            self._new_streak = self._streak.after(rows, len(signers))
            stop_when_too_many(self._new_streak, self._settings)
            return False
        self._new_of_channels = self._of_channels.after(rows, signers)
        too_long = self._new_of_channels.longer_than(self._settings.headquarters.dead_letters_in_a_row_max)
        for channel, streak in too_long.items():
            self._suspend(channel, f"{streak:,} records in a row were dead letters")
            log.error("channel_suspended", channel=channel, dead_letters=streak)
        return bool(too_long)

    def stored(self) -> None:
        """The batch that was counted last is in the database and on the topics; the next one follows it."""
        self._streak, self._of_channels = self._new_streak, self._new_of_channels


def suspend_channel(engine: Engine, source: str, channel: str, reason: str) -> None:
    """Suspend a channel, as `tenten channel suspend` does; `source` is the worker's command. Idempotent.

    One that was removed from the settings, and still has a key, cannot be suspended: its records stay dead letters.
    Raises: errors of the database.
    """
    try:
        suspend(engine, channel, reason, By(source=source))
    except SettingsError:
        log.warning("unknown_channel_not_suspended", channel=channel)
