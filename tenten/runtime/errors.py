"""What can go wrong, and whether waiting helps.

A rejection (a rule said no) is a value; these are for what cannot go on. The message is a sentence for the person in
front of the screen, with what to do, and without personal data.

TentenError
├── SettingsError               tenten.toml, the environment or a flag is wrong
├── KafkaRefused                wrong password, missing privilege or topic
├── TopicChanged                a topic was made anew, or has another number of partitions
├── RegistryAway                the schema registry does not answer (transient)
├── RegistryRefused             the schema registry says no
├── TooManyDeadLetters          so many in a row that the fault is not in the records
├── DatabaseRefused             a database that cannot be used as it is
│   ├── DatabaseOlderThanStream it was restored: Kafka holds what it does not know
│   └── DatabaseFull            no space left; nothing was written
├── LockHeld                    another process does this already
├── Contended                   another worker is just doing the same (transient)
├── NoSuchCustomer              no customer has this id here
├── NoSuchTransaction           no order, cash-and-carry or end of day has this id here
├── NoSuchDeadLetter            no dead letter stands there
├── RulesBroken                 what was said breaks rules; nothing was written
│   ├── CustomerRefused         a customer does
│   └── TransactionRefused      an order, a cash-and-carry or an end of day does
└── ImportRefused               a file cannot be imported as it is
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import psycopg
from confluent_kafka import KafkaError, KafkaException
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from tenten.schemas.messages import Reason


class TentenError(Exception):
    """Something that cannot go on; the message says what, and what to do."""


class SettingsError(TentenError):
    """A setting is missing or wrong; the message names it and says what to write instead."""


class KafkaRefused(TentenError):
    """Kafka says no, and waiting will not change that."""


class TopicChanged(TentenError):
    """A topic is not the one that this database has read."""


class RegistryAway(TentenError):
    """The schema registry does not answer. Transient."""


class RegistryRefused(TentenError):
    """The schema registry says no; `status` is its HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class TooManyDeadLetters(TentenError):
    """So many records in a row could not be read that the fault is not in the records."""


class DatabaseRefused(TentenError):
    """A database cannot be used as it is."""


class DatabaseOlderThanStream(DatabaseRefused):
    """The database was restored from a backup: Kafka holds what it does not know."""


class DatabaseFull(DatabaseRefused):
    """No space is left for the database; nothing was written."""


class LockHeld(TentenError):
    """Another process does this already."""


class Contended(TentenError):
    """Another worker is just writing the same customers. Transient."""


class NoSuchDeadLetter(TentenError):
    """No dead letter stands at this place."""


class NoSuchCustomer(TentenError):
    """No customer has this id here."""


class NoSuchTransaction(TentenError):
    """No order, cash-and-carry or end of day has this id here."""


class RulesBroken(TentenError):
    """What was said breaks rules; `reasons` has every one of them, and nothing was written."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__("; ".join(f"{reason.field}: {reason.text}" for reason in reasons))
        self.reasons = tuple(reasons)


class CustomerRefused(RulesBroken):
    """A customer breaks rules."""


class TransactionRefused(RulesBroken):
    """An order, a cash-and-carry or the end of a day breaks rules."""


class ImportRefused(TentenError):
    """A file cannot be imported as it is; nothing was."""


_SQLSTATE_CLASSES: Final = frozenset({"08", "40", "53", "57"})
"""Connection, transaction rollback (deadlock), resources, operator intervention (shutdown).
Source: https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

_IDLE_IN_TRANSACTION: Final = "25P03"
"""The server ended the connection of a process that was frozen within a transaction."""

_SQLITE_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})

_KAFKA_CODES: Final = frozenset(
    {
        # The line.
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
        # The group: a rebalance is under way, or this member must join again, which the client does by itself.
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        # The client itself: its queue is full, or was emptied when a producer was thrown away.
        KafkaError._QUEUE_FULL,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
    }
)
"""The client marks only errors of transactions as retriable; these are the others that pass by themselves."""


def is_transient(error: BaseException) -> bool:
    """Whether this may pass by itself, so that the same work is tried again: connections, locks, resources, shutdowns.

    Looks through what SQLAlchemy wraps and through `raise ... from`; an error of our own in between has the last word.
    """
    for inner in _chain(error):
        if isinstance(inner, TentenError):
            return isinstance(inner, RegistryAway | Contended)
        if _is_transient(inner):
            return True
    return False


def is_full(error: BaseException) -> bool:
    """Whether the database has no space left. Who can wait, waits; a clerk must be told (`DatabaseFull`)."""
    return any(
        isinstance(inner, psycopg.errors.DiskFull)
        or (isinstance(inner, sqlite3.Error) and _sqlite_code(inner) == sqlite3.SQLITE_FULL)
        for inner in _chain(error)
    )


def error_code(error: BaseException) -> str | None:
    """PostgreSQL's, SQLite's or Kafka's name for the error: it may be shown and logged, while texts may quote a row."""
    for inner in _chain(error):
        match inner:
            case psycopg.Error() if inner.sqlstate is not None:
                return inner.sqlstate
            case sqlite3.Error():
                return getattr(inner, "sqlite_errorname", None)
            case KafkaException(args=[KafkaError() as kafka_error, *_]):
                return str(kafka_error.name())
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what lies beneath it, outermost first; finite even where causes go in a circle."""
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
    """One without a `KafkaError` is our own way of saying that no answer came in time."""
    if not isinstance(error, KafkaError):
        return True
    return not error.fatal() and (error.retriable() or error.txn_requires_abort() or error.code() in _KAFKA_CODES)
