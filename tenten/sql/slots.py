"""Slots: the transactional id that a worker uses.

A worker that starts with the transactional id of a dead worker makes the broker end that worker's open transaction at
once. So the ids are few and fixed (`headquarters-0`, `headquarters-1`, ...), and an advisory lock in headquarters'
database reserves each for one worker.

All workers of a group also share a lock. A command that must be alone takes it exclusively (`workers_stopped`): it
begins only when no worker runs, and no worker begins before it has ended.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from structlog import get_logger

from tenten.runtime.errors import LockHeld
from tenten.runtime.settings import Settings
from tenten.sql.locks import try_advisory_lock, try_shared_advisory_lock
from tenten.sql.try_until import try_until

log = get_logger(__name__)

SLOTS_MAX: Final = 1_000
"""More workers than any topic has partitions."""

WAIT_SECONDS: Final = 2.0
"""How long to wait for a requested slot: the lock of a killed worker is not free at once."""


@contextmanager
def workers_stopped(engine: Engine, settings: Settings, groups: Sequence[str]) -> Iterator[None]:
    """During the block no worker of these groups has a slot. Waits 2 s: a killed worker's lock is not free at once.

    Raises: `LockHeld` while a worker runs.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            for group in groups:
                name = _group_lock(settings, group)
                if not try_until(WAIT_SECONDS, partial(try_advisory_lock, connection, name)):
                    raise LockHeld(
                        f"a worker of the group {settings.group(group)} is running, or another command like this: stop "
                        f"every `tenten {group} run` and `tenten up` first"
                    )
            yield
        finally:
            connection.invalidate()


def _group_lock(settings: Settings, group: str) -> str:
    return f"workers.{settings.group(group)}"


class Slot:
    """A slot reserved for this worker while its connection lives; reserved again after the connection broke.

    `number` None: the first free slot.
    """

    def __init__(self, engine: Engine, settings: Settings, group: str, number: int | None) -> None:
        self._engine = engine
        self._settings = settings
        self._group = group
        self._requested = number
        self._connection: Connection | None = None
        self._number = -1

    def __enter__(self) -> "Slot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def transactional_id(self) -> str:
        """The transactional id of the slot, reserved at the time of the call.

        Raises: `LockHeld` when another worker has the requested slot; what the database raises.
        """
        if not self._is_held():
            self._release()
            self._acquire()
        return self._settings.transactional_id(self._group, self._number)

    def _is_held(self) -> bool:
        """Whether the connection that holds the lock is still usable."""
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:
            return False
        return True

    def _acquire(self) -> None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            self._number = self._lock_slot(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        log.info("slot_acquired", slot=self._number)

    def _lock_slot(self, connection: Connection) -> int:
        """Lock the requested slot, or the first free one; return its number. Raises: `LockHeld`."""
        if not try_shared_advisory_lock(connection, _group_lock(self._settings, self._group)):
            raise LockHeld(
                "`tenten headquarters recover` or `republish` is running, and no worker may run meanwhile: start this "
                "worker again when it has ended"
            )
        numbers = range(SLOTS_MAX) if self._requested is None else [self._requested]
        give_up_at = time.monotonic() + WAIT_SECONDS
        while True:
            for number in numbers:
                if try_advisory_lock(connection, f"slot.{self._settings.transactional_id(self._group, number)}"):
                    return number
            if self._requested is None or time.monotonic() > give_up_at:
                slots = "every slot" if self._requested is None else f"slot {self._requested}"
                raise LockHeld(f"{slots} is in use by another worker of this group: omit --slot, or choose another")
            time.sleep(0.05)

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
