"""Records that a resync may not apply before it knows that they are the last of their customers.

They are kept in a temporary database of this process, which SQLite holds in memory while it is small, and otherwise in
a file that has no name and disappears with the process.
"""

import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from types import TracebackType
from typing import Final, Self

from tenten.kafka.assigned_reader import Records

_CREATE: Final = """
    CREATE TABLE deferred (
        key BLOB PRIMARY KEY, partition INTEGER NOT NULL, record_offset INTEGER NOT NULL, value BLOB) WITHOUT ROWID
    """

_STORE: Final = "INSERT OR REPLACE INTO deferred (key, partition, record_offset, value) VALUES (?, ?, ?, ?)"

_REMOVE: Final = "DELETE FROM deferred WHERE key = ?"

_NEXT: Final = "SELECT key, partition, record_offset, value FROM deferred WHERE key > ? ORDER BY key LIMIT ?"


class DeferredRecords:
    """At most one record a customer: the last that was deferred. Use it as a context manager.

    Several threads may use it, one at a time.
    """

    def __enter__(self) -> Self:
        # An empty name: a temporary database.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(_CREATE)
        self._is_empty = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def store(self, records: Records, keys: Collection[bytes | None]) -> None:
        """Store those of the records that have one of these keys, each in place of an earlier one. Idempotent."""
        rows = zip(records.keys, records.partitions, records.offsets, records.values, strict=True)
        self._change(_STORE, [row for row in rows if row[0] in keys])
        self._is_empty = False

    def remove(self, keys: Iterable[bytes | None]) -> None:
        """Remove the records with these keys. Idempotent."""
        if not self._is_empty:
            self._change(_REMOVE, [(key,) for key in keys])

    def following(self, key: bytes, records_max: int) -> Records:
        """The next records after this key, in the order of the keys."""
        if self._is_empty:
            return Records()
        with closing(self._database.execute(_NEXT, (key, records_max))) as cursor:
            rows = cursor.fetchall()
        return Records(
            keys=[row[0] for row in rows],
            values=[row[3] for row in rows],
            partitions=[row[1] for row in rows],
            offsets=[row[2] for row in rows],
        )

    def _change(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(statement, rows)
        self._database.execute("COMMIT")
