"""The open channel behind the API. The first request that needs it opens it: its database may be away at the start."""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Concatenate, ParamSpec, TypeVar

from anyio.to_thread import run_sync
from sqlalchemy import Engine

from tenten.producers.till.open_channel import OpenChannel
from tenten.runtime.settings import Settings
from tenten.sql.migrations import check_version
from tenten.web.events.feed import EventFeed
from tenten.web.serving.writers import Writers

P = ParamSpec("P")
T = TypeVar("T")


class Till:
    """A channel that is used through HTTP. Thread-safe."""

    def __init__(self, settings: Settings, channel: str, engine: Engine, feed: EventFeed, writers: Writers) -> None:
        self.feed = feed
        self._writers = writers
        self._settings = settings
        self._channel = channel
        self._engine = engine
        self._lock = Lock()
        self._opened: OpenChannel | None = None

    async def call(
        self, function: Callable[Concatenate[OpenChannel, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """Call a function with the open channel, in a thread. Raises: its errors; those of the database."""
        return await run_sync(partial(self._call, function, *arguments, **named))

    async def write(
        self, function: Callable[Concatenate[OpenChannel, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """The same for a function that writes, which waits for a place. Raises: also `Problem` 503."""
        async with self._writers.place():
            return await self.call(function, *arguments, **named)

    def _call(self, function: Callable[Concatenate[OpenChannel, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        return function(self._opened or self._open(), *arguments, **named)

    def _open(self) -> OpenChannel:
        with self._lock:
            if self._opened is None:
                check_version(self._engine, "channel")
                self._opened = OpenChannel(self._settings, self._channel, self._engine)
            return self._opened
