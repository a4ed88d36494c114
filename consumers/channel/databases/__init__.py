"""The bulk statements on a channel's tables, as one interface that PostgreSQL and SQLite implement.

Both pass tests/integration/test_channel_databases.py. Neither commits: every method runs in the transaction of the
connection that it is given. A batch takes the same number of statements whatever its size.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, Engine

if TYPE_CHECKING:  # the column library is optional
    from tenten.sql.customer_frames import Dialect, TableFrames


class ChannelDatabase(Protocol):
    """Reads and writes customers in bulk. Ids are GUIDs in lowercase; ids that do not exist are allowed."""

    @property
    def dialect(self) -> "Dialect":
        """Which form of `TableFrames` these methods take."""

    def lock_versions(self, connection: Connection, ids: Iterable[str]) -> dict[str, int]:
        """The versions of those customers that exist, their rows locked until the transaction ends.

        Locks in the order of the GUIDs, so that two callers cannot deadlock. May block while another transaction
        holds one of the rows.
        """

    def versions(self, connection: Connection, ids: Iterable[str]) -> dict[str, int]:
        """The versions of those customers that exist. Locks nothing."""

    def with_edits(self, connection: Connection, ids: Sequence[str], versions: Sequence[int]) -> set[str]:
        """The customers whose outbox has an event that is unsettled, or was settled in a later version than given.

        `versions` holds one version for each id, in the same order.
        """

    def insert(self, connection: Connection, frames: "TableFrames") -> None:
        """Insert customers that do not exist. One that does exist is an error, and the transaction must be rolled back.

        Raises: `WriteConflict` on PostgreSQL, where another transaction can have inserted it; on SQLite, where none
        can, the driver's `IntegrityError`.
        """

    def update(self, connection: Connection, frames: "TableFrames", ids: Collection[str]) -> None:
        """Make the rows of these customers equal to `frames`. Idempotent.

        `ids` are the customers in `frames`; all exist and are locked. Addresses and contacts that are equal already
        are not written, those that `frames` lacks are deleted.
        """

    def different(self, connection: Connection, frames: "TableFrames", ids: Collection[str]) -> set[str]:
        """The customers that are missing, or differ from `frames` in any column of any table. Locks nothing.

        `ids` are the customers in `frames`.
        """

    def remember_surplus(self, connection: Connection, ids: Iterable[str]) -> None:
        """Record customers that a resync did not find in the topic and has kept. Idempotent."""


def channel_database(database: Connection | Engine) -> ChannelDatabase:
    """The implementation for this database."""
    if database.dialect.name == "sqlite":
        from tenten.consumers.channel.databases.sqlite import SQLite

        return SQLite()
    from tenten.consumers.channel.databases.postgresql import PostgreSQL

    return PostgreSQL()
