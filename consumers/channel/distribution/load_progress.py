"""The progress of a resync: told to the caller, and written to the channel's database every few seconds."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from sqlalchemy import Engine, exists, select
from sqlalchemy.exc import DBAPIError

from tenten.runtime.retry import Retry
from tenten.schemas.messages import Loading
from tenten.schemas.tables.channel import customers
from tenten.sql.engine import consistent_view
from tenten.sql.loading import FIRST_LOAD, RESYNC, forget_loading, write_loading

Progress = Callable[[int, int], None]
"""Called with the offsets done and the total; offsets of records that compaction has removed are included."""

WRITE_SECONDS: Final = 5.0
"""The time between two writes."""


class LoadProgress:
    """How far a resync is, for the caller and for heartbeats."""

    def __init__(self, engine: Engine, retry: Retry, tell: Progress) -> None:
        self._engine = engine
        self._retry = retry
        self._tell = tell
        self._started_at = datetime.now(UTC)
        self._written_at = -WRITE_SECONDS
        self._kind = retry.run_until_success(self._find_kind)

    def __call__(self, done: int, total: int) -> None:
        """Tell the caller; write what heartbeats report now and then, and at the beginning and end of the reading."""
        self._tell(done, total)
        if total and (done == total or monotonic() - self._written_at >= WRITE_SECONDS):
            load = Loading(kind=self._kind, done=done, total=total, started_at=self._started_at)
            self._retry.run_until_success(lambda: self._write(load))
            self._written_at = monotonic()

    def interrupted(self) -> None:
        """The resync ends before it is complete. Idempotent."""
        with suppress(DBAPIError), self._engine.begin() as connection:
            # Where that fails, heartbeats stop to report it after some minutes.
            forget_loading(connection)

    def _find_kind(self) -> str:
        with consistent_view(self._engine) as connection:
            has_customers = connection.scalar(select(exists().where(customers.c.version > 0)))
        return RESYNC if has_customers else FIRST_LOAD

    def _write(self, load: Loading) -> None:
        with self._engine.begin() as connection:
            write_loading(connection, load, datetime.now(UTC))
