"""Whether the store reaches headquarters, from what its own database shows.

The relay sends a change within milliseconds, so one that stays unsent for seconds means that Kafka cannot be reached.
A store without changes is at the end of the customers about once a minute; it is cut off when that stops.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, Literal

from tenten.producers.till.database_session import reading
from tenten.producers.till.open_channel import OpenChannel
from tenten.sql import channel_state
from tenten.sql.channel_settings import read_acceptance

UNSENT_SECONDS: Final = 5.0
"""After this time an unsent change shows that the store is cut off."""

QUIET_SECONDS: Final = 200.0
"""More than two checks of the topic at its slowest: without any for so long, the store is cut off."""

_READ_AGAIN_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionState:
    """What a clerk needs to know about the way to headquarters."""

    state: Literal["connected", "offline", "suspended"]
    """suspended: headquarters does not accept the store's changes."""
    since: datetime | None = None
    """Of `offline`."""
    unsent: int = 0
    """Changes that are only here."""


CONNECTED: Final = ConnectionState(state="connected")


class ConnectionWatch:
    """Remembers what it saw: a long queue that gets shorter is not a sign of a missing connection. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._state = CONNECTED
        self._read_at = -_READ_AGAIN_SECONDS
        self.oldest: datetime | None = None
        """When the oldest unsent change was made, as seen last."""
        self._moved_at = 0.0
        self.read_up_to = -1
        """How far the customers were read, as seen last ..."""
        self.progress_at = 0.0
        """... and when, of the monotonic clock, that was first seen."""

    def state(self, channel: OpenChannel) -> ConnectionState:
        """The state now. Raises: `DatabaseRefused`."""
        with self._lock:
            if time.monotonic() - self._read_at >= _READ_AGAIN_SECONDS:
                self._state = self._read(channel)
                self._read_at = time.monotonic()
            return self._state

    def _read(self, channel: OpenChannel) -> ConnectionState:
        with reading(channel) as connection:
            acceptance = read_acceptance(connection, channel.name)
            oldest = channel_state.oldest_unsent_at(connection)
            unsent = 0 if oldest is None else channel_state.unsent_count(connection)
            complete_at = channel_state.complete_at(connection, channel.settings)
            read_up_to = channel_state.read_up_to(connection, channel.settings)
        if acceptance.suspended is not None or acceptance.key_problem(channel.name, datetime.now(UTC)) is not None:
            return ConnectionState(state="suspended", unsent=unsent)
        since = self._stuck_since(oldest) or self._quiet_since(complete_at, read_up_to)
        return CONNECTED if since is None else ConnectionState(state="offline", since=since, unsent=unsent)

    def _stuck_since(self, oldest: datetime | None) -> datetime | None:
        """When the oldest unsent change was made, if nothing is sent at the moment."""
        before, self.oldest = self.oldest, oldest
        if oldest is None or datetime.now(UTC) - oldest < timedelta(seconds=UNSENT_SECONDS):
            return None
        if self._state.state == "offline":
            return self._state.since
        if before is not None and oldest > before:
            self._moved_at = time.monotonic()
        is_moving = 0 < time.monotonic() - self._moved_at < UNSENT_SECONDS
        return None if is_moving else oldest

    def _quiet_since(self, complete_at: datetime | None, read_up_to: int) -> datetime | None:
        """When the store last was at the end of the customers, if it has not read anything for a while."""
        if read_up_to != self.read_up_to:
            self.read_up_to, self.progress_at = read_up_to, time.monotonic()
        if complete_at is None or datetime.now(UTC) - complete_at < timedelta(seconds=QUIET_SECONDS):
            return None
        return complete_at if time.monotonic() - self.progress_at > UNSENT_SECONDS else None
