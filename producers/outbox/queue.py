"""The outbox queue as the relay uses it: read the rows to send, and delete the entries of rows that were sent.

In PostgreSQL rows of different customers may become visible out of order, hence the relay asks which rows are in the
queue, never which are "greater than the last one". Reading begins a little before the entry where it began last time
all the same: PostgreSQL keeps deleted entries in the index while a transaction, such as a backup, could still see them,
and a million of them would have to be passed each time. SQLite has one writer at a time, so there new rows come after
all others. An earlier row that is queued again is found because the whole queue is read about every second.

Before the relay reads rows it reserves them, a few more than there are: a row after the reservation was certainly never
sent, and a till may fold it into the next change of its customer (`folding.py`).
"""

import json
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from tenten.sql.arrays import pg_array_literal
from tenten.sql.postgresql_driver import driver_of

WHOLE_QUEUE_SECONDS: Final = 1.0
"""How often the whole queue is read."""

_WHOLE_QUEUE_PART: Final = 20
"""Reading the whole queue takes at most one part in this many of the time."""

_LATE_ROWS: Final = 1_000
"""Rows that become visible late are mostly this close to the first ones, and are found at once."""


RESERVED_AHEAD: Final = 16
"""Rows that are reserved before they exist, so that not every single row needs a reservation of its own."""


class QueuedRow(NamedTuple):
    """An outbox row as the relay needs it."""

    sequence: int
    event_id: str
    aggregate_type: str
    aggregate_id: str
    """The customer's id, or the transaction's."""
    type: str
    payload: bytes
    traceparent: str | None


class QueuedRows(NamedTuple):
    """The next entries of the queue."""

    rows: Sequence[QueuedRow]
    """The rows to send, in the order of their sequence."""
    obsolete: Sequence[int]
    """Entries without a row to send: it was rejected in the channel, settled in another way, or deleted."""
    has_more: bool
    """Whether a limit was reached, so that there are likely more."""

    def sequences(self) -> list[int]:
        """The sequences of all these entries."""
        return [*self.obsolete, *(row.sequence for row in self.rows)]

    @property
    def last(self) -> int:
        """The last of the sequences; 0 without any."""
        return max(self.sequences(), default=0)


NOTHING: Final = QueuedRows((), (), has_more=False)
_NO_END: Final = 2**63 - 1


# The first entries after a sequence, with their rows. Entries that were read and not deleted yet are excluded one by
# one: a row between them may have been committed only now. The window sums up the payloads, to stop at the limit. The
# limit of one row makes PostgreSQL look up each row by its key, whatever it believes about the sizes of the tables.
_READ_POSTGRESQL: Final = """
    SELECT sequence, id, aggregatetype, aggregateid, type, payload, traceparent
    FROM (
        SELECT entry.sequence, id::text, aggregatetype, aggregateid::text, type, payload, traceparent,
               sum(length(payload)) OVER (ORDER BY entry.sequence ROWS UNBOUNDED PRECEDING) - length(payload) AS before
        FROM (
            SELECT sequence FROM outbox_queue
            WHERE sequence > %s AND sequence <= %s AND NOT sequence <@ %s::int8multirange ORDER BY sequence LIMIT %s
        ) AS entry LEFT JOIN LATERAL (
            SELECT * FROM outbox
            WHERE outbox.sequence = entry.sequence AND settled_at IS NULL AND coalesce(outcome, 'held') = 'held'
            LIMIT 1
        ) AS unsettled ON true
        ORDER BY entry.sequence
    ) AS entry
    WHERE before IS NULL OR before < %s
    """
_READ_SQLITE: Final = """
    SELECT sequence FROM outbox_queue WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?
    """
_ROWS_SQLITE: Final = """
    SELECT entry.sequence, id, aggregatetype, aggregateid, type, payload, traceparent
    FROM outbox_queue AS entry
    LEFT JOIN outbox
        ON outbox.sequence = entry.sequence AND settled_at IS NULL AND coalesce(outcome, 'held') = 'held'
    WHERE entry.sequence BETWEEN ? AND ? ORDER BY entry.sequence
    """

# Reserve all rows in the queue, and some more. PostgreSQL waits for tills that are folding rows.
_RESERVE: Final = f"""
    UPDATE outbox_reservation SET reserved_to = (SELECT max(sequence) FROM outbox_queue) + {RESERVED_AHEAD}
    WHERE reserved_to < (SELECT max(sequence) FROM outbox_queue)
    """  # noqa: S608 - a constant of this module
_RESERVED_TO: Final = "SELECT reserved_to FROM outbox_reservation"

# Delete entries.
_DELETE_POSTGRESQL: Final = "DELETE FROM outbox_queue WHERE sequence = ANY (%s::int8[])"
_DELETE_SQLITE: Final = "DELETE FROM outbox_queue WHERE sequence IN (SELECT value FROM json_each(?))"

