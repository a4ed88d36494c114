"""Codes of the errors that Kafka, PostgreSQL and SQLite raise, and which of them are transient.

Imports neither Kafka's nor PostgreSQL's client: a process that has not imported a client has none of its errors.
"""

import sqlite3
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from tenten.runtime.errors import RegistryUnavailable, TentenError, TransactionFailed, WriteConflict

if TYPE_CHECKING:
    import psycopg
    from confluent_kafka import KafkaError

_SQLSTATE_CLASSES: Final = frozenset({"08", "40", "53", "57"})
"""Connection, transaction rollback (deadlock), resources, operator intervention (shutdown).
Source: https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

_TIMEOUTS: Final = frozenset({"25P03", "25P04"})
"""The server ended the connection of a process that was frozen within a transaction, or whose transaction took too
long."""

_DATA_CLASSES: Final = frozenset({"22", "23", "54"})
"""SQLSTATE classes that the content of a record can cause: data, integrity, limits."""

_DISK_FULL: Final = "53100"

_SQLITE_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})

_SQLITE_NO_SHARED_MEMORY: Final = sqlite3.SQLITE_IOERR_SHMSIZE
"""A file of 32 KiB, which the first connection creates, has no space on the disk."""


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed when it is retried: connections, locks, resources, shutdowns.

    Looks through SQLAlchemy's wrappers and through `raise ... from`; the first `TentenError` on the way decides.
    """
    for inner in _chain(error):
        if isinstance(inner, TentenError):
            return isinstance(inner, RegistryUnavailable | TransactionFailed | WriteConflict)
        if _is_transient(inner):
            return True
    return False


def is_data_error(error: BaseException) -> bool:
    """Whether the content of a record may have caused the error: another record may be accepted. Any other error that
    is not transient affects all records.
    """
    postgresql = postgresql_error_in(error)
    if postgresql is None:
        return False
    if postgresql.sqlstate is not None:
        return postgresql.sqlstate[:2] in _DATA_CLASSES
    import psycopg

    # Raised before the statement was sent, such as for a text with a NUL.
    return isinstance(postgresql, psycopg.DataError)


def postgresql_error_in(error: BaseException) -> "psycopg.Error | None":
    """The error of PostgreSQL's driver that this is or was caused by, if any."""
    return next((found for inner in _chain(error) if (found := _postgresql_error(inner)) is not None), None)


def is_full(error: BaseException) -> bool:
    """Whether the database has no space left. Workers retry; a till raises `DatabaseFull`."""
    return any(
        ((postgresql := _postgresql_error(inner)) is not None and postgresql.sqlstate == _DISK_FULL)
        or (isinstance(inner, sqlite3.Error) and _sqlite_is_full(inner))
        for inner in _chain(error)
    )


def error_code(error: BaseException) -> str | None:
    """PostgreSQL's, SQLite's or Kafka's code of the error, if any. Safe to log, while a text may quote a row."""
    for inner in _chain(error):
        postgresql, kafka = _postgresql_error(inner), _kafka_error(inner)
        if postgresql is not None and postgresql.sqlstate is not None:
            return postgresql.sqlstate
        if isinstance(inner, sqlite3.Error):
            return getattr(inner, "sqlite_errorname", None)
        if kafka is not None:
            return str(kafka.name())
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outermost first; finite even for circular causes."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = inner.orig if isinstance(inner, DBAPIError) else inner.__cause__


def _is_transient(error: BaseException) -> bool:
    match error:
        case DBAPIError():
            return error.connection_invalidated
        case DisconnectionError() | NoConnectionFree():
            return True
        case sqlite3.Error():
            return _sqlite_code(error) in _SQLITE_CODES or _sqlite_is_full(error)
    postgresql = _postgresql_error(error)
    if postgresql is not None:
        return _postgresql_is_transient(postgresql)
    return _kafka_is_transient(error)


def _postgresql_error(error: BaseException) -> "psycopg.Error | None":
    psycopg = sys.modules.get("psycopg")
    return error if psycopg is not None and isinstance(error, psycopg.Error) else None


def _postgresql_is_transient(error: "psycopg.Error") -> bool:
    import psycopg

    state = error.sqlstate
    if state is None:
        # Not from the server: the connection broke, or was never established.
        return isinstance(error, psycopg.OperationalError)
    return state[:2] in _SQLSTATE_CLASSES or state in _TIMEOUTS


def _sqlite_code(error: sqlite3.Error) -> int | None:
    """The primary result code; None for errors of Python's own module."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _sqlite_is_full(error: sqlite3.Error) -> bool:
    extended = getattr(error, "sqlite_errorcode", None)
    return _sqlite_code(error) == sqlite3.SQLITE_FULL or extended == _SQLITE_NO_SHARED_MEMORY


def _kafka_error(error: BaseException) -> "KafkaError | None":
    """The client's error that an exception carries."""
    kafka = sys.modules.get("confluent_kafka")
    carried = error.args[0] if error.args else None
    return carried if kafka is not None and isinstance(carried, kafka.KafkaError) else None


def _kafka_is_transient(error: BaseException) -> bool:
    """Without a `KafkaError` a `KafkaException` is our own: no answer in time."""
    kafka = sys.modules.get("confluent_kafka")
    if kafka is None or not isinstance(error, kafka.KafkaException):
        return False
    from tenten.runtime.kafka_error_codes import TRANSIENT

    carried = _kafka_error(error)
    if carried is None:
        return True
    return not carried.fatal() and (carried.retriable() or carried.txn_requires_abort() or carried.code() in TRANSIENT)
