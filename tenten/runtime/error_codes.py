"""Codes of the errors that Kafka, PostgreSQL and SQLite raise, and which of them are transient."""

import sqlite3
from collections.abc import Iterator
from typing import Final

import psycopg
from confluent_kafka import KafkaError, KafkaException
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from tenten.runtime.errors import RegistryUnavailable, TentenError, TransactionFailed, WriteConflict

_SQLSTATE_CLASSES: Final = frozenset({"08", "40", "53", "57"})
"""Connection, transaction rollback (deadlock), resources, operator intervention (shutdown).
Source: https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

_IDLE_IN_TRANSACTION: Final = "25P03"
"""The server ended the connection of a process that was frozen within a transaction."""

_SQLITE_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})

_KAFKA_CODES: Final = frozenset(
    {
        # The connection.
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        # The brokers: starting, stopping, electing, or short of replicas.
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        # The coordinators of groups and transactions.
        KafkaError._WAIT_COORD,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        # The group: a rebalance is under way, or this member must join again, which the client does automatically.
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        # The client itself: its queue is full, or was emptied when a producer was discarded.
        KafkaError._QUEUE_FULL,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
    }
)
"""The client marks only errors of transactions as retriable; these are the other transient ones."""


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


def is_full(error: BaseException) -> bool:
    """Whether the database has no space left. Workers retry; a till raises `DatabaseFull`."""
    return any(
        isinstance(inner, psycopg.errors.DiskFull)
        or (isinstance(inner, sqlite3.Error) and _sqlite_code(inner) == sqlite3.SQLITE_FULL)
        for inner in _chain(error)
    )


def error_code(error: BaseException) -> str | None:
    """PostgreSQL's, SQLite's or Kafka's code of the error, if any. Safe to log, while a text may quote a row."""
    for inner in _chain(error):
        match inner:
            case psycopg.Error() if inner.sqlstate is not None:
                return inner.sqlstate
            case sqlite3.Error():
                return getattr(inner, "sqlite_errorname", None)
            case Exception(args=(KafkaError() as kafka_error, *_)):
                return str(kafka_error.name())
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
        case psycopg.Error():
            # An error without a state did not come from the server: the connection to it broke, or was never made.
            lost = error.sqlstate is None and isinstance(error, psycopg.OperationalError)
            state = error.sqlstate or ""
            return lost or state[:2] in _SQLSTATE_CLASSES or state == _IDLE_IN_TRANSACTION
        case sqlite3.Error():
            return _sqlite_code(error) in _SQLITE_CODES
        case KafkaException():
            return _kafka_is_transient(error.args[0] if error.args else None)
        case _:
            return False


def _sqlite_code(error: sqlite3.Error) -> int | None:
    """The primary result code; errors of Python's own module have none."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _kafka_is_transient(error: object) -> bool:
    """Without a `KafkaError` the exception is our own: no answer in time."""
    if not isinstance(error, KafkaError):
        return True
    return not error.fatal() and (error.retriable() or error.txn_requires_abort() or error.code() in _KAFKA_CODES)
