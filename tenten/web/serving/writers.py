"""Places for requests that write: a database that is locked must not take every thread, which reads and health need."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from tenten.sql.sqlite_queue import giving_up_at
from tenten.web.serving.problems import Problem

WRITERS_MAX: Final = 5
"""Requests that write at the same time: half of the threads."""

WAITING_MAX: Final = 32
"""Further ones that wait for a place; more are refused at once."""

SECONDS_MAX: Final = 5.0
"""How long a request waits for a place and for the write lock of SQLite, together."""


class Writers:
    """The places of one server."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(WRITERS_MAX)
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """Wait for a place, which is kept during the block. Raises: `Problem` 503 when too many wait, or too long."""
        give_up_at = time.monotonic() + SECONDS_MAX
        if self._places.locked() and self._waiting >= WAITING_MAX:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(SECONDS_MAX):
                await self._places.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1
        try:
            with giving_up_at(give_up_at):
                yield
        finally:
            self._places.release()


def _busy() -> Problem:
    return Problem(503, "Too many requests wait to write: nothing was written.", headers={"Retry-After": "1"})
