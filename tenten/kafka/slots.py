"""Slots: which of the transactional ids a worker uses.

A worker that starts again with the id of a dead one makes the broker end the dead one's open transaction at once. So
ids are few and fixed, `headquarters-0` and on, and an advisory lock in headquarters' database says who has which.
"""

import time
import zlib
from types import TracebackType
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from structlog import get_logger

from tenten.runtime.errors import LockHeld
from tenten.runtime.settings import Settings

log = get_logger(__name__)

SLOTS_MAX: Final = 1_000
"""More workers than any topic has partitions."""

WAIT_SECONDS: Final = 2.0
"""How long a slot of one's wish is waited for: the lock of a worker that was killed is not free at once."""

_TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(1010, CAST(:key AS bigint)::bit(32)::int)")


class Slot:
    """A slot of this worker's own, for as long as its connection lives; asked for again when that broke."""

    def __init__(self, engine: Engine, settings: Settings, group: str, number: int | None) -> None:
        self._engine = engine
        self._settings = settings
        self._group = group
        self._wanted = number
        self._connection: Connection | None = None
        self._number = -1

    def __enter__(self) -> "Slot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def transactional_id(self) -> str:
        """The transactional id of the slot, which is ours at the moment of asking.

        Raises: `LockHeld` when the slot that was asked for is another worker's; what the database raises.
        """
        if not self._is_held():
            self._release()
            self._take()
        return self._settings.transactional_id(self._group, self._number)

    def _is_held(self) -> bool:
        """Whether the connection that holds the lock still lives."""
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:
            return False
        return True

    def _take(self) -> None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            self._number = self._lock_one(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        log.info("slot_taken", slot=self._number)

    def _lock_one(self, connection: Connection) -> int:
        """Lock the slot that is wanted, or the first that is free; its number."""
        numbers = range(SLOTS_MAX) if self._wanted is None else [self._wanted]
        give_up_at = time.monotonic() + WAIT_SECONDS
        while True:
            for number in numbers:
                key = {"key": zlib.crc32(self._settings.transactional_id(self._group, number).encode())}
                if connection.scalar(_TRY_LOCK, key):
                    return number
            if self._wanted is None or time.monotonic() > give_up_at:
                wanted = "every slot" if self._wanted is None else f"slot {self._wanted}"
                raise LockHeld(f"{wanted} belongs to another worker of this group: leave --slot out, or name another")
            time.sleep(0.05)

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
