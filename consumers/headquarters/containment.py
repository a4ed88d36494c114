"""Contain writers of rubbish: the dead letters in a row are counted for each channel by itself.

A channel that writes too many is suspended: its records are dead letters that are not answered, so its store sends them
again after `tenten channel resume`. Rubbish that no channel has signed counts for nobody and stops nobody; it becomes
dead letters, as fast as the quota of its writer at Kafka allows. Only with `authentication = "off"` headquarters cannot
tell who writes, and stops.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from sqlalchemy import Engine
from structlog import get_logger

from tenten.avro.batches import UnreadableRow
from tenten.consumers.headquarters.authenticity import CheckedBatch
from tenten.consumers.headquarters.channel_streaks import ChannelStreaks
from tenten.consumers.headquarters.known_channels import ChannelRegistry
from tenten.consumers.headquarters.positions import Stream
from tenten.consumers.headquarters.unreadable import UnreadableStreak, stop_when_too_many
from tenten.identity.channel_changes import By
from tenten.identity.suspension import suspend
from tenten.runtime.errors import SettingsError
from tenten.runtime.settings import Settings

log = get_logger(__name__)

_NOT_COUNTED: Final = frozenset({"suspended", "wrong_partition"})
"""Reasons of dead letters that do not count: anybody may send what a channel has signed again, to another partition."""


class Checked(Protocol):
    """A batch that was checked with the keys and suspensions of the registry."""

    @property
    def unreadable(self) -> Sequence[UnreadableRow]:
        """The records that become dead letters."""

    @property
    def checked(self) -> CheckedBatch:
        """Who has signed its records."""

    def stored_before(self, engine: Engine, stream: Stream) -> frozenset[int]:
        """The refused records that an earlier SQL transaction has accepted."""


ReadT = TypeVar("ReadT", bound=Checked)


class Containment:
    """Counts the dead letters of a worker, batch by batch."""

    def __init__(self, settings: Settings, engine: Engine, source: str) -> None:
        """`source` is the worker's command, for the history of a suspension."""
        self._settings = settings
        self._engine = engine
        self._source = source
        self._streak = self._new_streak = UnreadableStreak()
        self._of_channels = self._new_of_channels = ChannelStreaks()

    def contain(
        self, read: ReadT, read_again: Callable[[frozenset[int]], ReadT], stream: Stream, registry: ChannelRegistry
    ) -> ReadT:
        """The batch, checked again if some of its refused records were accepted before, or if one of its channels is
        suspended now because it sends nothing but rubbish. `read_again` takes the rows that were accepted before.

        Raises: `TooManyDeadLetters`; errors of the database.
        """
        stored = read.stored_before(self._engine, stream)
        if stored:
            read = read_again(stored)
        if self._suspends(read):
            registry.refresh()
            read = read_again(stored)
            self._suspends(read)
        return read

    def _suspends(self, read: Checked) -> bool:
        """Count the dead letters of a batch, and suspend the channels with too many; whether there are any."""
        rows = [bad.row for bad in read.unreadable if bad.reason not in _NOT_COUNTED]
        signers = read.checked.signers
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

    def _suspend(self, channel: str, reason: str) -> None:
        """Suspend a channel, as `tenten channel suspend` does. Idempotent.

        One that was removed from the settings, and still has a key, cannot be suspended: its records stay dead letters.
        """
        try:
            suspend(self._engine, channel, reason, By(source=self._source))
        except SettingsError:
            log.warning("unknown_channel_not_suspended", channel=channel)

    def stored(self) -> None:
        """The batch that was counted last is in the database and on the topics; the next one follows it."""
        self._streak, self._of_channels = self._new_streak, self._new_of_channels
