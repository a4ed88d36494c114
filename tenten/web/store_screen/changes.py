"""Server-sent events: open pages hear that something has changed, and fetch their parts again.

An event says only what has changed: `store` or `connection`. Its id counts both, and a page names the counts with which
it was rendered, so that nothing between rendering and listening is missed.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any, Final

from sqlalchemy import func, select
from structlog import get_logger

from tenten.producers.till.database_session import reading
from tenten.producers.till.open_channel import OpenChannel
from tenten.schemas.tables.channel import positions
from tenten.sql.channel_state import last_sequence
from tenten.sql.notifications import SETTLED_CHANNEL, listening
from tenten.web.store_screen.connection import ConnectionWatch

log = get_logger(__name__)

_LOOK_SECONDS: Final = 1.0
"""How often the database is read without a notification: not every commit sends one."""

_PAUSE_SECONDS: Final = 0.2
"""Between two events: many commits in a row are one change to a page."""

_RETRY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each of the two has changed since this process started."""

    start: str
    store: int = 0
    connection: int = 0

    def __str__(self) -> str:
        return f"{self.start}.{self.store}.{self.connection}"

    def names_since(self, seen: str) -> list[str]:
        """What has changed since the counts that a page names; everything, if they are of another process."""
        start, _, rest = seen.partition(".")
        store, _, connection = rest.partition(".")
        if start != self.start:
            return ["store", "connection"]
        pairs = (("store", store, self.store), ("connection", connection, self.connection))
        return [name for name, before, now in pairs if before != str(now)]


@dataclass(slots=True)
class Changes:
    """Follows the channel's database in a thread, from the first page that is shown until `ending` is set."""

    open_channel: Callable[[], OpenChannel]
    connection: ConnectionWatch
    ending: Event
    counts: Counts = field(default_factory=lambda: Counts(secrets.token_hex(4)))
    _starting: Lock = field(default_factory=Lock)
    _counting: Lock = field(default_factory=Lock)
    _thread: Thread | None = None

    def start(self) -> None:
        """Start to follow. Idempotent."""
        with self._starting:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="changes", daemon=True)
                self._thread.start()

    def note(self) -> None:
        """Count a change that was just made here: a discarded one, for example, adds nothing to the outbox."""
        self._count(store=True)

    def _count(self, *, store: bool = False, connection: bool = False) -> None:
        with self._counting:
            counts = self.counts
            self.counts = Counts(counts.start, counts.store + store, counts.connection + connection)

    async def events(self, seen: str) -> AsyncGenerator[dict[str, Any]]:
        """The changes after those that the page has seen, until the server ends."""
        while not self.ending.is_set():
            counts = self.counts
            names = counts.names_since(seen)
            if names:
                seen = str(counts)
                yield {"event": "change", "data": " ".join(names), "id": seen}
            await asyncio.sleep(_PAUSE_SECONDS)

    def _run(self) -> None:
        is_logged = False
        while not self.ending.is_set():
            try:
                self._follow()
                is_logged = False
            except Exception as error:  # noqa: BLE001 - pages without news are better than none
                if not is_logged:
                    is_logged = True
                    log.warning("screen_not_following", error=type(error).__name__)
                self.ending.wait(_RETRY_SECONDS)

    def _follow(self) -> None:
        channel = self.open_channel()
        seen: tuple[object, object] | None = None
        with listening(channel.engine, SETTLED_CHANNEL) as news:
            while not self.ending.is_set():
                now = (self._store(channel), self.connection.state(channel))
                if seen is not None:
                    self._count(store=now[0] != seen[0], connection=now[1] != seen[1])
                seen = now
                began = time.monotonic()
                news.wait(_LOOK_SECONDS, self.ending)
                self.ending.wait(max(0.0, _PAUSE_SECONDS - (time.monotonic() - began)))

    def _store(self, channel: OpenChannel) -> tuple[object, ...]:
        """A value that changes with every change that is made here, and with every record that is read."""
        with reading(channel) as connection:
            return last_sequence(connection), connection.scalar(select(func.sum(positions.c.next_offset)))
