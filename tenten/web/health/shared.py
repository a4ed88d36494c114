"""A value that is slow to find, for many who ask at the same time."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final, Generic, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

_SECONDS: Final = 1.0
"""How long a value is used."""

Value = TypeVar("Value")


class Shared(Generic[Value]):
    """Finds a value in one thread at a time, at most once a second."""

    def __init__(self, find: Callable[[], Value]) -> None:
        self._find = find
        self._finding: asyncio.Task[Value] | None = None
        self._found_at = 0.0

    async def value(self) -> Value:
        """The value, at most a second old. Raises: what finding it raises."""
        if self._finding is None or (self._finding.done() and monotonic() - self._found_at >= _SECONDS):
            self._finding = asyncio.ensure_future(self._found())
        # Another request still waits for it when this one has gone.
        return await asyncio.shield(self._finding)

    async def _found(self) -> Value:
        try:
            # Not among the threads of requests, which may all be waiting for a database.
            return await run_sync(self._find, limiter=CapacityLimiter(1))
        finally:
            self._found_at = monotonic()
