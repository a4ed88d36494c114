"""Follow a channel's events: one thread and one connection for all readers of a process, woken by commits.

    async for batch in feed.follow(after=last_seen_sequence):
        ...

A reader is never ahead of the database and misses nothing: recent events come from memory, older ones from the
database. Where events that it has not seen may be deleted, or the database was put back to an older copy, the batch
says `is_reset`, and the reader must read everything again that it shows.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Final

from anyio.to_thread import run_sync
from sqlalchemy import Engine

from tenten.runtime.retry import Retry
from tenten.sql.channel_events import ChannelEvent, EventType, event_bounds, events_after
from tenten.sql.engine import consistent_view
from tenten.sql.notifications import SETTLED_CHANNEL, listening

RECENT_MAX: Final = 2_000
"""Events that are kept in memory."""

BATCH_MAX: Final = 500
"""Events that are read at a time."""

_LOOK_SECONDS: Final = 1.0
"""How often the database is asked without a notification: one may be lost with its connection."""

_FINAL: Final = frozenset((EventType.NUMBERED, EventType.REJECTED, EventType.HELD, EventType.ERASED))
"""The events that say what has become of a new customer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """The next events of a reader."""

    events: Sequence[ChannelEvent]
    """In their order; none before a reset, and none in the first batch of a reader that begins now."""
    last_sequence: int
    """Up to which the reader has everything now: `after` of its next call of `follow`."""
    is_reset: bool = False
    """Whether events are missing before this batch: everything must be read again."""


@dataclass(eq=False, slots=True)
class _Reader:
    loop: asyncio.AbstractEventLoop
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class EventFeed:
    """The events of one channel. Its thread starts with the first reader and ends when `ending` is set."""

    def __init__(self, engine: Engine, channel: str, ending: Event) -> None:
        self._engine = engine
        self._channel = channel
        self._ending = ending
        self._lock = Lock()
        self._readers: set[_Reader] = set()
        self._thread: Thread | None = None
        # All events after `_recent_after` up to `_read_to`; None before the first look at the database.
        self._recent: deque[ChannelEvent] = deque()
        self._recent_after = 0
        self._read_to: int | None = None

    async def follow(self, after: int | None = None) -> AsyncGenerator[EventBatch]:
        """The events after this sequence as they happen, without end until the process ends; None: those from now on.

        The first batch comes at once, possibly empty. Raises: errors of the database, where older events are read.
        """
        with self._reader() as reader:
            batch = await self._first(reader, after)
            while batch is not None:
                yield batch
                batch = await self._next(reader, batch.last_sequence)

    async def settled(self, customer_id: str, after: int, seconds: float) -> bool:
        """Wait until an event after this sequence says what has become of a new customer; False if none does in time.

        Raises: errors of the database.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), aclosing(self.follow(after)) as batches:
                async for batch in batches:
                    if batch.is_reset or any(
                        event.subject_id == customer_id and event.type in _FINAL for event in batch.events
                    ):
                        return True
        return False

    async def now(self) -> int | None:
        """The sequence of the newest event that the feed knows, from which nothing later is missed; None at the end.

        Waits for the database.
        """
        with self._reader() as reader:
            while self._read_to is None and not self._ending.is_set():
                await self._wake_up(reader)
            return self._read_to

    async def _first(self, reader: _Reader, after: int | None) -> EventBatch | None:
        if after is None:
            last = await self.now()
            return None if last is None else EventBatch(events=(), last_sequence=last)
        return await self._read(after)

    async def _next(self, reader: _Reader, after: int) -> EventBatch | None:
        """The next events after this sequence; None at the end of the process."""
        while not self._ending.is_set():
            reader.woken.clear()
            batch = await self._read(after)
            if batch.events or batch.is_reset:
                return batch
            await self._wake_up(reader)
        return None

    async def _read(self, after: int) -> EventBatch:
        batch = self._from_memory(after)
        return await run_sync(self._from_database, after) if batch is None else batch

    async def _wake_up(self, reader: _Reader) -> None:
        await reader.woken.wait()
        reader.woken.clear()

    def _from_memory(self, after: int) -> EventBatch | None:
        """The events after this sequence, at most so many; None where memory does not have all of them."""
        with self._lock:
            if self._read_to is None or not self._recent_after <= after <= self._read_to:
                return None
            if after == self._read_to:
                return EventBatch(events=(), last_sequence=after)
            events = [event for event in self._recent if event.sequence > after][:BATCH_MAX]
        return EventBatch(events=events, last_sequence=events[-1].sequence)

    def _from_database(self, after: int) -> EventBatch:
        """The same from the database. Blocks. Raises: its errors."""
        with consistent_view(self._engine) as connection:
            bounds = event_bounds(connection)
            if not bounds.has_all_after(after):
                return EventBatch(events=(), last_sequence=bounds.last_sequence, is_reset=True)
            events = events_after(connection, after, BATCH_MAX)
        return EventBatch(events=events, last_sequence=events[-1].sequence if events else after)

    @contextmanager
    def _reader(self) -> Generator[_Reader]:
        """A reader, which is woken by new events and at the end."""
        reader = _Reader(asyncio.get_running_loop())
        with self._lock:
            self._readers.add(reader)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="events", daemon=True)
                self._thread.start()
        try:
            yield reader
        finally:
            with self._lock:
                self._readers.discard(reader)

    def _run(self) -> None:
        """The thread: look at the database whenever it was written. Waits for a database that is away."""
        retry = Retry("events", self._channel, self._ending, is_retryable=lambda _: True)
        while not self._ending.is_set():
            with retry.retrying(), listening(self._engine, SETTLED_CHANNEL) as wake:
                while not self._ending.is_set():
                    has_more = self._look()
                    retry.recovered()
                    if not has_more:
                        wake.wait(_LOOK_SECONDS, self._ending)
        self._wake_readers()

    def _look(self) -> bool:
        """Take new events into memory, and wake the readers if there are any; whether there may be more.

        Raises: errors of the database.
        """
        is_first = self._read_to is None
        with consistent_view(self._engine) as connection:
            if self._read_to is None:
                self._recent_after = self._read_to = event_bounds(connection).last_sequence
            events = events_after(connection, self._read_to, RECENT_MAX)
        if events:
            with self._lock:
                self._recent.extend(events)
                self._read_to = events[-1].sequence
                while len(self._recent) > RECENT_MAX:
                    self._recent_after = self._recent.popleft().sequence
        if events or is_first:
            self._wake_readers()
        return len(events) == RECENT_MAX

    def _wake_readers(self) -> None:
        with self._lock:
            for reader in self._readers:
                with suppress(RuntimeError):  # its loop has ended
                    reader.loop.call_soon_threadsafe(reader.woken.set)
