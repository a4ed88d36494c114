"""What a heartbeat reports about its channel, read from the channel's database in one short transaction.

A quiet channel costs a few look-ups. Counts that read a whole index are repeated only after something has changed, and
only as often as they take at most a thousandth of the time.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection

from tenten.runtime.release import release
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Heartbeat, Problem
from tenten.sql import channel_state
from tenten.sql.channel_settings import KEY_NOT_ACCEPTED, read_acceptance
from tenten.sql.loading import read_loading

_PAUSE_PARTS: Final = 1_000
"""After a count, this many times the time that it took passes before the next one."""

_LATE_ROWS: Final = 1_000
"""Rows of the outbox may become visible out of order, mostly this close to the last ones ..."""

_ALL_ROWS_SECONDS: Final = 3600
"""... and this often all rows are looked at."""


class _SlowCount:
    """A count that is repeated if something has changed, and not too often."""

    def __init__(self, count: Callable[[Connection], int]) -> None:
        self._count = count
        self._value: int | None = None
        self._counted_for: object = None
        self._next_at = 0.0

    def value(self, connection: Connection, changes: object) -> int:
        """The count; `changes` is different when it may have changed."""
        started = time.monotonic()
        if self._value is None or (changes != self._counted_for and started >= self._next_at):
            self._value = self._count(connection)
            self._counted_for = changes
            ended = time.monotonic()
            self._next_at = ended + _PAUSE_PARTS * (ended - started)
        return self._value


class ChannelReport:
    """Reads the content of heartbeats. One thread at a time."""

    def __init__(self, settings: Settings, channel: str) -> None:
        self._channel = channel
        self._settings = settings
        self._customers = _SlowCount(channel_state.customers_count)
        self._duplicates = _SlowCount(channel_state.duplicate_numbers_count)
        self._unsent = _SlowCount(channel_state.unsent_count)
        self._unsettled = _SlowCount(lambda database: channel_state.unsettled_count(database, self._settled_up_to))
        self._settled_up_to = 0
        """No row of the outbox up to here is unsettled, except late ones."""
        self._all_rows_at = 0.0

    def read(self, connection: Connection) -> Heartbeat:
        """The state of the channel now."""
        now = datetime.now(UTC)
        if time.monotonic() >= self._all_rows_at:
            self._all_rows_at = time.monotonic() + _ALL_ROWS_SECONDS
            self._settled_up_to = 0
        last = channel_state.last_sequence(connection)
        unsettled = channel_state.oldest_unsettled(connection, self._settled_up_to)
        first = last if unsettled is None else unsettled.sequence - 1
        self._settled_up_to = max(self._settled_up_to, first - _LATE_ROWS)
        unsent_at = channel_state.oldest_unsent_at(connection)
        changes = (last, channel_state.read_up_to(connection, self._settings))
        return Heartbeat(
            channel_id=self._channel,
            release=release(),
            sent_at=now,
            oldest_unsent_at=unsent_at,
            oldest_unsettled_at=None if unsettled is None else unsettled.created_at,
            unsent=0 if unsent_at is None else self._unsent.value(connection, now),
            unsettled=0 if unsettled is None else self._unsettled.value(connection, now),
            customers=self._customers.value(connection, changes),
            complete_at=channel_state.complete_at(connection, self._settings),
            problems=tuple(self._problems(connection, changes)),
            loading=read_loading(connection, self._settings, now),
        )

    def _problems(self, connection: Connection, changes: object) -> list[Problem]:
        found = []
        duplicates = self._duplicates.value(connection, changes)
        if duplicates:
            text = channel_state.duplicate_numbers_text(self._channel, duplicates)
            found.append(Problem(code=channel_state.DUPLICATE_NUMBER, text=text))
        if channel_state.has_kept_customers(connection):
            text = (
                "the last resync did not find some customers of this channel in the topic and has kept them: "
                f"`tenten channel status {self._channel}`, where the channel runs, has the number and the remedy"
            )
            found.append(Problem(code="surplus_kept", text=text))
        key = read_acceptance(connection, self._channel).key_problem(self._channel, datetime.now(UTC))
        if key is not None:
            found.append(Problem(code=KEY_NOT_ACCEPTED, text=key))
        return found