# Nothing waits for the disk: a crash that undoes a deletion repeats a row. The statement above is planned once, for any
# size of its tables.
_SETTINGS_POSTGRESQL: Final = (
    "SET synchronous_commit = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; "
    "SET enable_bitmapscan = off"
)
_SETTINGS_SQLITE: Final = "PRAGMA synchronous = NORMAL"


class OutboxQueue:
    """Reads the queue, each row once. Not thread-safe.

    The connection must be in autocommit mode and serve nothing else. Its settings are changed: the caller closes it.
    """

    def __init__(self, connection: Connection) -> None:
        self._is_postgresql = connection.dialect.name == "postgresql"
        self._driver: Any = driver_of(connection)
        self._driver.execute(_SETTINGS_POSTGRESQL if self._is_postgresql else _SETTINGS_SQLITE)
        self._unfinished: set[int] = set()
        """The sequences that were read, and whose entries exist."""
        self._after = 0
        self._reserved_to = 0
        self._whole_queue_at = 0.0

    def read(self, rows_max: int, bytes_max: int) -> QueuedRows:
        """The next entries, at most `rows_max`; those after the row whose payload reaches `bytes_max` in total are left
        for the next call.
        """
        started_at = time.monotonic()
        is_whole = started_at >= self._whole_queue_at
        after = 0 if is_whole else self._after
        queued = self._read(after, _NO_END, rows_max, bytes_max)
        if queued.last > self._reserved_to:
            # Read again, because a till may have folded some of these rows before they were reserved.
            self._reserve()
            queued = self._read(after, self._reserved_to, rows_max, bytes_max)
        if is_whole:
            ended_at = time.monotonic()
            pause_seconds = max(WHOLE_QUEUE_SECONDS, (ended_at - started_at) * _WHOLE_QUEUE_PART)
            self._whole_queue_at = ended_at + pause_seconds
        sequences = queued.sequences()
        if sequences:
            self._after = min(sequences) - 1 - _LATE_ROWS if self._is_postgresql else max(sequences)
            self._unfinished.update(sequences)
        return queued

    def _read(self, after: int, to: int, rows_max: int, bytes_max: int) -> QueuedRows:
        """The entries after a sequence and up to another one."""
        read = self._read_postgresql if self._is_postgresql else self._read_sqlite
        return read(after, to, rows_max, bytes_max)

    def _reserve(self) -> None:
        """Reserve all rows in the queue."""
        self._driver.execute(_RESERVE)
        self._reserved_to = self._driver.execute(_RESERVED_TO).fetchone()[0]

    def _read_postgresql(self, after: int, to: int, rows_max: int, bytes_max: int) -> QueuedRows:
        parameters = (after, to, multirange(self._unfinished), rows_max, bytes_max)
        # A binary cursor transfers payloads as bytes instead of in hexadecimal.
        with closing(self._driver.cursor(binary=True)) as cursor:
            found = cursor.execute(_READ_POSTGRESQL, parameters, prepare=True).fetchall()
        rows = [QueuedRow._make(row) for row in found if row[1] is not None]
        obsolete = [row[0] for row in found if row[1] is None] if len(rows) < len(found) else ()
        size = sum(len(row.payload) for row in rows)
        return QueuedRows(rows, obsolete, has_more=size >= bytes_max or len(found) == rows_max)

    def _read_sqlite(self, after: int, to: int, rows_max: int, bytes_max: int) -> QueuedRows:
        # Entries that were read are passed without their payloads.
        passed = sum(sequence > after for sequence in self._unfinished)
        entries = self._driver.execute(_READ_SQLITE, (after, to, rows_max + passed)).fetchall()
        new = [entry[0] for entry in entries if entry[0] not in self._unfinished][:rows_max]
        if not new:
            return NOTHING
        rows: list[QueuedRow] = []
        obsolete: list[int] = []
        size = 0
        with closing(self._driver.cursor()) as cursor:
            for row in cursor.execute(_ROWS_SQLITE, (new[0], new[-1])):
                if row[0] in self._unfinished:
                    continue
                if row[1] is None:
                    obsolete.append(row[0])
                    continue
                rows.append(QueuedRow._make(row))
                size += len(row[5])
                if size >= bytes_max:
                    break
        return QueuedRows(rows, obsolete, has_more=size >= bytes_max or len(new) == rows_max)

    def delete(self, sequences: Collection[int]) -> None:
        """Delete these entries. One statement. It does not wait for the disk: a crash may undo it."""
        if self._is_postgresql:
            self._driver.execute(_DELETE_POSTGRESQL, (pg_array_literal(sequences),), prepare=True)
        else:
            self._driver.execute(_DELETE_SQLITE, (json.dumps(list(sequences)),))
        self._unfinished.difference_update(sequences)


def multirange(numbers: Iterable[int]) -> str:
    """Exactly these numbers as a PostgreSQL multirange, adjacent numbers joined into one range.

    >>> multirange([5, 3, 4, 9])
    '{[3,6),[9,10)}'
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    return "{" + ",".join(f"[{first},{end})" for first, end in ranges) + "}"
